# Every step of the project, by name; `make help` lists them. Continuous integration calls only these.
# Each does all of its own set-up, and is quick when there is nothing left to set up.
#
#   make test PYTHON=python3.13     chooses the interpreter (3.11 or newer; python3 if not given)

PYTHON ?= python3

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.DEFAULT_GOAL := help
.SUFFIXES:

# Where rustup puts cargo, for shells that have not read its profile.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# An environment for each version of Python; .venv is a link to the one used last.
version := $(shell $(PYTHON) -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))' 2>/dev/null)
venv := .venv-$(version)
run := $(venv)/bin/python
environment = $(PYTHON) scripts/environment.py $(venv) --link .venv

# cargo's output for one version of Python, as scripts/build_extension.py has it.
target := $(or $(CARGO_TARGET_DIR),target)
target_python := $(target)/cp$(subst .,,$(version))
cargo_python := PYO3_PYTHON=$(CURDIR)/$(run) CARGO_TARGET_DIR=$(target_python)

# PGO=1 has release builds and wheels optimised for a profile that the benchmarks' rows have left.
guided := $(if $(PGO),--profile-guided)

# The load generator of the benchmarks is a workspace of its own.
loadgen := --manifest-path benchmarks/loadgen/Cargo.toml

# So are the fuzz targets.
fuzz := --manifest-path fuzz/Cargo.toml

.PHONY: help
help: ## list the steps
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
	@echo "PYTHON=... chooses the interpreter; the default is python3"

.PHONY: setup
setup: require-rust environment-test environment-lint quick ## everything that a developer needs: environment, tools, a quick build
	@echo "ready: source .venv/bin/activate ($(venv), Python $(version))"

.PHONY: demo
demo: release ## ordinary asyncio programs on asyncio, uvloop and Weft; table and chart in out/
	@$(environment) -r examples/requirements.txt
	$(run) -m examples.demo

.PHONY: bench
bench: release ## the benchmarks, beside every rival that this interpreter can have
	@$(environment) --available benchmarks/requirements.txt
	$(run) -m benchmarks $(BENCH)

.PHONY: bench-diff
bench-diff: require-rust environment-plain ## instructions per operation, beside another commit's (BASE=...)
	$(run) -m benchmarks.instructions $(BASE) $(BENCH)

# -- tests -----------------------------------------------------------------------------------------

.PHONY: test
test: test-rust test-python test-installed conformance ## all tests: cargo's, ours, CPython's own

.PHONY: test-rust
test-rust: require-rust ## the tests of what has no Python in it
	cargo test --package weft-reactor

.PHONY: test-python
test-python: quick environment-test ## our tests (TESTS="-k name tests/..." for some of them)
	$(run) -m pytest $(TESTS)

# Programs and libraries as they run after weft.install(), on Weft's loop and on asyncio's.
installed := tests/downstream tests/stress tests/test_examples.py tests/test_streams.py \
	tests/test_servers.py tests/test_tls.py tests/test_transports_subprocess.py

.PHONY: test-installed
test-installed: quick environment-test ## programs and real libraries with Weft's primitives in asyncio's place
	$(run) -m pytest --installed $(wildcard $(installed)) $(TESTS)

.PHONY: conformance
conformance: quick ## CPython's own asyncio tests, on Weft (CONFORMANCE="..." for its arguments)
	$(run) -m tests.conformance $(CONFORMANCE)

# What a suite's own tests need is installed into an environment for each, under out/suites.
.PHONY: suites
suites: quick environment-plain ## the test suites of asyncio's libraries, on asyncio and on Weft (SUITES="anyio ...")
	$(run) -m tests.suites $(SUITES)

.PHONY: rivals
rivals: quick ## what each event loop can do, tried on all that this interpreter can have (RIVALS="tls ...")
	@$(environment) --group test --available benchmarks/requirements.txt
	$(run) -m tests.rivals $(RIVALS)

.PHONY: soak
soak: release environment-test ## the tests that take minutes (SOAK_MINUTES=10 of everything at once)
	$(run) -m pytest -m soak $(TESTS)

# Each of them as long as the others; what is found is kept in .hypothesis.
MINUTES ?= 30
.PHONY: fuzz
fuzz: quick environment-test ## the random tests, for MINUTES=30 in all
	$(run) -m pytest --fuzz-minutes $(MINUTES) $(TESTS)

# libFuzzer's hooks, as cargo-fuzz would ask for them; no nightly toolchain is needed without sanitizers.
fuzz_flags := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
fuzz_host = $(shell rustc -vV | sed -n 's/^host: //p')
fuzz_targets := timers watches search
.PHONY: fuzz-rust
fuzz-rust: require-rust ## coverage-guided, what has no Python in it, for MINUTES=30 in all (takes a C++ compiler)
	RUSTFLAGS="$(fuzz_flags)" CARGO_TARGET_DIR=$(target)/fuzz cargo build --release \
		$(fuzz) --target $(fuzz_host)
	@for each in $(fuzz_targets); do \
		mkdir -p out/fuzz/$$each && $(target)/fuzz/$(fuzz_host)/release/$$each out/fuzz/$$each \
			-artifact_prefix=out/fuzz/$$each- -print_final_stats=1 -verbosity=0 \
			-max_total_time=$$(($(MINUTES) * 60 / $(words $(fuzz_targets)))); \
	done

