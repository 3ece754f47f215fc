"""Files: written whole or not at all, on the disk when the function returns, and read only where they are plain files."""

from __future__ import annotations

import errno
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torture.disk import MODES, Recorder, write_state

from nasdsl import files
from nasdsl.torch_files import load_torch_file
from nasdsl.yaml_files import parse_yaml


def test_what_is_written_is_whole_and_readable_by_whom_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table"
    files.write_bytes(path, b"old")
    path.chmod(0o640)
    files.write_bytes(path, memoryview(b"new"))
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_by_people_and_by_json(tmp_path: Path) -> None:
    value = {"name": "ä — \u2028", "list": [1, {"x": None}]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert '\n "name": "ä — ' in text, "one entry a line, letters as they are"
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [None, errno.ENOSPC])
def test_a_failed_write_leaves_the_old_file_and_names_it(number: int | None, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        raise OSError("no number") if number is None else OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=r"no number|table") as raised:
        files.write_atomically(path, fail)
    assert raised.value.filename == (None if number is None else str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_of_other_files_keep_their_names(tmp_path: Path) -> None:
    """What is written may be read from elsewhere."""
    with pytest.raises(FileNotFoundError) as raised:
        files.write_atomically(tmp_path / "table", lambda file: file.write((tmp_path / "missing").read_bytes()))
    assert raised.value.filename == str(tmp_path / "missing")
    with pytest.raises(ZeroDivisionError):
        files.write_atomically(tmp_path / "table", lambda file: 1 // 0)


def test_a_folder_that_is_missing_or_in_the_way_is_an_error_with_the_names_that_users_know(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        files.write_bytes(tmp_path / "missing" / "table", b"")
    assert (raised.value.filename, raised.value.filename2) == (str(tmp_path / "missing" / "table"), None)
    assert str(raised.value).endswith(f"No such file or directory: '{tmp_path / 'missing' / 'table'}'")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        files.write_bytes(tmp_path / "folder", b"")
    assert (raised.value.filename, raised.value.filename2) == (str(tmp_path / "folder"), None)
    assert str(raised.value).endswith(f"Is a directory: '{tmp_path / 'folder'}'")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
    files.unfinished_path(tmp_path / "table").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        files.write_bytes(tmp_path / "table", b"")
    assert raised.value.filename == str(tmp_path / "table")


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    files.unfinished_path(tmp_path / "table").symlink_to(other)
    with pytest.raises(OSError, match="a link is in its way") as raised:
        files.write_bytes(tmp_path / "table", b"new")
    assert (raised.value.errno, raised.value.filename) == (errno.ELOOP, str(tmp_path / "table"))
    assert other.read_bytes() == b"precious"


# ------------------------------------------------------------------------------------------------------ power cuts


def _write(folder: Path) -> None:
    files.write_bytes(folder / "a", b"content" * 99)


def _put(folder: Path) -> None:
    """As a library does that writes a file by its name."""
    (folder / "unfinished").write_bytes(b"content" * 99)
    files.put_in_place(folder / "unfinished", folder / "a")


def _make(folder: Path) -> None:
    files.make_folder(folder / "a" / "b")
    files.make_folder(folder / "a" / "b" / "c" / "d")
    files.write_bytes(folder / "a" / "b" / "c" / "d" / "e", b"content")


@pytest.mark.skipif(sys.platform != "linux", reason="the recorder of calls reads /proc")
@pytest.mark.parametrize("work", [_write, _put, _make])
def test_what_was_returned_from_is_there_after_a_power_cut(work: Callable[[Path], None], tmp_path: Path) -> None:
    """And before, nothing half is under the name."""
    (tmp_path / "run").mkdir()
    recorder = Recorder(tmp_path / "run")
    with recorder.recording():
        work(tmp_path / "run")
    written = {
        path.relative_to(tmp_path / "run"): path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()
    }
    assert written
    rng = random.Random(0)
    for until in range(len(recorder.calls) + 1):
        for mode in MODES:
            state = tmp_path / f"{until} {mode}"
            write_state(recorder.calls, until, mode, rng, state)
            for path, content in written.items():
                found = (state / path).read_bytes() if (state / path).exists() else None
                assert found == content or (found is None and until < len(recorder.calls)), (until, mode)


def test_folders_are_made_once_and_a_file_in_their_place_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.make_folder(tmp_path / "a" / "b")
    monkeypatch.setattr(files, "sync_folder", lambda folder: pytest.fail(f"{folder} has not changed"))
    files.make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        files.make_folder(tmp_path / "file" / "b")
    with pytest.raises(FileExistsError):
        files.make_folder(tmp_path / "file")


def test_another_process_may_make_the_same_folder_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: (mkdir(path), mkdir(path, **options))[1])
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_no_file_is_left_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    (tmp_path / "a").write_bytes(b"1")
    before = opened()
    files.sync_folder(tmp_path)
    files.read_bytes(tmp_path / "a")
    kept = []
    with pytest.raises(OSError, match="not a plain file") as raised:
        files.read_bytes("/dev/zero")
    kept.append(raised.value)  # its frames hold what they have open
    assert opened() == before


# --------------------------------------------------------------------------------------------------------- reading


def test_pipes_devices_folders_and_files_that_are_too_large_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a plain file") as raised:
            files.open_plain(path)
        assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, str(path))
    with pytest.raises(OSError, match=str(tmp_path)):
        files.open_plain(tmp_path)
    monkeypatch.setattr(files, "MAX_BYTES", 3_000_000_000)
    with open(tmp_path / "large", "wb") as file:  # sparse: it takes no room
        file.truncate(3_000_000_000)
        files.open_plain(tmp_path / "large").close()
        file.truncate(7_600_000_001)
    with pytest.raises(OSError, match=r"\] 8 GB; at most 3 GB are read") as raised:
        files.open_plain(tmp_path / "large")
    assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, str(tmp_path / "large"))


