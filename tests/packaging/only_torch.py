"""Runs a script as on a machine that has torch and torchvision with what they need, triton, lark, click and rich, and no more.

python only_torch.py SCRIPT [ARGUMENT…]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

ALLOWED = set(
    """torch torchvision triton lark click rich networkx nasdsl deform
    numpy PIL sympy mpmath jinja2 markupsafe filelock fsspec typing_extensions pygments markdown_it mdurl torchgen functorch
    nvidia cuda setuptools pkg_resources""".split()
)


class Finder:
    """Finds what another finder finds, except for packages that are not allowed."""

    def __init__(self, finder: Any) -> None:
        self.finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        top = name.partition(".")[0]
        own = top.startswith(("_", "gpu"))
        if path is None and not own and top not in ALLOWED and top not in sys.stdlib_module_names:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


if __name__ == "__main__":
    sys.meta_path[:] = [Finder(finder) for finder in sys.meta_path]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))  # as `python SCRIPT` does, and runpy does not
    runpy.run_path(sys.argv[0], run_name="__main__")
