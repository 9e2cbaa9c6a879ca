"""Builds the native module for the interpreter that runs this, and puts it into the source tree.

    python scripts/build_extension.py [--profile quick|release] [--profile-guided]

Every version of Python has its own target directory (target/cp313 ...), so that going from one to
another rebuilds nothing, and its own file name in python/weft, so that all of them can be there
side by side.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "weft-py"


def target_directory() -> Path:
    base = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / base / f"cp{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"


def compile_extension(
    profile: str, flags: Mapping[str, str] | None = None, target: str | None = None
) -> Path:
    """Runs cargo; returns the shared library that it made or found up to date.

    `flags` are added to cargo's environment. `target`, a triple, keeps compiler flags from build
    scripts; libraries that were built with and without it do not share a profile.
    """
    command = ["cargo", "build", "--package", PACKAGE, "--profile", profile]
    command += ["--message-format", "json-render-diagnostics"]
    if target:
        command += ["--target", target]
    environment = os.environ | {
        "PYO3_PYTHON": sys.executable,
        "CARGO_TARGET_DIR": str(target_directory()),
        **(flags or {}),
    }
    cargo = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if cargo.returncode:
        sys.exit(f"cargo could not build {PACKAGE}")
    for line in cargo.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and "cdylib" in message["target"]["kind"]:
            return Path(message["filenames"][0])
    sys.exit(f"cargo built {PACKAGE}, but named no shared library")


def put_in_place(library: Path) -> bool:
    """Copies the library beside the Python sources; false if it was there already.

    A running process may have the old file mapped: it is replaced, never written into.
    """
    destination = ROOT / "python/weft" / f"_weft{sysconfig.get_config_var('EXT_SUFFIX')}"
    if destination.is_file() and filecmp.cmp(library, destination, shallow=False):
        return False
    fresh = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        shutil.copyfile(library, fresh)
        fresh.replace(destination)
    finally:
        fresh.unlink(missing_ok=True)
    print(f"built {destination.relative_to(ROOT)}")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", choices=["quick", "release", "dev"], default="quick")
    parser.add_argument(
        "--profile-guided", action="store_true", help="with a profile recorded just before"
    )
    arguments = parser.parse_args()
    if not arguments.profile_guided:
        put_in_place(compile_extension(arguments.profile))
        return
    import profile_guided

    profile_guided.record()
    flags, target = profile_guided.flags(), profile_guided.host()
    put_in_place(compile_extension(arguments.profile, flags, target))


if __name__ == "__main__":
    main()
