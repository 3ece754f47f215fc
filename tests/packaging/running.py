"""Running a command, and an empty environment that a package is installed in: for `try_wheel.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(
    *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = "", code: int = 0
) -> str:
    """Run a command and return what it prints; print all of it and exit if it does not end with this exit code."""
    words = [str(word) for word in command]
    shown = " ".join(" ".join([Path(words[0]).name, *words[1:]]).split())
    print(f"$ {shown if len(shown) < 160 else shown[:157] + '…'}", flush=True)
    done = subprocess.run(words, cwd=cwd, env=env, input=stdin, capture_output=True, text=True)
    require(done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout if code == 0 else done.stderr


def require(holds: bool, message: str) -> None:
    if not holds:
        sys.exit(message)


class Environment:
    """An environment of its own, without anything of the checkout, and an empty folder to work in.

    Attributes:
        work: this folder.
        variables: of the commands.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.work, home = folder / "environment", folder / "work", folder / "home"
        for path in (self.work, home):
            path.mkdir(parents=True)
        run("uv", "venv", "--quiet", "--python", sys.executable, self.folder)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NASDSL", "PYTEST"))}
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.variables = kept | {"HOME": str(home), "PATH": path, "XDG_CACHE_HOME": str(home)}

    def install(self, *words: str) -> None:
        run("uv", "pip", "install", "--quiet", "--python", self.folder, *words)

    def remove(self) -> None:
        """Uninstall the package, but not what it needs."""
        run("uv", "pip", "uninstall", "--quiet", "--python", self.folder, "nasdsl")

    def program(self, name: str) -> Path:
        """The path of a program of the environment."""
        return self.folder / "bin" / name

    def python(self, *words: str, **options: str) -> str:
        return run(self.program("python"), *words, cwd=self.work, env=self.variables, **options)  # type: ignore[arg-type]  # those of `run` that are texts

    def nasdsl(self, command: str, *, code: int = 0) -> str:
        """Run a command of the package; see `run`."""
        return run(self.program("nasdsl"), *command.split(), cwd=self.work, env=self.variables, code=code)

    def check_place(self) -> None:
        """The package that is imported is the installed one."""
        where = self.python("-c", "import nasdsl; print(nasdsl.__file__)").strip()
        require(str(ROOT) not in where and str(self.folder) in where, f"nasdsl was imported from {where}")
