"""The pages under ``docs`` and the README: every example is run, and what it shows is compared.

In a page, by the words behind the three backquotes:

- ``nas`` is a whole text and has to check. ``nas fpn`` and ``nas decoder`` are fragments, put into the frames `FPN` and
  `PARTS`. ``nas wrong NAS306`` has to give errors of this code and no other. ``file=NAME`` saves the text under this name,
  for the examples further down; it can stand behind any language.
- ``console`` holds commands behind ``$`` and what they print, both streams together. What only sets a machine up
  (`SETUP`) is not run. All commands run in one folder, which also holds copies of ``genotypes`` and ``examples``.
- ``python`` is run; the blocks of a page share one namespace. A ``text`` block that follows directly is what it prints.
- A ``toml`` block saved as ``pyproject.toml`` is installed, as far as its entry points go.

A line ``…`` in what is shown stands for any lines, or none; within a line it stands for any characters. A ``sh`` block is
never run.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nasdsl import layers
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.predictions import KINDS
from nasdsl.semantics import (
    builder,
    conditions,
    elaborate_attribute,
    elaborate_body,
    elaborate_count,
    elaborate_expression,
    files,
    infer_head,
    library,
    primitives,
    vocabulary,
)
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.infer_prediction import COMMON, kind_attributes
from nasdsl.syntax import ast, lexer, parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGE = ROOT / "docs" / "language.md"
OFTEN = ("README", "language", "language-models", "architecture")
"""The others' examples, of trainings and searches, are run by the long tests."""

FPN = """\
  fpn(width=64, norm=bn) {{
    x = conv_3x3(c3)
    y = conv_3x3(c4)
    z = conv_3x3(c5)
{}
    output p9 = add(x, y, z)
  }}"""
PARTS = {
    "input": "  input c2, c3, c4, c5",
    "fpn": "  fpn(width=64, norm=bn) { output p3 = conv_3x3(c3), p4 = conv_3x3(c4) }",
    "head": "  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }",
    "predict": "  predict fcos(centerness=cls)",
}

SETUP = ("git", "pip", "python -m pip", "python -m venv", "python3 -m venv", "cd", "make", "source", ".")
RUN = ("nasdsl", "python", "cat", "ls", "echo")

DRIVER = """
import contextlib, faulthandler, io, json, sys, traceback
sys.path.insert(0, "")
names = {"__name__": "__main__"}
for request in sys.stdin:
    faulthandler.dump_traceback_later(100, exit=True)
    job, out, failure = json.loads(request), io.StringIO(), ""
    if "nas" in job:
        from pathlib import Path
        from nasdsl.decoder import check_source
        from nasdsl.diagnostics import Source, render_all
        path = job["file"] and Path(job["file"])
        errors = [p for p in check_source(Source(job["page"], job["nas"]), path=path).problems if p.severity == "error"]
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"codes": " ".join(sorted({p.code for p in errors})), "report": render_all(errors)}), flush=True)
        continue
    with contextlib.redirect_stdout(out):
        try:
            exec(compile("\\n" * job["line"] + job["code"], job["page"], "exec"), names)
        except Exception:
            failure = traceback.format_exc(limit=-3)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"out": out.getvalue(), "failure": failure}), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Fence:
    """A block between two lines of three backquotes; ``line`` is that of the first."""

    line: int
    words: tuple[str, ...]
    text: str
    follows: bool  # nothing but empty lines between it and the block above

    @property
    def file(self) -> str | None:
        return next((w.removeprefix("file=") for w in self.words if w.startswith("file=")), None)


def fences(page: str) -> Iterator[Fence]:
    """The fenced blocks of a page. One that does not end is an error."""
    lines = iter(enumerate(page.splitlines(), 1))
    follows = False
    for number, line in lines:
        opened = re.fullmatch(r"( *)(`{3,})([^`]*)", line)
        if opened is None:
            follows = follows and not line.strip()
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == opened[2]:
                break
            body.append(inner.removeprefix(opened[1]))
        else:
            raise AssertionError(f"line {number}: a block that does not end")
        yield Fence(number, tuple(opened[3].split()), "".join(f"{x}\n" for x in body), follows)
        follows = True


def framed(fence: Fence) -> str:
    """The whole text that a fragment stands for."""
    if "fpn" in fence.words:
        parts = PARTS | {"fpn": FPN.format("".join(f"    {x}\n" for x in fence.text.splitlines()))}
    elif "decoder" in fence.words:
        given = set(re.findall(r"^(input|fpn|head|predict)\b", fence.text, re.MULTILINE))
        parts = {word: text for word, text in PARTS.items() if word not in given}
        parts = {"": fence.text, **parts}
    else:
        return fence.text
    return "decoder example {\n" + "\n".join(parts.values()) + "\n}\n"


def matches(shown: str, printed: str) -> bool:
    """Whether a program printed what a page shows, but for what `…` stands for."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.rstrip().splitlines()]

    def pattern_of(line: str) -> str:
        return r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(re.escape(part) for part in line.split("…")) + r"\n"

    pattern = "".join(pattern_of(line) for line in lines(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines(printed))) is not None


