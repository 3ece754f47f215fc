"""The journal: when records are on the disk, and how a truncated or damaged file is read."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torture.disk import MODES, Recorder, acknowledged, write_state

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


def test_behind_a_broken_line_only_blanks_are_dropped(path: Path) -> None:
    """A power cut leaves zeros; anything else was written by someone."""
    data = write(path, RECORDS)
    for following in map(bytes, zip(range(256))):
        path.write_bytes(data + b"{torn\n" + following)
        if following in b"\0 \r\t\n":
            assert read_journal(path) == (RECORDS, len(data))
        else:
            with pytest.raises(JournalError, match=r"journal.jsonl:4: .*edited or damaged"):
                read_journal(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the recorder of calls reads /proc")
def test_no_power_cut_loses_a_record_that_was_acknowledged(tmp_path: Path) -> None:
    """Each other record is acknowledged by its own sync, the others by `Journal.sync`; in a folder that is new."""
    (tmp_path / "run").mkdir()
    recorder, rng = Recorder(tmp_path / "run"), random.Random(0)
    with recorder.recording():
        journal = Journal(tmp_path / "run" / "new" / "journal.jsonl")
        recorder.mark(0)
        for number, record in enumerate(RECORDS, 1):
            journal.append(record, sync=number % 2 == 1)
            if number % 2 == 0:
                journal.sync()
            recorder.mark(number)
        journal.close()
    for until in range(len(recorder.calls) + 1):
        for mode in MODES:
            state = tmp_path / f"{until} {mode}"
            write_state(recorder.calls, until, mode, rng, state)
            done = acknowledged(recorder.calls, until)
            assert not done or (state / "new" / "journal.jsonl").exists()
            journal = Journal(state / "new" / "journal.jsonl")
            assert journal.records == RECORDS[: len(journal.records)]
            assert len(journal.records) >= max(done, default=0), (until, mode)
            journal.close()


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


def test_the_file_is_compact_and_its_mode_is_for_the_umask_to_limit(path: Path) -> None:
    before = os.umask(0)
    try:
        data = write(path, RECORDS)
    finally:
        os.umask(before)
    assert not re.search(rb"[:,] ", data)
    assert "ä".encode() in data
    assert path.stat().st_mode & 0o777 == 0o666


def test_a_changed_digit_is_no_other_reward(path: Path) -> None:
    data = write(path, [{"kind": "start"}, {"kind": "result", "reward": 0.25}, {"kind": "result", "reward": 0.5}])
    path.write_bytes(data.replace(b"0.25", b"0.75"))
    with pytest.raises(JournalError, match=r"journal.jsonl:2: .*edited or damaged"):
        Journal(path)


def test_lines_of_earlier_versions_and_line_ends_of_windows(path: Path) -> None:
    """Earlier versions wrote no checksums; a line without one after a line with one is damage."""
    path.write_bytes(write(path, RECORDS).replace(b"\n", b"\r\n"))
    assert read_journal(path) == (RECORDS, path.stat().st_size)
    old = b"".join(json.dumps(record).encode() + b"\n" for record in RECORDS)
    path.write_bytes(old.replace(b"\n", b"\r\n"))
    journal = Journal(path)
    assert journal.records == RECORDS
    journal.append({"kind": "result", "reward": 2})
    journal.close()
    resumed = path.read_bytes()
    assert read_journal(path)[0] == [*RECORDS, {"kind": "result", "reward": 2}]
    for other in (b"{}", b'"kind"', b'["kind"]', b'{"kin": 1}'):
        path.write_bytes(old + other + b"\n")
        assert read_journal(path) == (RECORDS, len(old))
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
    assert read_journal(path)[0] == [RECORDS[0], RECORDS[0], RECORDS[2]]


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


def test_of_a_file_that_cannot_be_read_written_or_synced_message_and_lock_are_right(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match=f"^cannot read {path}: Is a directory$"):
        read_journal(path)
    with pytest.raises(JournalError, match=f"^cannot read {path}: Is a directory$"):
        Journal(path)
    path.rmdir()

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(JournalError, match=f"^cannot write {path}: Input/output error$"):
            Journal(path)
    journal = Journal(path)  # none of those that failed holds the lock
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(JournalError, match=f"^cannot write {path}: Input/output error$"):
            journal.sync()
        with pytest.raises(JournalError, match=f"^cannot write {path}: Input/output error; its earlier records are complete$"):
            journal.append(RECORDS[0])
    journal.append(RECORDS[1])
    journal.close()
    journal.close()
    assert read_journal(path)[0] == [RECORDS[1]]


def test_without_a_file_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None)
    journal.append(RECORDS[0])
    journal.sync()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match=r"cannot write to .*file"):
        Journal(tmp_path / "file" / "journal.jsonl")
