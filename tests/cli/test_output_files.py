"""Files that commands write: whole or not at all, wherever the path leads."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from in_process import invoke, refused

UGLY = "decoder d { input c3 fpn(width=64, norm=bn) { output p3 = c3 } head(width=64) { skip } predict fcos }\n"


def test_a_disk_that_is_full_leaves_the_text_that_was_to_be_formatted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "d.nas"
    file.write_text(UGLY)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        result = invoke("fmt", file)
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert file.read_text() == UGLY
    assert [path.name for path in tmp_path.iterdir()] == ["d.nas"]


def test_decoders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "d.nas"
    file.write_text(UGLY)
    assert refused("compile", file, "-o", "d.txt") == (
        "nasdsl: cannot write d.txt: expected a name that ends in .py, .onnx or .pt2\n"
    )
    for suffix in ("pt2", "onnx"):
        pytest.importorskip("onnx")

        def full(module: object, path: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        monkeypatch.setattr("nasdsl.backends.torch_export.export_program", full)
        monkeypatch.setattr("nasdsl.backends.onnx.export_onnx", full)
        out = tmp_path / f"d.{suffix}"
        assert f"nasdsl: cannot write {out}: No space left on device\n" in invoke("compile", file, "-o", out).stderr


def test_links_devices_and_modes(tmp_path: Path) -> None:
    """The file that a link leads to is written, and stays as readable as it was; a device is no file to be replaced."""
    file, link = tmp_path / "d.nas", tmp_path / "link.nas"
    file.write_text(UGLY)
    file.chmod(0o640)
    link.symlink_to(file)
    assert invoke("fmt", link).exit_code == 0
    assert link.is_symlink()
    assert file.read_text() != UGLY
    assert file.stat().st_mode & 0o777 == 0o640
    (tmp_path / "null.py").symlink_to("/dev/null")
    assert invoke("compile", file, "-o", tmp_path / "null.py").exit_code == 0
    assert (tmp_path / "null.py").is_symlink()