def commands(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, command and what is shown below it; a command goes on behind a backslash."""
    command, shown, at = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if command.endswith("\\"):
            command = command[:-1] + line.removeprefix("> ").strip()
        elif line.startswith("$ "):
            if command:
                yield at, command, shown
            command, shown, at = line[2:].strip(), "", number
        else:
            shown += line + "\n"
    if command:
        yield at, command, shown


class Runner:
    """Runs the examples of one page in a folder of their own."""

    def __init__(self, name: str, text: str, folder: Path) -> None:
        self.name = name
        self.text = text
        self.folder = folder
        self.failures: list[str] = []
        self.status = 0
        self.python: subprocess.Popen[str] | None = None
        for copied in ("genotypes", "examples"):
            shutil.copytree(ROOT / copied, folder / copied, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "PYTHONPATH": str(folder / "installed"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
        }

    def run(self) -> list[str]:
        """What is wrong with the page, one text for each example."""
        before: Fence | None = None
        printed = ""
        for fence in fences(self.text):
            language = fence.words[0] if fence.words else ""
            if fence.file is not None:
                path = self.folder / fence.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(fence.text, encoding="utf-8")
            if language == "nas":
                self.check(fence)
            elif language == "console":
                self.console(fence)
            elif language == "python" and fence.file is None:
                printed = self.execute(fence)
            elif language == "toml" and fence.file == "pyproject.toml":
                self.install(fence.text)
            elif language == "text" and fence.follows and before is not None and before.words[0] == "python":
                if not matches(fence.text, printed):
                    self.fail(fence.line, f"the block above prints:\n{printed}")
                printed = ""
            before = fence if language else None
        if self.python is not None:
            self.python.communicate()
        return self.failures

    def fail(self, line: int, what: str) -> None:
        self.failures.append(f"{self.name}:{line}: {what}")

    def check(self, fence: Fence) -> None:
        answer = self.ask({"nas": framed(fence), "file": fence.file, "page": f"{self.name}:{fence.line}"})
        wanted = " ".join(sorted(w for w in fence.words if w.startswith("NAS")))
        if bool(wanted) != ("wrong" in fence.words):
            self.fail(fence.line, "a wrong text says so, with the codes that it gives")
        elif answer["codes"] != wanted:
            self.fail(fence.line, f"expected {wanted or 'no error'}\n{answer['report']}")

    def console(self, fence: Fence) -> None:
        for offset, command, shown in commands(fence.text):
            at = fence.line + offset
            if any(command == s or command.startswith(f"{s} ") for s in SETUP):
                continue
            if command.split()[0] not in RUN:
                self.fail(at, f"`{command}` is not one of the commands that are run; use a `sh` block")
                continue
            line = f"(exit {self.status}); {command}"
            done = subprocess.run(
                ["/bin/sh", "-c", line], cwd=self.folder, env=self.environment, text=True, encoding="utf-8",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
            )  # fmt: skip
            self.status = done.returncode
            if not matches(shown, done.stdout):
                self.fail(at, f"`{command}` prints:\n{done.stdout}")
            elif done.returncode and not shown.strip():
                self.fail(at, f"`{command}` ends with exit code {done.returncode}")

    def execute(self, fence: Fence) -> str:
        answer = self.ask({"code": fence.text, "line": fence.line, "page": self.name})
        if answer["failure"]:
            self.fail(fence.line, answer["failure"])
        return answer["out"]

    def ask(self, job: Mapping[str, Any]) -> dict[str, str]:
        """The answer of the page's interpreter (`DRIVER`)."""
        if self.python is None:
            self.python = subprocess.Popen(
                [sys.executable, "-c", DRIVER], cwd=self.folder, env=self.environment, text=True, encoding="utf-8",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self.python.stdin is not None
        assert self.python.stdout is not None
        self.python.stdin.write(json.dumps(job) + "\n")
        self.python.stdin.flush()
        answer: dict[str, str] = json.loads(self.python.stdout.readline() or '{"failure": "the interpreter ended"}')
        return {"out": "", "failure": "", "codes": "", "report": ""} | answer

    def install(self, text: str) -> None:
        """Make the entry points of a project known, as ``pip install`` does."""
        project = tomllib.loads(text)["project"]
        info = self.folder / "installed" / f"{project['name']}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
        lines = []
        for group, entries in project["entry-points"].items():
            lines += [f"[{group}]", *(f"{k} = {v}" for k, v in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        for module in self.folder.glob("*.py"):
            shutil.copy(module, info.parent)
        for package in self.folder.glob("*/__init__.py"):
            shutil.copytree(package.parent, info.parent / package.parent.name, ignore=shutil.ignore_patterns("__pycache__"))


def labels(svg: str) -> list[str]:
    """The words of a picture, whatever its layout and font."""
    return sorted(re.sub(r"<[^>]*>", "", text) for text in re.findall(r"<text.*?</text>", svg, re.DOTALL))


@pytest.mark.skipif(os.name == "nt", reason="the examples are commands of a POSIX shell")
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.long) if p.stem not in OFTEN else p for p in PAGES],
    ids=lambda p: p.stem,
)
def test_examples(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    failures = Runner(page.name, text, tmp_path).run()
    for picture in re.findall(r"!\[[^\]]*\]\(([^):]+\.svg)\)", text):
        made = tmp_path / Path(picture).name
        if made.exists() and labels(made.read_text()) != labels((page.parent / picture).read_text()):
            failures.append(f"{page.name}: {picture} is not what the page's commands draw; take {made.name} from them")
    assert not failures, "\n\n".join(failures)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("```nas\ndecoder d { input c3 }\n```", "has no `fpn`"),
        ("```nas fpn\nu = conv_4x4(x)\n```", "unknown op `conv_4x4`"),
        ("```nas wrong NAS306 fpn\nu = sum(x, y)\n```", "expected NAS306"),
        ("```console\n$ nasdsl check zoo:fcos\n2 files checked, nothing to report\n```", "prints:\n1 file checked"),
        ("```console\n$ nasdsl check zoo:nothing\n…\nnasdsl: the zoo is empty\n```", "the zoo has no 'nothing'"),
        ("```console\n$ rm -rf results\n```", "not one of the commands"),
        ("```python\nimport nasdsl\nnasdsl.load('genotypes/none.nas')\n```", "no such file"),
        ("```python\nprint(1 + 1)\n```\n\n```text\n3\n```", "prints:\n2"),
        ("```python\nx = 1\n```\n```python\nprint(x, y)\n```", "name 'y' is not defined"),
    ],
)
def test_wrong_examples_are_found(wrong: str, says: str, tmp_path: Path) -> None:
    failures = Runner("page.md", f"# A page\n\n{wrong}\n", tmp_path).run()
    assert len(failures) == 1
    assert failures[0].startswith("page.md:")
    assert says in failures[0]


