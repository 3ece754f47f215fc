"""The tables of docs/reliability.md, which are made of the files of results and of nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from torture import records
from torture.coverage import results as coverage
from torture.mutation import results as mutants
from torture.records import ROOT, Record
from torture.subjects import MODULES, subject

PAGE = ROOT / "docs" / "reliability.md"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(path: Path = PAGE) -> None:
    """Put the results of each subject where the page has ``<!-- results: NAME -->``."""
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """The page with its tables as the files of results have them. A subject without a place for its table is an error."""
    places = [name for _, name, _ in _BLOCK.findall(text)]
    assert sorted(places) == sorted(["coverage", "mutants", *MODULES]), (places, list(MODULES))
    return _BLOCK.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def table(name: str) -> str:
    """What was run of a subject: a row for each commit and machine, counts, the slowest case, what is open."""
    if name == "coverage":
        return coverage.table(coverage.read(), coverage.reasons())
    if name == "mutants":
        return mutants.table(mutants.read(), mutants.equivalent())
    found = records.read(name)
    if not found:
        return "\nNothing has been recorded yet.\n\n"
    unit = subject(name).unit
    rows = [f"| commit | {unit} | findings | processor time | longest step | peak memory |", "|---|---|---|---|---|---|"]
    for record in found:
        step = max(record.steps, key=lambda s: record.steps[s], default="")
        longest = f"{step} {record.steps[step]:.2f} s" if step else "none"
        number = len({finding["case"] for finding in record.findings})
        cells = [record.commit, f"{record.total:,}", number, _time(record.seconds), longest, f"{record.megabytes:.0f} MB"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    aim = subject(name).aim
    run = aim - sum(1 for _ in records.not_run(found, aim))
    lines = ["\n", *(row + "\n" for row in rows), "\n", f"{run:,} of {aim:,} cases have been run. ", _counts(found), "\n"]
    lines.append(f"Machine: {'; '.join(dict.fromkeys(r.machine for r in found))}.\n")
    return "".join(lines) + "\n"


def _counts(found: list[Record]) -> str:
    names = dict.fromkeys(name for record in found for name in record.counts if name != "findings")
    sums = {name: sum(record.counts.get(name, 0) for record in found) for name in names}
    left = records.open_findings(found)
    said = ", ".join(f"{name} {times:,}" for name, times in sums.items())
    is_open = f"open: cases {', '.join(map(str, left))}" if left else "no finding is open"
    return f"Counted, with those run again: {said}; {is_open}.\n" if said else f"{is_open.capitalize()}.\n"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
