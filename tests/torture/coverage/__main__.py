"""Take over the report of `make coverage`: ``python -m torture.coverage build/coverage/coverage.json "make test"``."""

from __future__ import annotations

import sys
from pathlib import Path

from torture import page
from torture.coverage import results


def main() -> None:
    """Write the file of results and the page, and say what is not covered without a reason."""
    report, tests = sys.argv[1:]
    covered = results.summary(Path(report), tests)
    results.write(covered)
    page.write()
    for place in results.without_reason(covered, results.reasons()):
        print(f"no reason: {place.said}")


if __name__ == "__main__":
    main()
