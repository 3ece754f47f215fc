"""``make torture``: run cases of the subjects, then write the tables of docs/reliability.md."""

from __future__ import annotations

import argparse
import signal
import sys

from torture import page, records
from torture.runner import run
from torture.subjects import MODULES, subject


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="SUBJECT", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--minutes", type=float, help="for each subject; default: until its aim is reached")
    parser.add_argument("--case", type=int, action="append", help="run these cases, whatever was run before")
    options = parser.parse_args()
    if unknown := set(options.only) - set(MODULES):
        parser.error(f"there is no subject {sorted(unknown)[0]!r}; expected of {', '.join(MODULES)}")
    for signum in (signal.SIGINT, signal.SIGTERM):  # a shell in the background has the first ignored
        signal.signal(signum, signal.default_int_handler)
    found = False
    try:
        for name in options.only or MODULES:
            known = subject(name)
            recorded = records.read(name)
            numbers = options.case or [
                *records.open_findings(recorded),
                *records.not_run(recorded, known.aim),
            ]
            record = run(known, numbers, seconds=options.minutes and 60 * options.minutes, say=say)
            say(f"{name}: {record.total} {known.unit} on commit {record.commit}, {len(record.findings)} findings")
            found = found or bool(records.open_findings(records.read(name)))
    except KeyboardInterrupt:
        say("stopped; the next `make torture` runs the cases that are left")
        sys.exit(130)
    finally:
        page.write()
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
