"""Searches that are killed in processes of their own, and what of two searches must be equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasdsl.search.ranking import read_ranking


def journal(folder: Path) -> list[dict[str, Any]]:
    """The proposals and results of a search, without times, checksums, and without what resuming adds."""
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for record in records:
        for name in ("time", "seconds", "crc"):
            record.pop(name, None)
        if "details" in record:
            record["details"] = {k: record["details"].get(k) for k in ("losses", "curve", "error")}
    return [record for record in records if record["kind"] in ("proposal", "result")]


def ranked(folder: Path) -> list[tuple[Any, ...]]:
    ranking = read_ranking(folder / "full" / "ranking.json")
    assert ranking is not None
    return [(e.name, e.trial, e.proxy_rank, e.reward, e.verdict, e.ap, e.ap50, e.text) for e in ranking.entries]


def killed(command: list[str], signum: signal.Signals, when: Callable[[], bool]) -> int:
    """Run the command in a process of its own, send it a signal as soon as `when` holds; its exit code."""
    child = subprocess.Popen(
        [sys.executable, "-m", "nasdsl", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not when() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        assert child.poll() is None, f"it ended before the signal: {child.communicate()[0]}"
        child.send_signal(signum)
        said = child.communicate(timeout=100)[0]
        assert "Traceback" not in said
        return child.returncode
    finally:
        child.kill()
        child.wait()


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0
