"""Makes the virtual environment of one interpreter, and installs into it what a step needs.

    python scripts/environment.py .venv-3.13 [--link .venv] [--group test]... [-r FILE]...

Run by the interpreter that the environment is for. What is there already is left alone: the second
call takes milliseconds. The source tree itself is installed in place: `import weft` finds
`python/weft`, the `weft` command works, and `importlib.metadata` knows the version.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def create(directory: Path) -> bool:
    """Makes the environment unless it is there and belongs to this very interpreter."""
    owner = directory / ".interpreter"
    identity = f"{os.path.realpath(sys.executable)} {sys.version}"
    if owner.is_file() and owner.read_text() == identity:
        return False
    if directory.exists():
        print(f"{directory.name} belongs to another interpreter: making it anew", flush=True)
    else:
        print(f"making {directory.name}", flush=True)
    venv.create(directory, clear=True, with_pip=True, symlinks=True)
    # Last, so that an interrupted attempt is not taken for a finished one.
    owner.write_text(identity)
    return True


def point_link(link: Path, directory: Path) -> None:
    """Lets `link` name the environment in use; a real directory of that name is left alone."""
    if link.is_symlink():
        if os.readlink(link) == directory.name:
            return
    elif link.exists():
        print(f"{link.name} is not a link: left as it is; the environment is {directory.name}")
        return
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(directory.name)
    fresh.replace(link)


class Environment:
    """A virtual environment, and the record of what this script has put into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.python = self.bin / "python"
        self._record = directory / ".installed"
        self._record.mkdir(exist_ok=True)

    def once(self, name: str, content: str) -> bool:
        """Whether `content` differs from what was last recorded under `name`."""
        stamp = self._record / name
        return not stamp.is_file() or stamp.read_text() != self._digest(content)

    def record(self, name: str, content: str) -> None:
        (self._record / name).write_text(self._digest(content))

    @staticmethod
    def _digest(content: str) -> str:
        return hashlib.sha256(content.encode()).hexdigest()

    def _pip(self, *arguments: str) -> list[str]:
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install"]
        return [*command, "--quiet", "--prefer-binary", *arguments]

    def pip_install(self, *arguments: str) -> bool:
        return subprocess.run(self._pip(*arguments), cwd=ROOT, check=False).returncode == 0

    def pip_install_if_offered(self, *arguments: str) -> bool:
        """False if there is no wheel for this interpreter; any other failure ends the program."""
        pip = subprocess.run(
            self._pip("--only-binary=:all:", *arguments),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if pip.returncode == 0:
            return True
        # Of an index that does not answer, pip says first that it tries again, then the same.
        if "No matching distribution" in pip.stderr and "Retrying" not in pip.stderr:
            return False
        sys.exit(f"{pip.stderr}pip could not install {' '.join(arguments)}")

    def install_group(self, group: str, requirements: list[str]) -> None:
        content = "\n".join(requirements)
        if not self.once(f"group-{group}", content):
            return
        print(f"installing for {group}: {', '.join(requirements)}", flush=True)
        if not self.pip_install(*requirements):
            sys.exit(f"pip could not install the {group} group of pyproject.toml")
        self.record(f"group-{group}", content)

    def install_file(self, path: Path) -> None:
        name = str(path.relative_to(ROOT))
        stamp = "file-" + name.replace("/", "-")
        content = path.read_text()
        if not self.once(stamp, content):
            return
        print(f"installing from {name}", flush=True)
        if not self.pip_install("-r", name):
            sys.exit(f"pip could not install {name}")
        self.record(stamp, content)

    def install_available(self, path: Path) -> None:
        """Installs what this interpreter can have of a file of alternatives; names the rest."""
        name = str(path.relative_to(ROOT))
        stamp = "file-" + name.replace("/", "-")
        content = path.read_text()
        if not self.once(stamp, content):
            return
        print(f"installing from {name} what there is for this interpreter", flush=True)
        absent = []
        if not self.pip_install_if_offered("-r", name):
            lines = (line.split("#")[0].strip() for line in content.splitlines())
            absent = [line for line in lines if line and not self.pip_install_if_offered(line)]
        if absent:
            print(f"not available here, and left out: {', '.join(absent)}")
        self.record(stamp, content)

    def install_tree(self) -> None:
        """Installs this source tree in place, as an editable install would, but builds nothing.

        The extension module lives in the tree too, one file for each version of Python, so that a
        build (scripts/build_extension.py) is seen at once.
        """
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
        version = cargo["workspace"]["package"]["version"]
        files = {
            "weft.pth": f"{ROOT / 'python'}\n",
            "METADATA": (
                f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n"
                f"Summary: {project['description']}\n"
                f"Requires-Python: {project['requires-python']}\n"
            ),
            "entry_points.txt": "[console_scripts]\n"
            + "".join(f"{name} = {target}\n" for name, target in project["scripts"].items()),
        }
        content = "\n".join(files.values())
        if not self.once("tree", content):
            return
        scheme = {"base": str(self.directory), "platbase": str(self.directory)}
        site = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
        for old in site.glob(f"{project['name']}-*.dist-info"):
            shutil.rmtree(old)
        info = site / f"{project['name']}-{version}.dist-info"
        info.mkdir()
        (site / "weft.pth").write_text(files["weft.pth"])
        (info / "METADATA").write_text(files["METADATA"])
        (info / "entry_points.txt").write_text(files["entry_points.txt"])
        (info / "INSTALLER").write_text("scripts/environment.py\n")
        for name, target in project["scripts"].items():
            self._write_command(name, *target.split(":"))
        self.record("tree", content)

    def _write_command(self, name: str, module: str, function: str) -> None:
        command = self.bin / name
        command.write_text(
            f"#!{self.python}\n"
            f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n"
        )
        command.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the environment, under the source tree")
    parser.add_argument("--link", type=Path, help="a symbolic link to point at it")
    parser.add_argument("--group", action="append", default=[], help="a group of pyproject.toml")
    parser.add_argument("-r", dest="files", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument(
        "--available",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="as -r, but a requirement that has no wheel for this interpreter is only named",
    )
    arguments = parser.parse_args()

    directory = ROOT / arguments.directory
    create(directory)
    environment = Environment(directory)
    environment.install_tree()
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    for group in arguments.group:
        environment.install_group(group, groups[group])
    for path in arguments.files:
        environment.install_file(ROOT / path)
    for path in arguments.available:
        environment.install_available(ROOT / path)
    if arguments.link:
        point_link(ROOT / arguments.link, directory)


if __name__ == "__main__":
    main()
