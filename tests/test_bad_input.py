"""Malformed and hostile input to the real command: it must give a diagnostic or one line, quickly, and never a traceback.

Each case runs ``python -m nasdsl check`` in a process of its own, with a limit on memory and on time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from machine_speed import slowness

from nasdsl.diagnostics.catalogue import CODES
from nasdsl.syntax.parser import MAX_CHARACTERS

MEGABYTES = 500
SECONDS = 3.0  # of processor time: about one on a quiet machine
FINE, FINDINGS, USAGE = 0, 1, 2


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str
    seconds: float
    bound: float
    """`SECONDS`, stretched by how slow the core was when they were exceeded."""
    megabytes: float


def nasdsl(*arguments: str, folder: Path, stdin: bytes | int | None = None, environment: dict[str, str] | None = None) -> Ran:
    """Run the command in `folder`."""
    with open(folder / "out.log", "wb+") as out, open(folder / "err.log", "wb+") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "usage.json", sys.executable, "-m", "nasdsl", *arguments],
            stdin=stdin if isinstance(stdin, int) else subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=out, stderr=err, cwd=folder, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        if isinstance(stdin, bytes) and process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(stdin)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            pytest.fail("the command does not end")
        texts = [(f.seek(0), f.read().decode("utf-8", errors="replace"))[1] for f in (out, err)]
    seconds, kilobytes = json.loads((folder / "usage.json").read_text())
    bound = SECONDS if seconds < SECONDS else SECONDS * slowness()
    return Ran(code, texts[0], texts[1], seconds, bound, kilobytes / 1024)


LAUNCHER = """
import json, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
code = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump([used.ru_utime + used.ru_stime, used.ru_maxrss], open(sys.argv[1], "w"))
sys.exit(code if code >= 0 else 128 - code)
"""
"""Small process that starts the command: the kernel counts the memory of the parent into the peak of the child, and the
process of the tests has torch loaded."""


def well_behaved(ran: Ran) -> None:
    """Check that a command printed diagnostics or one line, no traceback or internal error, within time and memory."""
    assert "Traceback" not in ran.out + ran.err
    assert "internal error" not in ran.err
    assert ran.code in (FINE, FINDINGS, USAGE)
    assert ran.seconds < ran.bound, f"{ran.seconds:.1f} s of processor time, and allowed were {ran.bound:.1f} s"
    assert ran.megabytes < MEGABYTES, f"{ran.megabytes:.0f} MB"
    if ran.code == FINE:
        assert ran.out.endswith("nothing to report\n") or "warning[" in ran.err
    elif ran.code == FINDINGS:
        assert set(re.findall(r"^(?:error|warning)\[(NAS\d+)\]", ran.err, re.MULTILINE)) <= set(CODES)
        assert "error[NAS" in ran.err
    else:
        assert ran.err.startswith("nasdsl: ")
        assert ran.err.count("\n") == 1, ran.err
    assert max(map(len, (ran.out + ran.err).splitlines()), default=0) < 2000, "a line that no terminal can show"


def check(path: str, folder: Path, code: int, **more: object) -> Ran:
    for _ in range(3):  # a shared core can become slower while it runs; what is really slow is so each time
        ran = nasdsl("check", path, folder=folder, **more)  # type: ignore[arg-type]
        if ran.seconds < ran.bound:
            break
    well_behaved(ran)
    assert ran.code == code, ran.err
    return ran


def found(ran: Ran) -> set[str]:
    return set(re.findall(r"^error\[(NAS\d+)\]", ran.err, re.MULTILINE))


# --------------------------------------------------------------------------------- texts, by what they do to a reader

BEFORE = "decoder d { input c3, c4 fpn(width=64, norm=bn) { "
AFTER = " } head(width=64) { skip } predict fcos }"


def decoder(body: str) -> str:
    return BEFORE + body + AFTER


def doubling(keyword: str) -> str:
    if keyword == "op":
        lines = ["op a0(x) = conv_3x3(x)"] + [f"op a{i}(x) = add(a{i - 1}(x), a{i - 1}(x))" for i in range(1, 41)]
        return "\n".join(lines) + "\n" + decoder("output p3 = a40(c3)")
    lines = ["block b0(x) -> (y) { y = conv_3x3(x) }"]
    lines += [f"block b{i}(x) -> (y) {{ a = b{i - 1}(x); b = b{i - 1}(a); y = add(a, b) }}" for i in range(1, 41)]
    return "\n".join(lines) + "\n" + decoder("q = b40(c3); output p3 = q")


def deep_chain(count: int) -> str:
    lines = ["op a0(x) = conv_3x3(x)"] + [f"op a{i}(x) = a{i - 1}(x)" for i in range(1, count)]
    return "\n".join(lines) + "\n" + decoder(f"output p3 = a{count - 1}(c3)")


def backwards(text: str) -> str:
    *lines, last = text.splitlines()
    return "\n".join([*reversed(lines), last])


def statements(count: int, x: str = "x") -> str:
    lines = [f"{x}0 = skip(c3)", *(f"{x}{i} = skip({x}{i - 1})" for i in range(1, count)), f"output p3 = {x}{count - 1}"]
    return decoder("\n".join(lines))


def one_line() -> str:
    line = statements(24_000, "a_value_" + "of_a_long_name_" * 3).replace("\n", " ")
    assert 3_000_000 < len(line) < MAX_CHARACTERS
    return line


TEXTS: dict[str, tuple[str, int, set[str]]] = {
    "10,000 brackets (": (decoder("x = " + "skip(" * 10_000 + "c3" + ")" * 10_000), FINDINGS, {"NAS107"}),
    "10,000 brackets ( and nothing else": ("(" * 10_000, FINDINGS, {"NAS107", "NAS102"}),
    "10,000 brackets {": (decoder("repeat 1 { " * 10_000 + "}" * 10_000), FINDINGS, {"NAS107"}),
    "10,000 brackets { and nothing else": ("{" * 10_000, FINDINGS, {"NAS107", "NAS102"}),
    "10,000 closing brackets": (")" * 10_000, FINDINGS, {"NAS102"}),
    "10,000 minus signs": (decoder("x = conv(c3, k=" + "-" * 10_000 + "3)"), FINDINGS, {"NAS107"}),
    "10,000 plus signs": (decoder("output p3 = conv(c3, k=1" + "+1" * 10_000 + ")"), FINDINGS, {"NAS107"}),
    "repeat 1000000000": (decoder("x = skip(c3) repeat 1000000000 { x = conv_3x3(x) } output p3 = x"), FINDINGS, {"NAS410"}),
    "repeat of nothing, a billion times": (decoder("repeat 1000000000 { } output p3 = c3"), FINDINGS, {"NAS410"}),
    "repeats in repeats": (
        decoder("x = skip(c3) " + "repeat 100 { " * 8 + "x = conv_3x3(x) " + "} " * 8 + "output p3 = x"),
        FINDINGS,
        {"NAS410"},
    ),
    "repeats that share their numbers": (
        decoder(
            " ".join(f"let d{i} = ?(0..1)" for i in range(40))
            + " x = skip(c3) "
            + " ".join(f"repeat d{i} {{ repeat d{i + 1} {{ x = relu(x) }} }}" for i in range(39))
            + " output p3 = x"
        ),
        FINDINGS,
        {"NAS410"},
    ),
    "repeats of two holes in each other": (
        decoder("x = skip(c3) " + "repeat ?(0..1) + ?(0..1) { " * 12 + "x = relu(x) " + "} " * 12 + "output p3 = x"),
        FINDINGS,
        {"NAS410"},
    ),
    "five hundred numbers of turns": (decoder("x = skip(c3) repeat ?(1..500) { x = relu(x) } output p3 = x"), FINE, set()),
    "a thousand numbers of turns": (
        decoder("x = skip(c3) repeat ?(1..1000) { x = relu(x) } output p3 = x"),
        FINDINGS,
        {"NAS504"},
    ),
    "empty repeats in repeats": (decoder("repeat 1000 { " * 8 + "} " * 8 + "output p3 = c3"), FINDINGS, {"NAS410"}),
    "repeats in blocks in repeats": (
        "block b(x) -> (y) { y = skip(x) repeat 20000 { y = relu(y) } }\n"
        + decoder("x = skip(c3) repeat 20000 { x = b(x) } output p3 = x"),
        FINDINGS,
        {"NAS410"},
    ),
    "a repeat at the limit": (decoder("x = skip(c3) repeat 20000 { x = relu(x) } output p3 = x"), FINE, set()),
    "a mistake at the limit": (decoder("x = skip(c3) repeat 20000 { x = relu(z) } output p3 = x"), FINDINGS, {"NAS202"}),
    "doubling ops": (doubling("op"), FINDINGS, {"NAS410"}),
    "doubling blocks": (doubling("block"), FINDINGS, {"NAS410"}),
    "140 ops deep": (deep_chain(140), FINE, set()),
    "5,000 ops deep": (deep_chain(5000), FINDINGS, {"NAS410"}),
    "5,000 ops deep, the last one first": (backwards(deep_chain(5000)), FINDINGS, {"NAS410"}),
    "5,000 ops in a circle": (deep_chain(5000).replace("op a0(x) = conv_3x3(x)", "op a0(x) = a4999(x)"), FINDINGS, {"NAS207"}),
    "20,000 statements": (statements(20_000), FINE, set()),
    "100,000 statements": (statements(100_000), FINDINGS, {"NAS410"}),
    "100,000 mistakes": (decoder("\n".join(f"x{i} = skip(y{i})" for i in range(100_000))), FINDINGS, {"NAS202", "NAS405"}),
    "100,000 syntax errors": (decoder("x = = c3\n" * 100_000), FINDINGS, {"NAS102"}),
    "100,000 ops of one name": ("op f(x) = x\n" * 100_000 + decoder("output p3 = f(c3)"), FINDINGS, {"NAS206"}),
    "100,000 parameters": (
        f"op f({', '.join(f'x{i}' for i in range(100_000))}) = x1\n" + decoder("output p3 = f(c3)"),
        FINDINGS,
        {"NAS301"},
    ),
    "100,000 operands": (decoder(f"output p3 = add({', '.join(['c3'] * 100_000)})"), FINDINGS, {"NAS301"}),
    "100,000 numbers among the operands": (decoder(f"output p3 = add(c3, {', '.join(['1'] * 100_000)})"), FINDINGS, {"NAS301"}),
    "65 operands, 64 of them numbers": (decoder(f"output p3 = mul(c3, {', '.join(['1'] * 64)})"), FINDINGS, {"NAS301"}),
    "64 operands, 63 of them numbers": (decoder(f"output p3 = mul(c3, {', '.join(['1'] * 63)})"), FINE, set()),
    "100,000 outputs": (decoder("output " + ", ".join(f"p{i} = c3" for i in range(3, 100_000))), FINDINGS, {"NAS406"}),
    "100,000 layers in the head": (
        decoder("output p3 = c3").replace("{ skip }", "{ " + " -> ".join(["relu"] * 100_000) + " }"),
        FINDINGS,
        {"NAS410"},
    ),
    "a name of a million letters": (decoder("a" * 10**6 + " = skip(c3) output p3 = " + "a" * 10**6), FINE, set()),
    "an unknown name of a million letters": (decoder("output p3 = " + "a" * 10**6), FINDINGS, {"NAS202"}),
    "a million letters out of place": ("a" * 10**6, FINDINGS, {"NAS102"}),
    "a decoder whose name has a million letters": (
        decoder("").replace("decoder d", "decoder " + "d" * 10**6),
        FINDINGS,
        {"NAS405"},
    ),
    "a number of 1,000 digits": (decoder("output p3 = conv(c3, k=" + "3" * 1000 + ")"), FINDINGS, {"NAS105"}),
    "a number of 10,000 digits with a suffix": (decoder("output p3 = conv(c3, k=" + "3" * 10_000 + "G)"), FINDINGS, {"NAS105"}),
    "a size of 10,000 digits": (
        "decoder d { input c3 require macs <= 1G at " + "8" * 5000 + "x" + "8" * 5000 + " fpn(width=64) { output p3 = c3 } "
        "head(width=64) { skip } predict fcos }",
        FINDINGS,
        {"NAS105"},
    ),
    "a width of a quintillion": (decoder("output p3 = conv(c3, k=3, width=" + "9" * 18 + ")"), FINDINGS, {"NAS303"}),
    "arithmetic that grows": (decoder("output p3 = conv(c3, k=" + "*".join(["9" * 18] * 50) + ")"), FINDINGS, {"NAS303"}),
    "a division by nothing": (decoder("output p3 = conv(c3, k=3/0)"), FINDINGS, {"NAS303"}),
    "an index of a quintillion": (decoder(f"x[{'9' * 18}] = skip(c3) output p3 = x{'9' * 18}"), FINE, set()),
    "a line of 3 MB": (one_line(), FINE, set()),
    "a line of 3 MB with a mistake at its end": (one_line() + " $", FINDINGS, {"NAS101"}),
    "a line of 3 MB with a bracket too few": (one_line().replace("_23000)", "_23000"), FINDINGS, {"NAS102"}),
    "a comment of 3 MB": ("# " + "c" * 3_000_000 + "\n" + decoder("output p3 = c3"), FINE, set()),
    "a string of 3 MB": ('use "' + "s" * 3_000_000 + '"\n' + decoder("output p3 = c3"), FINDINGS, {"NAS411"}),
    "a string of 3 MB that does not end": ('use "' + "s" * 3_000_000, FINDINGS, {"NAS104"}),
    "3 million line ends": ("\n" * 3_000_000 + decoder("output p3 = c4 $"), FINDINGS, {"NAS101"}),
    "more than the limit": ("# " + "c" * 100 + "\n" + "#\n" * 2_000_000, FINDINGS, {"NAS108"}),
    "NUL bytes": ("\x00" * 1000, FINDINGS, {"NAS109"}),
    "a NUL byte in a decoder": (decoder("output p3 = c3\x00"), FINDINGS, {"NAS101"}),
    "windows line ends": (decoder("\r\noutput p3 = c3\r\n").replace(" ", "\r\n"), FINE, set()),
    "a byte-order mark": ("\ufeff" + decoder("output p3 = c3"), FINE, set()),
    "a byte-order mark in the middle": (decoder("\ufeff output p3 = c3"), FINDINGS, {"NAS101"}),
    "nothing": ("", FINDINGS, {"NAS401"}),
    "a semicolon": (";", FINDINGS, {"NAS401"}),
    "terminal control sequences": ("\x1b[2J\x1b]0;title\x07", FINDINGS, {"NAS101", "NAS102", "NAS105"}),
    "text that turns its direction": (decoder("output p3 = c3 \u202e \u2066"), FINDINGS, {"NAS101"}),
    "letters of every script": (decoder("".join(map(chr, range(0x100, 0xD000, 7)))), FINDINGS, {"NAS101", "NAS102", "NAS405"}),
}


LONG = (
    "100,000 statements", "100,000 ops of one name", "100,000 mistakes", "100,000 outputs", "a line of 3 MB",
    "a line of 3 MB with a mistake at its end", "a line of 3 MB with a bracket too few", "repeats in blocks in repeats",
    "five hundred numbers of turns", "a thousand numbers of turns", "a repeat at the limit", "repeats that share their numbers",
    "100,000 parameters",
    "100,000 layers in the head", "10,000 brackets ( and nothing else", "10,000 brackets { and nothing else",
    "5,000 ops deep, the last one first", "20,000 statements", "3 million line ends", "a string of 3 MB",
    "empty repeats in repeats", "10,000 plus signs", "doubling blocks", "140 ops deep", "an unknown name of a million letters",
    "repeat of nothing, a billion times", "a number of 10,000 digits with a suffix", "a division by nothing", "a semicolon",
    "a byte-order mark in the middle", "a NUL byte in a decoder", "a decoder whose name has a million letters",
)  # fmt: skip
"""Those that are like another one, and the largest."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in LONG else n for n in TEXTS])
def test_a_text(name: str, tmp_path: Path) -> None:
    text, code, expected = TEXTS[name]
    (tmp_path / "t.nas").write_bytes(text.encode())
    ran = check("t.nas", tmp_path, code)
    assert found(ran) <= expected if "102" in "".join(expected) else found(ran) == expected, ran.err[:2000]
    steering = re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ran.err)
    assert not steering, "what would steer a terminal is not printed"


