"""Records what the native module spends its time on, for builds that are optimised for just that.

    python scripts/profile_guided.py

An instrumented module runs the rows of the benchmarks, in a copy of the tree, and what it counted
goes to target/…/profile.profdata. `make wheel PGO=1` and `make bench PGO=1` build with it. Takes
llvm-profdata of the compiler's own LLVM: from rustup (component llvm-tools), or as a package of the
distribution (llvm-22, say).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from build_extension import ROOT, compile_extension, target_directory

TRAINING = ["--quick", "--rows", "loop,network", "--loops", "weft,weft+install"]


def rustc(*arguments: str) -> str:
    return subprocess.run(
        ["rustc", *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def host() -> str:
    """The machine's target triple."""
    found = re.search(r"^host: (.+)$", rustc("-vV"), re.MULTILINE)
    return found[1] if found else sys.exit("rustc does not say what it compiles for")


def merger() -> str:
    """The llvm-profdata that reads what this compiler's programs write."""
    found = re.search(r"^LLVM version: (\d+)", rustc("-vV"), re.MULTILINE)
    version = found[1] if found else ""
    beside = Path(rustc("--print", "sysroot"), "lib/rustlib", host(), "bin/llvm-profdata")
    for name in (
        str(beside),
        f"llvm-profdata-{version}",
        f"/usr/lib/llvm-{version}/bin/llvm-profdata",
    ):
        if path := shutil.which(name):
            return path
    sys.exit(
        f"llvm-profdata of LLVM {version} is missing: rustup component add llvm-tools, "
        f"or on Debian and Ubuntu: apt-get install llvm-{version}"
    )


def profile() -> Path:
    return target_directory() / "profile.profdata"


def flags() -> dict[str, str]:
    """What cargo's environment takes to build with the recorded profile."""
    return {"RUSTFLAGS": f"-Cprofile-use={profile()}"}


def compile_like_bench(counting: Mapping[str, str]) -> Path:
    return compile_extension("release", counting, target=host())


def record(build: Callable[[Mapping[str, str]], Path] = compile_like_bench) -> None:
    """Builds an instrumented module, trains it, and writes the profile.

    The profile knows functions by names that hang on how cargo was called. So `build`, which gets
    flags for cargo's environment and returns a library, calls it as the later build will.
    """
    merge = merger()
    with tempfile.TemporaryDirectory(prefix="weft-profile-") as folder:
        raw, tree = Path(folder, "raw"), Path(folder, "tree")
        print("building with counters", flush=True)
        library = build({"RUSTFLAGS": f"-Cprofile-generate={raw}"})
        counted = Path(folder, "counted.so")
        shutil.copyfile(library, counted)
        # Compilers and build scripts have been counted as well.
        shutil.rmtree(raw, ignore_errors=True)
        ignored = shutil.ignore_patterns("*.so", "__pycache__", "target")
        for part in ("benchmarks", "python"):
            shutil.copytree(ROOT / part, tree / part, ignore=ignored)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        shutil.copyfile(counted, tree / "python/weft" / f"_weft{suffix}")
        print("training: the rows of the benchmarks, shortened", flush=True)
        environment = os.environ | {"CARGO_TARGET_DIR": str(target_directory() / "training")}
        with Path(folder, "rows.txt").open("w") as rows:
            subprocess.run(
                [sys.executable, "-m", "benchmarks", *TRAINING, "--out", folder],
                cwd=tree, env=environment, stdout=rows, check=True,
            )  # fmt: skip
        counts = [str(path) for path in raw.glob("*.profraw")]
        subprocess.run([merge, "merge", "--output", str(profile()), *counts], check=True)
    print(f"recorded {profile()}")


if __name__ == "__main__":
    record()
