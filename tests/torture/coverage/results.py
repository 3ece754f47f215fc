"""What coverage.py found, without the lines that were run, and why the others were not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nasdsl.files import write_bytes
from torture.records import RESULTS, commit, machine

FILE = RESULTS / "coverage.json"
REASONS = Path(__file__).with_name("reasons.toml")


@dataclass(frozen=True)
class Place:
    """A function, or what stands outside of functions in a file, that the tests do not run as a whole.

    Attributes:
        function: with its classes, as coverage.py names it; empty outside of functions.
        lines: those that are not run.
        ways: those from line to line that are not taken, where the line is run.
    """

    path: str
    function: str
    lines: tuple[int, ...]
    ways: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """What the patterns of reasons are compared with."""
        return f"{self.path}::{self.function}" if self.function else self.path

    @property
    def said(self) -> str:
        """The place for the page."""
        lines = ", ".join(map(str, self.lines))
        ways = ", ".join(f"{a} to {b}" if b > 0 else f"{a} to the end" for a, b in self.ways)
        return f"`{self.name}`: " + "; ".join(filter(None, (lines and f"lines {lines}", ways and f"from {ways}")))


@dataclass(frozen=True)
class Part:
    """How much of a package was run."""

    name: str
    lines: int
    lines_run: int
    ways: int
    ways_taken: int


@dataclass(frozen=True)
class Covered:
    """What the tests run.

    Attributes:
        tests: the commands of those that were run, for the page.
    """

    commit: str
    machine: str
    tests: str
    parts: tuple[Part, ...]
    places: tuple[Place, ...]


def summary(report: Path, tests: str) -> Covered:
    """What coverage.py's report in JSON says; `tests` as of `Covered`."""
    files: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))["files"]
    sums: dict[str, list[int]] = {}
    places = []
    for path, file in sorted(files.items()):
        part = sums.setdefault(_package(path), [0, 0, 0, 0])
        found = file["summary"]
        for at, key in enumerate(("num_statements", "covered_lines", "num_branches", "covered_branches")):
            part[at] += found[key]
        for function, region in file["functions"].items():
            missing = set(region["missing_lines"])
            ways = tuple((a, b) for a, b in region["missing_branches"] if a not in missing)
            if missing or ways:
                places.append(Place(Path(path).as_posix(), function, tuple(sorted(missing)), ways))
    places.sort(key=lambda place: (place.path, min([*place.lines, *(a for a, _ in place.ways)])))
    parts = tuple(Part(name, *numbers) for name, numbers in sums.items() if numbers[0])
    return Covered(commit(), machine(), tests, parts, tuple(places))


def write(covered: Covered, path: Path = FILE) -> None:
    """Write the file of results."""
    write_bytes(path, (json.dumps(asdict(covered), indent=1) + "\n").encode())


def read(path: Path = FILE) -> Covered | None:
    """The file of results; None where nothing was measured."""
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = tuple(Part(**part) for part in found.pop("parts"))
    places = tuple(
        Place(p["path"], p["function"], tuple(p["lines"]), tuple((a, b) for a, b in p["ways"])) for p in found.pop("places")
    )
    return Covered(**found, parts=parts, places=places)


def reasons(path: Path = REASONS) -> dict[str, list[str]]:
    """Why places are not covered: by reason, patterns of their names."""
    found: dict[str, list[str]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return found


def without_reason(covered: Covered, why: Mapping[str, Sequence[str]]) -> Iterator[Place]:
    """Places that no pattern has."""
    for place in covered.places:
        if _reason(place, why) is None:
            yield place


def _reason(place: Place, why: Mapping[str, Sequence[str]]) -> str | None:
    return next((reason for reason, patterns in why.items() if any(fnmatchcase(place.name, p) for p in patterns)), None)


def table(covered: Covered | None, why: Mapping[str, Sequence[str]]) -> str:
    """How much of each package is run, and what is not, by reason."""
    if covered is None:
        return "\nNothing has been recorded yet.\n\n"
    whole = Part("altogether", *(sum(numbers) for numbers in zip(*(_numbers(p) for p in covered.parts), strict=True)))
    rows = ["| package | lines | run | branches | taken |", "|---|---|---|---|---|"]
    for part in (*covered.parts, whole):
        cells = (
            part.name,
            f"{part.lines:,}",
            _share(part.lines_run, part.lines),
            f"{part.ways:,}",
            _share(part.ways_taken, part.ways),
        )
        rows.append(f"| {' | '.join(cells)} |")
    by_reason: dict[str, list[Place]] = {reason: [] for reason in why}
    for place in covered.places:
        reason = _reason(place, why)
        if reason is not None:
            by_reason[reason].append(place)
    causes = ["| not run | lines | branches | where |", "|---|---|---|---|"]
    for reason, places in by_reason.items():
        if places:
            where = ", ".join(f"`{path}` {n}" for path, n in _by_file(places).items())
            causes.append(f"| {reason} | {sum(len(p.lines) for p in places)} | {sum(len(p.ways) for p in places)} | {where} |")
    left = list(without_reason(covered, why))
    if left:
        where = ", ".join(f"`{package}` {n}" for package, n in _by_package(left).items())
        causes.append(f"| no reason yet | {sum(len(p.lines) for p in left)} | {sum(len(p.ways) for p in left)} | {where} |")
    parts = ["\n".join(rows), "\n".join(causes)]
    parts.append(f"Tests: {covered.tests}, on commit {covered.commit}. Machine: {covered.machine}.")
    return "\n" + "\n\n".join(parts) + "\n\n"


def _numbers(part: Part) -> tuple[int, int, int, int]:
    return part.lines, part.lines_run, part.ways, part.ways_taken


def _share(some: int, of: int) -> str:
    return f"{some / of:.1%}" if of else "none"


def _by_package(places: Sequence[Place]) -> dict[str, int]:
    """Lines and branches that are not run, by package; the most first."""
    found: dict[str, int] = {}
    for path, number in _by_file(places).items():
        package = _package(path)
        found[package] = found.get(package, 0) + number
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _package(path: str) -> str:
    """The package that a file is counted with: of the first two folders."""
    return "/".join(Path(path).parent.as_posix().split("/")[:2])


def _by_file(places: Sequence[Place]) -> dict[str, int]:
    """Lines and branches that are not run, by file."""
    found: dict[str, int] = {}
    for place in places:
        found[place.path] = found.get(place.path, 0) + len(place.lines) + len(place.ways)
    return found
