"""A process that runs cases of a subject, and writes a line of JSON when one begins and when it has ended.

``python -m torture.child SUBJECT NUMBER...``. It is apart from the runner, so that one that the system ends, or that
hangs, is a finding.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from torture.records import ROOT
from torture.subject import Report, Subject
from torture.subjects import subject


class Hangs(BaseException):
    """Raised in a case that takes too long; nothing that it calls takes it for an error."""


def _raise(*_: object) -> None:
    raise Hangs


def _innermost() -> str:
    """Where the exception that is being handled was raised."""
    return "".join(traceback.format_exc(limit=-5).splitlines(keepends=True)[:-1])


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    with contextlib.suppress(OSError, StopIteration):  # on Linux, where ru_maxrss begins with the memory of the parent
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_case(known: Subject, case: object, number: int) -> Report:
    """Run one case: what it raises is a finding."""
    report = Report()
    assert callable(case)
    try:
        signal.setitimer(signal.ITIMER_PROF, known.hang)
        case(number, report)
    except Hangs:
        report.finding(f"it has not ended after {known.hang:.0f} s of processor time, in\n{_innermost()}")
    except Exception:
        lines = traceback.format_exc().splitlines()
        report.finding("\n".join(lines[-12:]))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if known.megabytes is not None and peak_megabytes() > known.megabytes:
        report.finding(f"the process takes {peak_megabytes():.0f} MB, and allowed are {known.megabytes:.0f} MB")
    return report


def without_places(text: str) -> str:
    """A message without the folders of this machine: it goes into a file that others read."""
    text = text.replace(f"{ROOT}{os.sep}", "")
    for place in (sys.prefix, sys.base_prefix, tempfile.gettempdir()):
        text = text.replace(place, "…")
    return text


def main() -> None:
    known = subject(sys.argv[1])
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what cases print does not come between

    def say(**record: object) -> None:
        lines.write(json.dumps(record) + "\n")
        lines.flush()

    signal.signal(signal.SIGPROF, _raise)
    gc.collect()
    gc.freeze()  # what is imported is not looked through again in each of thousands of cases: 5 to 10 % of their time
    with tempfile.TemporaryDirectory() as folder, known.start(Path(folder)) as case:
        for number in map(int, sys.argv[2:]):
            say(begin=number)
            start = time.process_time()
            report = run_case(known, case, number)
            findings = [without_places(line) for line in report.findings]
            say(
                done=number, counts=report.counts, findings=findings, text=report.text, steps=report.seconds,
                seconds=time.process_time() - start, megabytes=peak_megabytes(),
            )  # fmt: skip
            if known.megabytes is not None and peak_megabytes() > known.megabytes:
                return  # memory is not always given back: in a new process, the next case is not blamed


if __name__ == "__main__":
    main()
