#!/bin/sh
# Says what this machine lacks, all of it at once, before a step starts to work.
#
#   scripts/require.sh PYTHON [rust] [lint]
#
# Prints nothing when everything is there.
set -u
python=$1
shift
missing=0

lack() {
    missing=1
    printf 'missing: %s\n' "$1" >&2
    shift
    printf '         %s\n' "$@" >&2
}

# true if the dotted version $1 is at least $2
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$2" ]
}

require_python() {
    # A shim of a version manager can be on PATH with nothing behind it: only running it tells.
    if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
        lack "Python: \"$python\" does not run" \
            "name an interpreter of 3.11 or newer: make PYTHON=/path/to/python3.13 ..."
    elif ! at_least "$version" 3.11; then
        lack "Python 3.11 or newer: \"$python\" is $version" \
            "name a newer one: make PYTHON=/path/to/python3.13 ..."
    elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        lack "the venv and ensurepip modules of Python $version" \
            "on Debian and Ubuntu: apt-get install python$version-venv"
    fi
}

require_rust() {
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! version=$(rustc --version 2>/dev/null | cut -d' ' -f2) || [ -z "$version" ]; then
        lack "Rust $wanted or newer" "install it from https://rustup.rs"
    elif ! at_least "$version" "$wanted"; then
        lack "Rust $wanted or newer: rustc is $version" "rustup update stable"
    elif ! command -v cargo >/dev/null; then
        lack "cargo, beside rustc" "install Rust from https://rustup.rs"
    fi
    if ! command -v "${CC:-cc}" >/dev/null; then
        lack "a C linker (${CC:-cc}), which Rust links with" \
            "on Debian and Ubuntu: apt-get install gcc libc6-dev"
    fi
}

# rustfmt and clippy come with most toolchains; rustup's minimal profile leaves them out.
require_lint() {
    for component in rustfmt clippy; do
        [ "$component" = clippy ] && tool=cargo-clippy || tool=$component
        "$tool" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null && rustup component add "$component" && continue
        lack "$component" "rustup component add $component"
    done
}

require_python
for part; do
    "require_$part"
done
exit $missing