def test_what_is_left_out_of_an_output() -> None:
    assert matches("a\n…\nd\n", "a\nb\nc\nd\n")
    assert matches("…\nd\n", "d\n")
    assert matches("a … d\n", "a b c d\n")
    assert not matches("a … d\n", "a b\nc d\n")
    assert not matches("a\n…\n", "b\n")
    assert not matches("a\n", "a\nb\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links(page: Path) -> None:
    """Links between pages lead somewhere, to the heading too."""
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"^( *)(`{3,}).*?^\1\2$", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{page.name} links to {target}"


# ------------------------------------------------------------------------ tables of the reference, against the package


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of the language page, without its header."""
    text = LANGUAGE.read_text(encoding="utf-8")
    assert f"# {heading}\n" in text, f"no heading {heading!r}"
    section = text.split(f"# {heading}\n", 1)[1]
    rows = itertools.takewhile(
        lambda x: x.startswith("|"), itertools.dropwhile(lambda x: not x.startswith("|"), section.splitlines())
    )
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in list(rows)[2:]]


def attribute(name: str, accepts: Accepts) -> str:
    """An attribute as the reference has it: its name, and its default where it has one."""
    return name if accepts.default is None else f"{name}={accepts.default}"


def test_the_primitives_are_all_there() -> None:
    shown = {row[0].strip("`"): [row[1], row[2].replace("`", "")] for row in table("The primitives")}
    expected = {}
    for primitive in primitives.PRIMITIVES.values():
        operands = f"{primitive.least}" if primitive.least == primitive.most else f"{primitive.least} to {primitive.most}"
        attributes = ", ".join(attribute(n, a) for n, a in primitive.attributes.items() if n not in primitives.CONSTANTS)
        if primitive.name not in primitives.ACTIVATIONS:
            expected[primitive.name] = [operands, attributes or "none"]
    activations = ", ".join(primitives.ACTIVATIONS)
    assert shown == expected | {activations.replace(", ", "`, `"): ["1", "none"]}


def test_editors_say_what_the_reference_says_of_primitives() -> None:
    shown = {row[0].strip("`"): re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", row[3]) for row in table("The primitives")}
    activations = shown.pop("`, `".join(primitives.ACTIVATIONS))
    assert shown == {n: m for n, m in primitives.MEANINGS.items() if n not in primitives.ACTIVATIONS}
    assert activations == "activations, as torch defines them by default"
    assert {primitives.meaning(name) for name in primitives.ACTIVATIONS} == {"activation, as torch defines it by default"}


def test_what_attributes_accept() -> None:
    """One row for each attribute, wherever it stands: its values are the same everywhere."""
    shown = {row[0].replace("`", ""): row[1] for row in table("What attributes accept")}
    used = set()
    for owner in primitives.PRIMITIVES.values():
        for name, accepts in owner.attributes.items():
            if name in primitives.CONSTANTS:
                continue  # no text sets it by name
            key = name if name in shown else f"{name} of {owner.name}"
            assert shown[key] == accepts.expectation(), key
            used.add(key)
    assert used == set(shown)


def test_the_predictions_are_all_there() -> None:
    shown = [row[0].strip("`") for row in table("Predictions")]
    detectors = {name: kind_attributes(kind) for name, kind in KINDS.items() if kind.__module__.startswith("nasdsl.")}
    takes = {name: ", ".join(attribute(n, a) for n, a in accepted.items()) for name, accepted in detectors.items()}
    assert shown == [f"{name}({attributes})" for name, attributes in takes.items()]
    accepts = {row[0].strip("`"): row[1] for row in table("Attributes of predictions")}
    assert accepts == {n: a.expectation() for accepted in [*detectors.values(), COMMON] for n, a in accepted.items()}


def test_the_prelude_is_all_there() -> None:
    shown = [(name.strip("`"), body.strip("`")) for name, body, *_ in table("The prelude")]
    assert shown == prelude_rows()


def prelude_rows() -> list[tuple[str, str]]:
    """Each op and aggregation of the prelude with its parameters, and its body, on one line."""
    rows = []
    for name, entry in vocabulary.prelude().definitions.items():
        definition = entry.definition
        assert isinstance(definition, ast.OpDef)
        parameters = ", ".join(p.span.text for p in definition.parameters)
        body = " ".join(definition.body.span.text.split())
        rows.append((f"{name}({parameters})", body.replace("( ", "(").replace(" )", ")").replace(",)", ")")))
    return rows


def test_the_limits_are_the_packages() -> None:
    numbers = {row[0]: row[1].replace(",", "") for row in table("Limits")}
    assert {what: int(re.match(r"\d+", n)[0]) for what, n in numbers.items()} == {  # type: ignore[index]
        "characters of a text": parser.MAX_CHARACTERS,
        "bytes of a file": files.MAX_BYTES,
        "nesting of brackets, and operators in one value": lexer.MAX_NESTING,
        "digits of a number": 18,
        "statements that `repeat` makes": elaborate_body.MAX_STATEMENTS,
        "layers that a decoder expands into, and values, those of blocks included": builder.MAX_LAYERS,
        "calls, statements and alternatives in the bodies of ops and blocks with holes, over their calls": (
            elaborate_expression.MAX_COPIED
        ),
        "layers of a head's chain": infer_head.MAX_STEPS,
        "nesting of calls, those in the bodies of ops and blocks included": elaborate_expression.MAX_CALLS,
        "nesting of holes, choices, and ops and blocks with holes": elaborate_attribute.MAX_NESTED_HOLES,
        "holes, those in a `repeat` counted once a turn, those in an op or a block once a call": (
            elaborate_attribute.MAX_DECISIONS
        ),
        "nesting of files that use files": library.MAX_OPEN,
        "operators and holes of a value that holes decide, with those of the `let`s that it reads": (
            elaborate_attribute.MAX_OPERATORS
        ),
        "operands of one call": primitives.MAX_OPERANDS,
        "alternatives of a range": elaborate_attribute.MAX_RANGE,
        "combinations of the holes that decide one count": elaborate_count.MAX_COUNTS,
        "combinations of the holes that decide whether a turn is there": conditions.MAX_CASES,
        "holes that decide what one name means": conditions.MAX_DEPENDENCIES,
    }


def test_the_explanation_of_the_limits_has_their_numbers() -> None:
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\b", CODES["NAS410"].text)]
    assert numbers == [
        elaborate_body.MAX_STATEMENTS, builder.MAX_LAYERS, builder.MAX_LAYERS, elaborate_attribute.MAX_DECISIONS,
        infer_head.MAX_STEPS, elaborate_expression.MAX_CALLS, elaborate_attribute.MAX_NESTED_HOLES, library.MAX_OPEN,
        elaborate_expression.MAX_COPIED,
    ]  # fmt: skip


def test_the_reserved_words_are_the_scanners() -> None:
    found = re.search(r"These words are reserved: ([^.]*)\.", LANGUAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert re.findall(r"`(\w+)`", found[1]) == list(lexer.RESERVED)


def test_the_diagnostics_are_all_there() -> None:
    shown = {row[0].strip("`"): row[1] for row in table("List of diagnostics")}
    assert shown == {entry.code: entry.title.replace("|", "\\|") for entry in CODES.values()}


def test_the_layers_are_all_primitives() -> None:
    """Nothing in the set of layers is out of reach of the language."""
    reached = {"input", "act", *primitives.PRIMITIVES}
    reached |= {"result", "factor", "term"}  # one of several results of a layer; a number among the operands of `mul` or `add`
    known = [t for t in vars(layers).values() if isinstance(t, type) and isinstance(vars(t).get("kind"), str)]
    assert {vars(t)["kind"] for t in known} <= reached
