"""``make mutants``: run mutants of the groups, then write the tables of docs/reliability.md."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from tempfile import TemporaryDirectory

import pytest

from torture import page, records
from torture.mutation import results
from torture.mutation.groups import GROUPS, Group
from torture.mutation.made import Mutant, is_program, mutants
from torture.mutation.results import Result
from torture.mutation.runner import Outcome, Runner
from torture.records import ROOT

SEED = 1


def drawn(group: Group, count: int | None) -> tuple[list[Mutant], set[str]]:
    """A random sample of a group, which stays the same where functions do; and the names of all its mutants."""
    known = [mutant for path in group.paths() for mutant in mutants(path, ROOT)]
    order = sorted(known, key=lambda mutant: hashlib.sha256(f"{SEED} {mutant.name}".encode()).digest())
    found: list[Mutant] = []
    for mutant in order:
        if len(found) == (count or group.aim):
            break
        if is_program(mutant, (ROOT / mutant.path).read_text(encoding="utf-8")):
            found.append(mutant)
    return found, {mutant.name for mutant in known}


def run(name: str, count: int | None, seconds: float | None) -> None:
    """Run those of a group that were not run, or that survived and are not known to be equivalent."""
    group, commit, began = GROUPS[name], records.commit(), time.monotonic()
    sample, names = drawn(group, count)
    before = {r.name: r for r in results.read() if r.group != name or r.name in names}
    reasons = results.equivalent()
    left = [m for m in sample if m.name not in reasons and not (m.name in before and before[m.name].is_killed)]
    left += [m for m in sample if m.name in reasons and m.name not in before]
    print(f"{name}: {len(names)} mutants, {len(sample)} of them drawn, {len(left)} to run", flush=True)

    def report(mutant: Mutant, outcome: Outcome) -> bool:
        what, test, taken = outcome
        print(f"{what} {taken:.1f} s {mutant.name} {mutant.path}:{mutant.lines[0]} {mutant.change} {test}", flush=True)
        if what != "unfit":
            before[mutant.name] = Result(
                name, mutant.name, mutant.path, mutant.function, mutant.lines[0], mutant.change, what, test, taken, commit
            )
            order = list(GROUPS)
            results.write(sorted(before.values(), key=lambda r: (order.index(r.group), r.path, r.line, r.name)))
        return seconds is None or time.monotonic() - began < seconds

    if not left:
        return
    with TemporaryDirectory() as folder:  # of its own: other runs of pytest clear the common one
        files = [path.relative_to(ROOT).as_posix() for path in group.paths()]
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={folder}/tests"]
        runner = Runner(left, files, report)
        code = pytest.main([*options, *(str(ROOT / test) for test in group.tests)], plugins=[runner])
    if runner.was_stopped:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; default: all")
    parser.add_argument("--count", type=int, help="mutants of each group; default: as the groups have it")
    parser.add_argument("--minutes", type=float, help="for each group; default: until all are run")
    options = parser.parse_args()
    if unknown := set(options.only) - set(GROUPS):
        parser.error(f"there is no group {sorted(unknown)[0]!r}; expected of {', '.join(GROUPS)}")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    try:
        if len(options.only) == 1:
            run(options.only[0], options.count, options.minutes and 60 * options.minutes)
            return
        more = [f"--{name}={value}" for name in ("count", "minutes") if (value := getattr(options, name)) is not None]
        for name in options.only or GROUPS:  # each in a process of its own: modules are imported once in each
            subprocess.run([sys.executable, "-m", "torture.mutation", name, *more], check=True, env=os.environ)
    except KeyboardInterrupt:
        print("stopped; the next `make mutants` goes on")
        sys.exit(130)
    finally:
        page.write()


if __name__ == "__main__":
    main()
