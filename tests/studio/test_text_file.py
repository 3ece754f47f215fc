"""Files as the studio opens, watches and saves them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nasdsl.folder import Folder
from nasdsl.studio.messages import MAX_TEXT
from nasdsl.studio.settings import BadRequest
from nasdsl.studio.text_file import MAX_BYTES, MISSING, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.nas").write_text("# the secret")
    return Files(Folder.open(tmp_path / "inside", is_writable=True))


def test_a_file_is_made_and_changed(files: Files) -> None:
    assert files.open("a.nas") == {"name": "a.nas", "text": "", "version": MISSING, "exists": False}
    first = files.save("a.nas", "one\n", MISSING)
    assert first["saved"]
    assert (files.root / "a.nas").read_bytes() == b"one\n"
    assert files.open("a.nas") == {"name": "a.nas", "text": "one\n", "version": first["version"], "exists": True}
    second = files.save("a.nas", "two\n", first["version"])
    assert second["saved"]
    assert files.changes("a.nas", second["version"]) == {"changed": False}
    assert [path.name for path in files.root.iterdir()] == ["a.nas"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_who_may_read_a_file_stays(files: Files) -> None:
    path = files.root / "a.nas"
    path.write_text("one\n")
    path.chmod(0o600)
    files.save("a.nas", "two\n", files.open("a.nas")["version"])
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two\n", 0o600)


def test_what_the_writer_has_not_seen_is_not_overwritten(files: Files) -> None:
    version = files.save("a.nas", "one\n", MISSING)["version"]
    (files.root / "a.nas").write_text("of another editor\n")
    refused = files.save("a.nas", "mine\n", version)
    assert not refused["saved"]
    assert refused["text"] == "of another editor\n"
    assert (files.root / "a.nas").read_text() == "of another editor\n"
    assert not files.save("a.nas", "mine\n", MISSING)["saved"]
    found = files.changes("a.nas", version)
    assert found["changed"]
    assert found["version"] == refused["version"]
    assert files.save("a.nas", "mine\n", refused["version"])["saved"]
    (files.root / "a.nas").unlink()
    gone = files.changes("a.nas", version)
    assert (gone["changed"], gone["exists"]) == (True, False)


def test_a_change_of_the_same_length_and_time_is_seen(files: Files) -> None:
    path = files.root / "a.nas"
    path.write_text("one\n")
    version, times = files.open("a.nas")["version"], path.stat()
    path.write_text("two\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files.changes("a.nas", version)["text"] == "two\n"


@pytest.mark.parametrize("before", [b"a\r\nb\r\n", b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfa\r\nb\r\n", b"a\nb\n"])
def test_line_ends_and_mark_stay(before: bytes, files: Files) -> None:
    (files.root / "a.nas").write_bytes(before)
    found = files.open("a.nas")
    assert found["text"] == "a\nb\n"
    files.save("a.nas", "a\nb\nc\n", found["version"])
    end = b"\r\n" if b"\r" in before else b"\n"
    assert (files.root / "a.nas").read_bytes() == before + b"c" + end
    files.save("a.nas", "a\nb\n", files.open("a.nas")["version"])
    assert (files.root / "a.nas").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["../secret.nas", "/etc/passwd", "/etc/a.nas", "sub/a.nas", "..\\secret.nas", "a.txt", ".nas", ".hidden.nas", "", ".", "..",
     "a\0.nas", "~/a.nas", "x" * 5000 + ".nas"],
)  # fmt: skip
def test_other_names_are_refused(name: str, files: Files) -> None:
    (files.root / "sub").mkdir()
    for refused in (lambda: files.open(name), lambda: files.changes(name, ""), lambda: files.save(name, "x", MISSING)):
        with pytest.raises(BadRequest):
            refused()
    assert (files.root.parent / "secret.nas").read_text() == "# the secret"
    assert sorted(path.name for path in files.root.iterdir()) == ["sub"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_lead_nowhere(files: Files) -> None:
    outside = files.root.parent
    (files.root / "link.nas").symlink_to(outside / "secret.nas")
    (files.root / "new.nas").symlink_to(outside / "new.nas")
    (files.root / "circle.nas").symlink_to("circle.nas")
    (files.root / "key").write_text("a key")
    (files.root / "key.nas").symlink_to("key")
    os.mkfifo(files.root / "pipe.nas")
    (files.root / "folder.nas").mkdir()
    for name in ("link.nas", "new.nas", "circle.nas", "key.nas", "pipe.nas", "folder.nas"):
        with pytest.raises(BadRequest):
            files.open(name)
        with pytest.raises(BadRequest):
            files.save(name, "x", MISSING)
    assert not (outside / "new.nas").exists()
    (files.root / ".b.nas.unfinished").symlink_to(outside / "secret.nas")
    with pytest.raises(BadRequest):
        files.save("b.nas", "x", MISSING)
    assert (outside / "secret.nas").read_text() == "# the secret"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), PermissionError(13, "Permission denied")])
def test_a_file_that_goes_or_may_not_be_read(error: OSError, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    version = files.save("a.nas", "one\n", MISSING)["version"]

    def gone(self: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", gone)
    if isinstance(error, FileNotFoundError):  # it was there a moment ago
        assert files.changes("a.nas", version) == {
            "name": "a.nas",
            "text": "",
            "version": MISSING,
            "exists": False,
            "changed": True,
        }
    else:
        with pytest.raises(BadRequest, match=r"^a\.nas: Permission denied$"):
            files.open("a.nas")


def test_what_is_no_text_stays_as_it_is(files: Files) -> None:
    (files.root / "a.nas").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(BadRequest, match="not UTF-8 text at byte 0"):
        files.open("a.nas")
    (files.root / "b.nas").write_text("x" * (MAX_TEXT + 1))
    with pytest.raises(BadRequest, match="at most"):
        files.open("b.nas")
    with pytest.raises(BadRequest, match="at most"):
        files.save("c.nas", "x" * (MAX_TEXT + 1), MISSING)
    with open(files.root / "d.nas", "wb") as large:  # sparse: it takes no room
        large.truncate(MAX_BYTES + 1)
    with pytest.raises(BadRequest, match=r"d\.nas has more than \d+ MB, and is not opened"):
        files.open("d.nas")
    with pytest.raises(BadRequest, match="half of a character"):
        files.save("c.nas", "\ud83d", MISSING)
    assert not (files.root / "c.nas").exists()