def test_texts_have_a_byte_order_mark_or_none(tmp_path: Path) -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a").write_bytes(start + "ä".encode())
        assert files.read_text(tmp_path / "a") == "ä"
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        files.read_text(str(tmp_path / "a"))


def test_a_folder_in_one_that_is_gone_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        files.make_folder(Path("a"))
    assert not (tmp_path / "gone").exists()


def test_where_folders_cannot_be_opened_names_are_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))
    files.sync_folder(tmp_path)


def test_json_that_nests_too_deeply_is_refused_as_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="nest too deeply"):
        files.parse_json("[" * 100_000)
    with pytest.raises(ValueError, match="Expecting"):
        files.parse_json(b"[")


def test_yaml_that_nests_too_deeply_is_refused_as_what_is_no_yaml() -> None:
    """By its dashes; or each mapping merges the one before, and the first that is read is the last."""
    chain = [f"&a{n} {{<<: *a{n - 1}}}" for n in range(1, 980)]
    merged = f"chain: [&a0 {{x: 1}}, {', '.join(chain)}]\ntop: {{<<: *a979}}"
    for text in ("- " * 1000 + "a", merged):
        with pytest.raises(yaml.YAMLError, match="nest too deeply"):
            parse_yaml(text)


def test_lines_of_a_log_without_those_that_are_no_object() -> None:
    lines = [b'{"a": 1}', b"", b"[1]", b"{torn", b"[" * 100_000, b'{"b": "\xc3\xa4"}']
    found = list(files.json_lines(b"\n".join(lines)))
    assert found == [(line, json.loads(line)) for line in (lines[0], lines[-1])]


def test_parts_of_a_torch_file_that_are_together_larger_than_it(tmp_path: Path) -> None:
    """As of an archive that would fill the memory."""
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    size = data.index(b"PK\x01\x02") + 24  # of the first part, in the list of parts
    data[size : size + 4] = (10**8).to_bytes(4, "little")
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(ValueError, match="its parts are together larger than the file"):
        load_torch_file(tmp_path / "a.pt")
