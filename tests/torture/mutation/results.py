"""The file of results: a line of JSON for each mutant that was run; and what is said of it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nasdsl.files import write_bytes
from torture.records import RESULTS

FILE = RESULTS / "mutants.jsonl"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
AIM = 0.9


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        outcome: ``killed``, ``hangs`` (killed too: it takes several times the time of the tests, or too much memory),
            ``survived``, or ``not run`` (no test runs its line).
        test: that fails.
        seconds: by the clock.
    """

    group: str
    name: str
    path: str
    function: str
    line: int
    change: str
    outcome: str
    test: str
    seconds: float
    commit: str

    @property
    def is_killed(self) -> bool:
        """Whether the tests notice it."""
        return self.outcome in ("killed", "hangs")

    @property
    def said(self) -> str:
        """Where it is, and what was changed, for the page."""
        change = self.change.replace("`", "'").replace("|", "\\|")
        return f"`{self.path}`, `{self.function}`: `{change}`"


def read(path: Path = FILE) -> list[Result]:
    """All results, in the order of the file."""
    return [Result(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def write(results: Iterable[Result], path: Path = FILE) -> None:
    """Write the file anew, as a whole."""
    write_bytes(path, "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results).encode())


def equivalent(path: Path = EQUIVALENT) -> dict[str, str]:
    """Why a mutant does the same as the original, by its name."""
    reasons: dict[str, str] = tomllib.loads(path.read_text(encoding="utf-8"))
    return reasons


def table(results: Sequence[Result], reasons: Mapping[str, str]) -> str:
    """What became of each group's mutants, those that survived, and those that are equivalent with the reason."""
    rows = [
        "| group | mutants | killed | hanging | survived | not run | equivalent | killed of the others |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for group in dict.fromkeys(result.group for result in results):
        own = [result for result in results if result.group == group]
        killed = [result for result in own if result.is_killed]
        left = [result for result in own if not result.is_killed and result.name not in reasons]
        part = len(killed) / max(1, len(killed) + len(left))
        cells = [
            group, len(own), len(killed), sum(r.outcome == "hangs" for r in own), len(left),
            sum(r.outcome == "not run" for r in left), len(own) - len(killed) - len(left),
            f"{part:.1%}" + ("" if part >= AIM else f" (aim of {AIM:.0%} missed)"),
        ]  # fmt: skip
        rows.append(f"| {' | '.join(map(str, cells))} |")
    survived = [f"- {r.said}" for r in results if not r.is_killed and r.name not in reasons]
    same = [f"- {r.said}: {reasons[r.name]}" for r in results if not r.is_killed and r.name in reasons]
    parts = ["\n".join(rows)]
    parts += ["Survived:\n\n" + "\n".join(survived)] if survived else []
    parts += ["Equivalent:\n\n" + "\n".join(same)] if same else []
    commits = ", ".join(dict.fromkeys(r.commit for r in results))
    parts += [f"Run on commits {commits}."] if results else []
    return "\n" + "\n\n".join(parts) + "\n\n"