# ------------------------------------------------------------------------------------------------------ bytes, files

BYTES = {
    "random": bytes((i * 7919 + (i >> 3) * 104729) % 256 for i in range(50_000)),
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 40,
    "elf": b"\x7fELF\x02\x01\x01" + b"\x00" * 5000 + bytes(range(256)) * 40,
    "utf-16": decoder("output p3 = c3").encode("utf-16"),
    "latin-1": ("# größe " + "ä" * 100 + "\n" + decoder("output p3 = c3")).encode("latin-1"),
    "invalid utf-8": b"decoder d \xff\xfe\x80 { }",
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_text(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.nas").write_bytes(BYTES[name])
    ran = check("t.nas", tmp_path, FINDINGS)
    assert found(ran) == {"NAS109"}
    assert ran.err.count("error[") == 1, "a file that is not text is one finding"


def test_a_file_of_100_megabytes(tmp_path: Path) -> None:
    with open(tmp_path / "t.nas", "wb") as file:
        file.truncate(100_000_000)
    ran = check("t.nas", tmp_path, USAGE)
    assert "100 MB" in ran.err
    assert ran.seconds < 1, "it is not read"


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nas")
    (tmp_path / "folder.nas").mkdir()
    (tmp_path / "loop.nas").symlink_to("loop.nas")
    (tmp_path / "nowhere.nas").symlink_to("missing.nas")
    for path, words in {
        "pipe.nas": "not a plain file", "folder.nas": "a directory", "loop.nas": "symbolic links",
        "nowhere.nas": "no such file",
        "missing.nas": "no such file", "no/such/folder.nas": "no such file", "/dev/zero": "not a plain file",
        "t.nas/below": "no such file", "n" * 5000 + ".nas": "name too long", "": "no such file",
    }.items():  # fmt: skip
        ran = check(path, tmp_path, USAGE)
        assert words in ran.err.lower(), ran.err


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "t.nas"
    path.write_text(decoder("output p3 = c3"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads anything: the error of the system is put in its place
        wrapper = tmp_path / "run.py"
        wrapper.write_text(
            "import os, sys\nreal = os.open\n"
            "def refuse(path, *more, **named):\n"
            "    if str(path).endswith('t.nas'):\n        raise PermissionError(13, 'Permission denied', path)\n"
            "    return real(path, *more, **named)\n"
            "os.open = refuse\nsys.argv = ['nasdsl', 'check', 't.nas']\nfrom nasdsl.cli import main\nmain()\n"
        )
        ran = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        code, err = ran.returncode, ran.stderr
    else:
        shown = check("t.nas", tmp_path, USAGE)
        code, err = shown.code, shown.err
    assert code == USAGE
    assert err == "nasdsl: t.nas: no permission to read it\n"


def test_standard_input(tmp_path: Path) -> None:
    assert check("-", tmp_path, FINE, stdin=decoder("output p3 = c3").encode()).code == FINE
    ran = check("-", tmp_path, FINDINGS, stdin=b"decoder d { }")
    assert "--> <stdin>:1:9" in ran.err
    check("-", tmp_path, FINDINGS, stdin=b"")
    check("-", tmp_path, FINDINGS, stdin=b'use "ops.nas"')
    ran = check("-", tmp_path, USAGE, stdin=b"#" * 20_000_000)
    assert "16 MB" in ran.err
    with open("/dev/zero", "rb") as zeros:
        check("-", tmp_path, USAGE, stdin=zeros.fileno())


# ------------------------------------------------------------------------------------------------ files using files


def test_files_that_use_themselves_or_each_other(tmp_path: Path) -> None:
    (tmp_path / "self.nas").write_text('use "self.nas"\n' + decoder("output p3 = c3"))
    (tmp_path / "a.nas").write_text('use "b.nas"\n' + decoder("output p3 = c3"))
    (tmp_path / "b.nas").write_text('use "a.nas"\n')
    section = decoder("output p3 = c3").replace("fpn(width=64, norm=bn) { output p3 = c3 }", 'fpn from "from.nas"')
    (tmp_path / "from.nas").write_text(section)
    for name, circle in {
        "self": "self.nas -> self.nas", "a": "a.nas -> b.nas -> a.nas", "b": "b.nas -> a.nas -> b.nas",
        "from": "from.nas -> from.nas",
    }.items():  # fmt: skip
        ran = check(f"{name}.nas", tmp_path, FINDINGS)
        assert found(ran) == {"NAS412"}
        assert circle in ran.err


def chain(folder: Path, count: int, link: str) -> None:
    for i in range(count):
        text = f'use "f{i + 1}.nas"\nop o{i}(x) = o{i + 1}(x)\n' if link == "use" else ""
        if link == "from":
            text = decoder("output p3 = c3").replace("fpn(width=64, norm=bn) { output p3 = c3 }", f'fpn from "f{i + 1}.nas"')
        (folder / f"f{i}.nas").write_text(text)
    last = f"op o{count}(x) = x\n" if link == "use" else decoder("output p3 = c3")
    (folder / f"f{count}.nas").write_text(last)


@pytest.mark.parametrize("link", ["use", "from"])
def test_a_chain_of_500_files(link: str, tmp_path: Path) -> None:
    chain(tmp_path, 500, link)
    ran = check("f0.nas", tmp_path, FINDINGS)
    assert found(ran) == {"NAS410"}
    assert ran.err.count("error[") == 1


@pytest.mark.parametrize("link", ["use", "from"])
def test_a_chain_of_20_files_is_fine(link: str, tmp_path: Path) -> None:
    chain(tmp_path, 20, link)
    check("f0.nas", tmp_path, FINE)


def test_files_that_double(tmp_path: Path) -> None:
    """Each file uses the next one twice, under two paths: 2**40 ways lead to the last, and it is read once."""
    for i in range(40):
        (tmp_path / f"f{i}.nas").write_text(f'use "f{i + 1}.nas"\nuse "./f{i + 1}.nas"\nop o{i}(x) = skip(x)\n')
    (tmp_path / "f40.nas").write_text("op o40(x) = skip(x)\n")
    check("f0.nas", tmp_path, FINE)


@pytest.mark.long
def test_ways_out_of_the_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    secret = outside / "secret.nas"
    secret.write_text("op secret(x) = conv_3x3(x)\n")
    (inside / "link.nas").symlink_to(secret)
    (inside / "folder").symlink_to(outside)
    (inside / "loop.nas").symlink_to("loop.nas")
    for path, code in {
        "../outside/secret.nas": "NAS413", "link.nas": "NAS413", "folder/secret.nas": "NAS413", str(secret): "NAS413",
        "x/../../outside/secret.nas": "NAS413", "/etc/passwd": "NAS413", "/dev/zero": "NAS413", "~/x.nas": "NAS411",
        "loop.nas": "NAS411", ".": "NAS411", "": "NAS411", "no\x00name": "NAS411",
    }.items():  # fmt: skip
        (inside / "t.nas").write_text(f'use "{path}"\n' + decoder("output p3 = c3"))
        ran = check("inside/t.nas", tmp_path, FINDINGS)
        assert code in found(ran), (path, ran.err)
        assert "op secret" not in ran.err, "a line of a file outside is not shown"


@pytest.mark.long
def test_used_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.nas").write_text('use "used.nas"\n' + decoder("output p3 = c3"))
    for data in [*BYTES.values(), b"(" * 10_000, b"decoder", b"op f(x) = " + b"f(" * 90 + b"x" + b")" * 90]:
        (tmp_path / "used.nas").write_bytes(data)
        ran = check("t.nas", tmp_path, FINDINGS)
        assert "--> used.nas:" in ran.err


# --------------------------------------------------------------------------------------------- the other commands


@pytest.fixture
def _cases(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "t.nas").write_text("decoder d {")
    (tmp_path / "f.nas").write_text("op f(x) = x")
    return


@pytest.mark.usefixtures("_cases")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["compile", "t.nas"], FINDINGS), (["check", "zoo:../nas_fcos"], USAGE), (["zoo", "nothing"], USAGE),
        (["compile", "zoo:fcos", "-o", "no/folder/out.py"], USAGE),
        *(pytest.param(*case, marks=pytest.mark.long) for case in [
            (["compile", "f.nas"], FINDINGS), (["compile", "missing.nas"], USAGE), (["compile", "zoo:nothing"], USAGE),
            (["check", "zoo:nothing"], USAGE), (["compile", "zoo:fcos", "--backbone", "vgg"], USAGE),
            (["compile", "zoo:fcos", "-o", "out.txt"], USAGE),
        ]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)  # fmt: skip
def test_other_commands(arguments: list[str], code: int, tmp_path: Path) -> None:
    ran = nasdsl(*arguments, folder=tmp_path)
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    if code == USAGE:
        assert ran.err.splitlines()[-1].startswith("nasdsl: ")


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["check", "--format", "xml", "-"], ["nothing"], ["compile", "--size", "0x5", "-"],
     ["compile", "--size", "1e9x3", "-"],
     ["compile", "--classes", "0", "-"], ["explain", "NAS1", "NAS2"]],
    ids=" ".join,
)  # fmt: skip
def test_usage_errors(arguments: list[str], tmp_path: Path) -> None:
    ran = nasdsl(*arguments, folder=tmp_path, stdin=b"")
    assert ran.code == USAGE
    assert ran.out == ""
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err


def test_findings_as_json_for_a_text_with_everything_wrong(tmp_path: Path) -> None:
    (tmp_path / "t.nas").write_bytes(b"\xff\x00 decoder \x1b {{{ 1e9 ))\n" * 300)
    ran = nasdsl("check", "--format", "json", "t.nas", folder=tmp_path)
    assert ran.code == FINDINGS
    assert ran.err == ""
    report = json.loads(ran.out)
    assert report["ok"] is False
    assert report["diagnostics"]
