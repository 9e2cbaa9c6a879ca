"""What a library's tests need: its source distribution, and an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

from .table import Library

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "out" / "suites"
RUNNER = ("pytest", "pytest-timeout")
CONFIGURATION = ("pytest.ini", "pyproject.toml", "setup.cfg", "tox.ini", "README.rst", "README.md")
SETTINGS = ("[tool.pytest", "[tool:pytest]")


class Unavailable(Exception):
    """The library cannot be had here."""


def _pip(python: Path | str, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Unavailable(done.stderr.strip()[-2000:])


def sources(library: Library) -> Path:
    """The unpacked source distribution, fetched the first time."""
    home = OUT / "sources"
    folder = home / f"{library.name}-{library.version}"
    if folder.is_dir():
        return folder
    fetched = home / "fetched"
    pinned = f"{library.name}=={library.version}"
    _pip(
        sys.executable, "download", "--no-deps", "--no-binary", library.name,
        "--dest", str(fetched), pinned,
    )  # fmt: skip
    stem = library.name.replace("-", "?").replace("_", "?")
    for archive in fetched.glob(f"{stem}-{library.version}.tar.gz"):
        unpacked = home / f".{folder.name}"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        (only,) = unpacked.iterdir()
        only.replace(folder)
        unpacked.rmdir()
        return folder
    raise Unavailable(f"no archive of {pinned} among what pip has fetched")


def environment(library: Library) -> Path:
    """The interpreter of an environment with the library, its needs, and Weft of this tree."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = OUT / "environments" / version / library.name
    python = folder / "bin" / "python"
    extras = f"[{library.extras}]" if library.extras else ""
    wanted = [f"{library.name}{extras}=={library.version}", *RUNNER, *library.needs]
    stamp = folder / ".installed"
    if not (stamp.is_file() and stamp.read_text() == "\n".join(wanted)):
        venv.create(folder, clear=True, with_pip=True, symlinks=True)
        _pip(python, "install", "--prefer-binary", *wanted)
        stamp.write_text("\n".join(wanted))
    return python


def workplace(library: Library) -> Path:
    """A folder with the library's tests and settings, but not its sources: those are installed."""
    place = OUT / "work" / library.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # Or pytest would take the settings of this tree; a library's own take precedence below.
    (place / "pytest.ini").write_text("[pytest]\n")
    if library.installed:
        return place
    there = sources(library)
    for name in {Path(path).parts[0] for path in library.tests}:
        shutil.copytree(there / name, place / name)
    for name in CONFIGURATION:
        if (there / name).is_file():
            shutil.copy(there / name, place / name)
            settings = any(mark in (there / name).read_text() for mark in SETTINGS)
            if settings and not (there / "pytest.ini").is_file():
                (place / "pytest.ini").unlink(missing_ok=True)
    return place
