"""Pages of the Python interface: which names they have. What they say are the docstrings, shown by mkdocstrings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Final


@dataclass(frozen=True, slots=True)
class Module:
    """A page.

    Attributes:
        name: of the module that users import from.
        about: a sentence or two above its names.
        names: what it documents; empty for all of ``__all__``.
        leaves_out: names of ``__all__`` that another page has, or that no docstring can describe.
    """

    name: str
    about: str
    names: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()

    def documented(self) -> tuple[str, ...]:
        """The names that the page has an entry for."""
        if self.names:
            return self.names
        return tuple(name for name in import_module(self.name).__all__ if name not in self.leaves_out)


MODULES: Final = (
    Module(
        "nasdsl",
        "All that most users need. Importing it imports nothing else; torch is imported where a name needs it. "
        "`nasdsl.__version__` is the version. `nasdsl.search(…)` is "
        "[`nasdsl.search.search`](nasdsl.search.md#nasdsl.search.search).",
        leaves_out=("__version__", "search"),
    ),
    Module("nasdsl.spaces", "Decoders with holes: see [The `.nas` language](../language.md#holes-search-spaces)."),
    Module(
        "nasdsl.spaces.adapters", "Spaces as problems of other optimizers: see [Strategies](../strategies.md#optuna-and-neps)."
    ),
    Module("nasdsl.search", "Search a space, from Python: see [Search](../search.md)."),
    Module(
        "nasdsl.search.strategies",
        "What proposes texts: see [Strategies](../strategies.md), and [Add your own](../plugins.md).",
        leaves_out=("DEFAULT_STRATEGY", "FRONT_STRATEGIES", "STRATEGIES"),
    ),
)
"""The pages in the order of the navigation."""


def pages() -> dict[str, str]:
    """Markdown by place: the list of the modules, and a page for each."""
    rows = []
    found = {}
    for module in MODULES:
        names = module.documented()
        shown = ", ".join(f"[`{name}`][{module.name}.{name}]" for name in names)
        rows.append(f"| [`{module.name}`]({module.name}.md) | {shown} |")
        entries = "\n\n".join(f"::: {module.name}.{name}" for name in names)
        found[f"api/{module.name}.md"] = f"# {module.name}\n\n{module.about}\n\n{entries}\n"
    about = (
        "# Python\n\nWhat a program may rely on. All that these pages do not name may change.\n\n"
        + "\n".join(["| module | names |", "|---|---|", *rows])
    )  # fmt: skip
    return {"api/index.md": about + "\n", **found}


def entries() -> Iterator[str]:
    """The dotted names that have an entry."""
    for module in MODULES:
        yield from (f"{module.name}.{name}" for name in module.documented())