.PHONY: fuzz-guided
fuzz-guided: quick environment-test ## stream readers, guided by what asyncio's own code does with the same (atheris)
	@$(environment) -r fuzz/requirements.txt
	$(run) fuzz/guided.py test_native_streams:test_the_same_as_asyncio \
		-max_total_time=$$(($(MINUTES) * 60))

# asyncio's debug mode, Python's debugging allocator, every warning. Where asyncio's own behaviour in debug
# mode is what a test is about, the test says so.
.PHONY: test-dev
test-dev: quick environment-test ## our tests under python -X dev, on Weft
	$(run) -X dev -m pytest --loops weft $(TESTS)

# Only what reads or writes memory that it should not: leaks have tests of their own. A child would not be watched.
memcheck_tests := tests/test_futures.py tests/test_native_streams.py tests/test_transports_write.py \
	tests/test_transports_reading.py tests/test_timers.py tests/test_queues.py tests/test_taskgroups.py
.PHONY: memcheck
memcheck: quick environment-test ## some of our tests under valgrind (TESTS=... for others)
	@command -v valgrind >/dev/null || { echo "valgrind is not installed: apt install valgrind"; exit 1; }
	PYTHONMALLOC=malloc timeout 1800 valgrind --quiet --leak-check=no --num-callers=30 --error-exitcode=99 \
		--suppressions=tests/valgrind.supp $(run) -m pytest --loops weft --hang-after 300 \
		-m "not soak and not slow and not child" $(or $(TESTS),$(memcheck_tests))

# Miri knows no level-triggered epoll: what makes system calls stays out.
.PHONY: miri
miri: require-rust ## the reactor's data structures under Miri (takes a nightly toolchain of rustup's)
	@cargo +nightly miri --version >/dev/null 2>&1 || rustup +nightly component add miri rust-src
	CARGO_TARGET_DIR=$(target)/miri cargo +nightly miri test --package weft-reactor --lib -- timers watches

# -- lint ------------------------------------------------------------------------------------------

.PHONY: lint
lint: lockfile rustfmt clippy rustdoc ruff mypy stubtest ## all of these; `make -k lint` stops at none

.PHONY: lockfile rustfmt clippy rustdoc ruff mypy stubtest
lockfile: require-rust
	cargo metadata --locked --format-version 1 >/dev/null

rustfmt: require-lint
	cargo fmt --all --check
	cargo fmt $(loadgen) --check
	cargo fmt $(fuzz) --check

clippy: require-lint environment-plain
	$(cargo_python) cargo clippy --workspace --all-targets -- -D warnings
	CARGO_TARGET_DIR=$(target)/loadgen cargo clippy $(loadgen) --all-targets -- -D warnings

rustdoc: require-rust environment-plain
	$(cargo_python) RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

ruff: environment-lint
	$(run) -m ruff check
	$(run) -m ruff format --check

mypy: environment-lint
	$(run) -m mypy

stubtest: quick environment-lint
	MYPYPATH=python $(run) -m mypy.stubtest weft._weft --concise

.PHONY: format
format: environment-lint ## rewrite the sources as rustfmt and ruff want them
	cargo fmt --all
	cargo fmt $(loadgen)
	cargo fmt $(fuzz)
	$(run) -m ruff check --fix
	$(run) -m ruff format

# -- what is given away ----------------------------------------------------------------------------

.PHONY: wheel
wheel: require-rust ## a wheel for the chosen interpreter in dist/, manylinux where it can be (PGO=1: optimised by profile)
	@$(environment) --group wheel
	$(if $(PGO),@$(environment) --available benchmarks/requirements.txt)
	$(run) scripts/build_wheel.py $(guided)

.PHONY: docs
docs: quick ## the reference of the package and of the crates, in out/docs
	@$(environment) --group docs
	$(run) -m pdoc --output-directory out/docs/python weft
	$(cargo_python) cargo doc --workspace --no-deps --document-private-items
	rm -rf out/docs/rust && cp -r $(target_python)/doc out/docs/rust
	@echo "out/docs/python/index.html, out/docs/rust/_weft/index.html"

.PHONY: clean
clean: ## remove what the steps have made
	rm -rf target dist out .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/weft/_weft.*.so python/weft/._weft.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- what the steps share --------------------------------------------------------------------------

.PHONY: require-rust require-lint environment-plain environment-test environment-lint quick release
require-rust:
	@scripts/require.sh $(PYTHON) rust

require-lint:
	@scripts/require.sh $(PYTHON) rust lint

environment-plain:
	@scripts/require.sh $(PYTHON)
	@$(environment)

environment-test: environment-plain
	@$(environment) --group test $(addprefix --available ,$(wildcard tests/*/requirements.txt examples/requirements.txt))

environment-lint: environment-plain
	@$(environment) --group lint

quick release: require-rust environment-plain
	@$(run) scripts/build_extension.py --profile $@ $(if $(filter release,$@),$(guided))
