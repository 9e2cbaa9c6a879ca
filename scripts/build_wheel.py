"""Builds a wheel for the interpreter that runs this, into dist/, and tries it.

    python scripts/build_wheel.py [--profile-guided]

On Linux the wheel is linked by zig against an old glibc, so that it installs on every distribution
of the last ten years (manylinux_2_17). Where zig is not to be had, the machine's own linker makes a
wheel for systems at least as new as this one. The last line says which of the two it was.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_GLIBC = "manylinux_2_17"
# Imports the module, native part included, from the wheel alone, and looks where it came from.
TRIAL = "import weft, weft._weft as native, sys; assert native.__file__.startswith(sys.prefix)"


def build(directory: Path, flags: Mapping[str, str], oldest: str = OLDEST_GLIBC) -> Path:
    """Has maturin build the wheel in the empty `directory`; returns its path."""
    command = [sys.executable, "-m", "maturin", "build", "--release", "--quiet"]
    command += ["--interpreter", sys.executable, "--out", str(directory)]
    command += ["--target-dir", str(ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "wheel")]
    if sys.platform == "linux":
        if importlib.util.find_spec("ziglang"):
            command += ["--zig", "--compatibility", oldest]
        else:
            print("zig is not installed: the wheel will need a glibc as new as this machine's")
    # maturin asks the first python3 on PATH for zig: let it be the one that has it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path} | flags
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit("maturin could not build the wheel")
    (wheel,) = directory.glob("*.whl")
    return wheel


def build_library(directory: Path, flags: Mapping[str, str]) -> Path:
    """The native module alone, for this machine, but made by the calls that make the wheel's."""
    # zig does not link what counts; the last linker that is named is the one.
    here = {"RUSTFLAGS": f"{flags['RUSTFLAGS']} -Clinker=cc"}
    with zipfile.ZipFile(build(directory / "wheel", here, "linux")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".so"))
        return Path(wheel.extract(name, directory))


def try_out(wheel: Path, directory: Path) -> None:
    """Installs the wheel into a new environment and imports it there, far from the source tree."""
    venv.create(directory, with_pip=True, symlinks=True)
    python = str(directory / "bin/python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    subprocess.run([python, "-I", "-c", TRIAL], check=True, cwd=directory)
    subprocess.run([directory / "bin/weft", "--help"], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    flags = {}
    destination = ROOT / "dist"
    destination.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if "--profile-guided" in sys.argv[1:]:
            import profile_guided

            # zig changes how cargo is called, and so the names that a profile goes by.
            profile_guided.record(partial(build_library, Path(scratch) / "counting"))
            flags = profile_guided.flags()
        built = build(Path(scratch) / "wheel", flags)
        try_out(built, Path(scratch) / "environment")
        wheel = destination / built.name
        wheel.write_bytes(built.read_bytes())
    platform = wheel.stem.split("-")[-1]
    kind = "any Linux of that glibc or newer" if "manylinux" in platform else "this kind of system"
    print(f"made and tried {wheel.relative_to(ROOT)} ({platform}: {kind})")


if __name__ == "__main__":
    main()
