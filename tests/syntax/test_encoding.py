"""Files that are not UTF-8: one diagnostic, with the offset of the first wrong byte and what the file looks like."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nasdsl.cli import cli
from nasdsl.decoder import check_source, load, loads
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source, render
from nasdsl.importers.nas_fcos import read_config
from nasdsl.semantics.files import read_source
from nasdsl.syntax.encoding import MAX_ILLEGAL
from nasdsl.syntax.formatter import format_text

GOOD = """\
# déjà vu
decoder d {
  input c3
  fpn(width=64, norm=bn) { output p3 = conv_3x3(c3) }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos(centerness=cls)
}
"""
ASCII = GOOD.replace("déjà", "deja")
BOM = b"\xef\xbb\xbf"

NOT_UTF8: dict[str, tuple[bytes, int, str]] = {
    "UTF-16 with a mark, as PowerShell writes it": (GOOD.encode("utf-16"), 0, "UTF-16"),
    "UTF-16, big-endian": (b"\xfe\xff" + GOOD.encode("utf-16-be"), 0, "UTF-16"),
    "UTF-16 without a mark": (ASCII.encode("utf-16-le"), 1, "UTF-16"),
    "UTF-16, big-endian, without a mark": (ASCII.encode("utf-16-be"), 0, "UTF-16"),
    "UTF-16 of a few characters": ("skip".encode("utf-16-le"), 1, "UTF-16"),
    "UTF-32": (GOOD.encode("utf-32"), 0, "UTF-32"),
    "UTF-32 without a mark": (ASCII.encode("utf-32-le"), 1, "UTF-32"),
    "Latin-1 in a comment": (GOOD.encode("latin-1"), 3, "Windows-1252, Latin-1"),
    "Latin-1 far down": ((ASCII + "# é\n").encode("latin-1"), len(ASCII) + 2, "Windows-1252, Latin-1"),
    "UTF-8 cut off in a character": (GOOD.encode() + b"# \xc3", len(GOOD.encode()) + 2, "Windows-1252"),
    "behind a mark of UTF-8": (BOM + GOOD.encode("latin-1"), 6, "Windows-1252, Latin-1"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), 0, "a binary file"),
    "compressed": (b"\x1f\x8b\x08\x00" + bytes(range(256)) * 4, 1, "a binary file"),
    "many NULs": (b"decoder d {\n" + b"\x00" * (MAX_ILLEGAL + 1), 12, "a binary file"),
}


def only(found: list[Diagnostic]) -> Diagnostic:
    assert [d.code for d in found] == ["NAS109"], [f"{d.code} {d.message}" for d in found]
    return found[0]


@pytest.mark.parametrize("name", NOT_UTF8)
def test_one_diagnostic_names_the_byte_and_the_encoding(name: str, tmp_path: Path) -> None:
    data, offset, looks_like = NOT_UTF8[name]
    path = tmp_path / "d.nas"
    path.write_bytes(data)
    found = only(check_source(read_source(path), path=path).problems)
    assert found.message == f"not UTF-8 text at byte {offset:,} (0x{data[offset]:02x})"
    assert found.label.startswith(f"this looks like {looks_like}")
    assert ("PowerShell" in found.help) == (looks_like == "UTF-16")
    assert render(found).isascii() or "\ufffd" in render(found)
    json.dumps(found.to_json()).encode()
    render(found).encode()  # no surrogates are left, which no terminal could show
    with pytest.raises(DiagnosticError) as caught:
        load(path)
    only(list(caught.value.diagnostics))


@pytest.mark.parametrize("name", NOT_UTF8)
def test_every_command_says_it_once_and_leaves_the_file_alone(name: str, tmp_path: Path) -> None:
    data = NOT_UTF8[name][0]
    path = tmp_path / "d.nas"
    path.write_bytes(data)
    run = CliRunner()
    for arguments, stdin in (
        (["check", str(path)], None),
        (["check", "-"], data),
        (["fmt", str(path)], None),
        (["fmt", "-"], data),
        (["fmt", "--diff", str(path)], None),
        (["compile", str(path)], None),
        (["render", str(path)], None),
    ):
        result = run.invoke(cli, arguments, input=io.BytesIO(data) if stdin is not None else None)
        assert result.exit_code == 1, (arguments, result.output)
        assert result.stderr.count("error[") == 1 == result.stderr.count("error[NAS109]"), (arguments, result.stderr)
    assert path.read_bytes() == data
    report = json.loads(run.invoke(cli, ["check", "--format", "json", str(path)]).stdout)
    assert [d["code"] for d in report["diagnostics"]] == ["NAS109"]


@pytest.mark.parametrize("how", ["use", "from"])
def test_a_used_file_is_reported_once(how: str, tmp_path: Path) -> None:
    (tmp_path / "other.nas").write_bytes(GOOD.encode("utf-16"))
    text = (
        f'use "other.nas"\n{ASCII}'.replace("conv_3x3(c3)", "mine(c3)")
        if how == "use"
        else ASCII.replace("fpn(width=64, norm=bn) { output p3 = conv_3x3(c3) }", 'fpn from "other.nas"')
    )
    path = tmp_path / "d.nas"
    path.write_text(text)
    found = only(check_source(read_source(path), path=path).problems)
    assert found.span.source.name.endswith("other.nas")


def test_a_byte_order_mark_of_utf8_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "d.nas"
    path.write_bytes(BOM + GOOD.encode())
    assert check_source(read_source(path)).problems == []
    assert read_source(path).text == GOOD
    result = CliRunner().invoke(cli, ["fmt", str(path)])
    assert result.exit_code == 0
    assert path.read_bytes() == format_text(GOOD).encode()


def test_a_few_nuls_and_replacement_characters_are_illegal_characters() -> None:
    for character in "\x00\ufffd":
        wrong = ASCII.replace("conv_3x3(c3)", f"conv_3x3(c3 {character})")
        found = check_source(Source("t", wrong)).problems
        assert [(d.code, d.span.start) for d in found] == [("NAS101", wrong.index(character))]


def test_text_that_was_decoded_wrongly_is_one_diagnostic() -> None:
    found = only(check_source(Source("t", ASCII.replace(" ", " \ufffd\ufffd"))).problems)
    assert "replacement characters" in found.message


def test_half_a_surrogate_pair_in_a_string_is_reported() -> None:
    """Strings of Python may hold what no file holds."""
    for half in "\ud800\udfff":
        with pytest.raises(DiagnosticError) as caught:
            loads(ASCII.replace("c3)", f"c3{half})"))
        str(caught.value).encode()


def test_a_comment_in_latin_1_does_not_keep_a_yaml_file_from_being_read(tmp_path: Path) -> None:
    blocks = [[0, 1, 2, 3, 1], [0, 1, 2, 3, 1], [0, 1, 2, 3, 1], [0, 1, 2, 3, 1]]
    path = tmp_path / "config.yaml"
    path.write_bytes(f'# été\nSEARCH:\n  DECODER:\n    CONFIG: "{blocks}"\n'.encode("latin-1"))
    assert "decoder nas_fcos" in read_config(path)
