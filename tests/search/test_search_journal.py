"""The journal: when records are on the disk, and how a truncated or damaged file is read."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from nasdsl.search.errors import JournalError
from nasdsl.search.journal import Journal, read_journal

RECORDS = [{"kind": "start", "x": 0.1}, {"kind": "proposal", "text": "ä — x\u2028y"}, {"kind": "result", "reward": -1e-300}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, records: list[dict[str, object]]) -> bytes:
    journal = Journal(path)
    for record in records:
        journal.append(record)
    journal.close()
    return path.read_bytes()


def test_of_a_file_cut_after_any_byte_complete_lines_are_read_and_the_rest_is_removed(path: Path) -> None:
    data = write(path, RECORDS)
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        journal = Journal(path)
        assert journal.records == RECORDS[:whole]
        journal.append({"kind": "result", "reward": 2})
        journal.close()
        assert read_journal(path)[0] == [*RECORDS[:whole], {"kind": "result", "reward": 2}]


@pytest.mark.parametrize("tail", [b"\0" * 100, b'{"kind": "resu\n', b"[1]\n", b"{}\n\0\0\0\n", b"\xff\xfe"])
def test_an_invalid_end_is_dropped(path: Path, tail: bytes) -> None:
    data = write(path, RECORDS)
    path.write_bytes(data + tail)
    assert read_journal(path) == (RECORDS, len(data))


def test_an_invalid_line_before_others_is_an_error_that_names_it(path: Path) -> None:
    lines = write(path, RECORDS).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{torn\n" + lines[2])
    with pytest.raises(JournalError, match=r"journal.jsonl:2: .*edited or damaged"):
        Journal(path)
    assert path.read_bytes() == lines[0] + b"{torn\n" + lines[2]  # nothing was cut
    assert Journal(None).records == []


@pytest.mark.parametrize("seed", range(40))
def test_a_changed_byte_anywhere_is_noticed_or_harmless(seed: int, path: Path) -> None:
    """A record is read as it was written or not at all: before others it is an error, at the end it is dropped."""
    data = bytearray(write(path, [*RECORDS, {"kind": "result", "number": 3, "reward": 0.123456789}]))
    written = read_journal(path)[0]
    rng = random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    try:
        read = read_journal(path)[0]
    except JournalError:
        return
    known = [{name: record.get(name) for name in before} for record, before in zip(read, written, strict=False)]
    assert known == written[: len(read)]
    assert len(read) >= len(written) - 1


def test_a_changed_digit_is_no_other_reward(path: Path) -> None:
    data = write(path, [{"kind": "start"}, {"kind": "result", "reward": 0.25}, {"kind": "result", "reward": 0.5}])
    path.write_bytes(data.replace(b"0.25", b"0.75"))
    with pytest.raises(JournalError, match=r"journal.jsonl:2: .*edited or damaged"):
        Journal(path)


def test_lines_of_earlier_versions_and_line_ends_of_windows(path: Path) -> None:
    """Earlier versions wrote no checksums; a line without one after a line with one is damage."""
    old = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
    path.write_bytes(old.replace(b"\n", b"\r\n"))
    journal = Journal(path)
    assert journal.records == RECORDS
    journal.append({"kind": "result", "reward": 2})
    journal.close()
    resumed = path.read_bytes()
    assert read_journal(path)[0] == [*RECORDS, {"kind": "result", "reward": 2}]
    path.write_bytes(resumed + old)
    with pytest.raises(JournalError, match="edited or damaged"):
        read_journal(path)


def test_every_record_is_synced_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    write_, sync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: (events.append("write"), write_(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), sync(fd))[1])
    journal = Journal(path)
    events.clear()
    journal.append(RECORDS[0])
    journal.append(RECORDS[1], sync=False)
    journal.close()
    assert events == ["write", "sync", "write"]


def test_a_full_disk_leaves_a_valid_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append(RECORDS[0])
    write_ = os.write
    halves = iter([5])

    def full(fd: int, data: bytes) -> int:
        for part in halves:
            return write_(fd, data[:part])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(JournalError, match=r"journal\.jsonl: No space left on device"):
            journal.append(RECORDS[1])
    journal.append(RECORDS[2])
    journal.close()
    assert read_journal(path)[0] == [RECORDS[0], RECORDS[2]]


def test_numbers_are_read_as_written_and_those_that_json_lacks_are_refused(path: Path) -> None:
    numbers = [0.1 + 0.2, -1e-310, 1.7976931348623157e308, -0.0]
    write(path, [{"kind": "result", "reward": number} for number in numbers])
    assert [r["reward"].hex() for r in read_journal(path)[0]] == [n.hex() for n in numbers]
    journal = Journal(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append({"kind": "result", "reward": float("nan")})
    journal.close()
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_two_writers_are_refused_in_one_process_and_in_two(path: Path) -> None:
    journal = Journal(path)
    with pytest.raises(JournalError, match="this process is searching"):
        Journal(path)
    code = f"from pathlib import Path; from nasdsl.search.journal import Journal; Journal(Path({str(path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another search is running" in other.stderr
    journal.close()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    Journal(path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot write to .*file"):
        Journal(tmp_path / "file" / "journal.jsonl")
