"""`nasdsl mcp` over a pipe, with the client of the protocol's SDK."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nasdsl.cli import cli

mcp: Any = pytest.importorskip("mcp", reason="the server needs the extra mcp")

ROOT = Path(__file__).parents[2]
RIGHT = "decoder d { input c3 fpn(width=32) { output p3 = conv_3x3(c3) } head(width=32) { conv_3x3 } predict fcos }"
WRONG = RIGHT.replace("conv_3x3(c3)", "dcnv_3x3(c3)")
READERS = {"check", "explain", "cost", "render", "sample", "grammar", "zoo", "search_status"}


def served(folder: Path, *options: str, use: Callable[[Any], Awaitable[None]]) -> None:
    """Start the command on a folder and use it; it must end by itself."""

    async def session() -> None:
        parameters = mcp.StdioServerParameters(
            command=sys.executable,
            args=["-m", "nasdsl", "mcp", str(folder), *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        async with asyncio.timeout(120), mcp.Client(mcp.stdio_client(parameters)) as client:
            await use(client)

    asyncio.run(session())


def text_of(result: Any) -> str:
    return "".join(block.text for block in result.content)


def test_tools_over_a_pipe(tmp_path: Path) -> None:
    """All in one session: starting Python takes longest."""
    (tmp_path.parent / "secret.nas").write_text("# the secret")
    (tmp_path / "right.nas").write_text(RIGHT)

    async def use(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READERS
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        assert all(tool.description for tool in tools.values())
        checked = await client.call_tool("check", {"text": WRONG})
        assert not checked.is_error
        assert checked.structured_content["diagnostics"][0]["code"] == "NAS201"
        cost = await client.call_tool("cost", {"path": "right.nas", "backbone": "mobilenet_v2"})
        assert cost.structured_content["cost"]["fpn"]["macs"] > 0
        assert "<svg" in text_of(await client.call_tool("render", {"path": "zoo:fcos"}))
        sampled = await client.call_tool("sample", {"path": "zoo:nas_fcos_head", "n": 2})
        assert len(sampled.structured_content["samples"]) == 2
        assert "NAS201" in text_of(await client.call_tool("explain", {"code": "NAS201"}))
        for name, arguments, message in (
            ("cost", {"text": WRONG}, "error[NAS201]"),
            ("check", {"path": "../secret.nas"}, "lies outside of the folder"),
            ("check", {"path": "none.nas"}, "no such file"),
            ("check", {"text": "a" * 3_000_000}, "at most 200,000 are read"),
            ("check", {"txt": "a"}, "expected `text`, or `path`"),
            ("cost", {"text": RIGHT, "backbone": "nothing"}, "nothing"),
            ("sample", {"path": "zoo:nas_fcos_head", "n": "many"}, "n"),
            ("save", {"path": "new.nas", "text": RIGHT}, "Unknown tool"),
        ):
            refused = await client.call_tool(name, arguments)
            assert refused.is_error, name
            assert message in text_of(refused)
            assert "Traceback" not in text_of(refused)
            assert "the secret" not in text_of(refused)
        assert (await client.call_tool("check", {"text": RIGHT})).structured_content["ok"]  # it still answers

    served(tmp_path, use=use)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["right.nas"]


@pytest.mark.long
def test_saving_over_a_pipe(tmp_path: Path) -> None:
    async def use(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {*READERS, "save"}
        assert not tools["save"].annotations.read_only_hint
        saved = await client.call_tool("save", {"path": "new.nas", "text": RIGHT})
        assert saved.structured_content["ok"]
        refused = await client.call_tool("save", {"path": "../new.nas", "text": RIGHT})
        assert refused.is_error
        assert "outside" in text_of(refused)

    served(tmp_path, "--write", use=use)
    assert (tmp_path / "new.nas").read_text() == RIGHT
    assert not (tmp_path.parent / "new.nas").exists()


class Pipe:
    """The server, spoken to in lines."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nasdsl", "mcp", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}
        assert self.ask({"id": 0, "method": "initialize", "params": hello})["result"]["serverInfo"]["name"] == "nasdsl"
        self.send(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, message: dict[str, Any]) -> Any:
        self.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        return self.answer()

    def ended(self) -> int:
        """Close the pipe. Returns the server's exit code."""
        with self.process:
            self.process.communicate(timeout=60)
        return self.process.returncode

    def memory(self) -> int:
        """Bytes that the server has taken at the most."""
        (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return 1024 * int(line)


def test_a_line_that_is_too_long_is_refused_and_not_kept(tmp_path: Path) -> None:
    """What is longer than a message may be costs an error with the number of its request, no memory, and not the server."""
    pipe = Pipe(tmp_path)
    call = {"method": "tools/call", "params": {"name": "check", "arguments": {"text": RIGHT}}}
    assert not pipe.ask({"id": 1, **call})["result"]["isError"]
    before = pipe.memory() if sys.platform == "linux" else 0
    piece = b"a" * 1_000_000
    for number, (begin, end) in {
        7: (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"check","arguments":{"text":"', b'"}}}\n'),
        "eight": (
            b'{"method":"tools/call","params":{"name":"check","arguments":{"text":"',
            b'"}},"jsonrpc":"2.0","id":"eight"}\n',
        ),
        None: (b'{"params": {"id": 3, "text": "', b'"}, "method": "x", "jsonrpc": "2.0"}\n'),
    }.items():
        pipe.send(begin)
        for _ in range(100):
            pipe.send(piece)
        pipe.send(end)
        refused = pipe.answer()
        length = len(begin) + 100 * len(piece) + len(end)
        assert refused["id"] == number
        assert refused["error"]["message"] == f"a message of {length:,} bytes is not read; expected at most 4,000,000"
    if sys.platform == "linux":
        assert pipe.memory() - before < 30_000_000
    assert pipe.ask({"id": 2, **call})["result"]["structuredContent"]["ok"]  # it still answers
    assert pipe.ended() == 0


@pytest.mark.parametrize("size", [1, 2, 7, 20, 21, 100, 65_536])
def test_lines_in_pieces(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the data comes in pieces: lines of at most 20 bytes come through, the others are refused with their length."""
    from nasdsl.mcp import wire

    monkeypatch.setattr(wire, "MAX_MESSAGE", 20)
    monkeypatch.setattr(wire, "_CHUNK", size)
    rng = random.Random(size)
    lines = [b"x\r" * rng.choice([0, 1, 5, 9, 10, 30]) + b"\n" for _ in range(200)] + [b"y" * rng.choice([0, 1, 20, 21, 50])]
    source, sink = os.pipe()
    os.write(sink, b"".join(lines))
    os.close(sink)
    refused: list[tuple[int, int | str | None]] = []
    with io.BufferedReader(wire.LineReader(source, lambda *found: refused.append(found))) as reader:
        got = reader.read()
    os.close(source)
    assert got == b"".join(line for line in lines if len(line) <= 20)
    assert refused == [(len(line), None) for line in lines if len(line) > 20]


def test_a_folder_that_may_be_written_has_a_tool_for_it_and_a_bug_is_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nasdsl.folder import Folder
    from nasdsl.mcp.server import make_server

    def broken(code: str) -> str:
        raise ValueError("not enough values to unpack")

    monkeypatch.setattr("nasdsl.mcp.tools.explain_code", broken)
    for is_writable in (False, True):
        server = make_server(Folder.open(tmp_path, is_writable=is_writable))
        tools = {tool.name: tool for tool in asyncio.run(server.list_tools())}
        assert set(tools) == ({*READERS, "save"} if is_writable else READERS)
    assert not tools["save"].annotations.read_only_hint
    with pytest.raises(Exception, match="Error executing tool explain") as caught:
        asyncio.run(server.call_tool("explain", {"code": "NAS201"}))
    assert "not enough values" not in str(caught.value)  # the model is not told what it cannot mend


def test_prints_do_not_reach_the_client(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from nasdsl.mcp.wire import bounded_stdio

    with open(1, "w", closefd=False) as stdout, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)  # as outside of pytest: it writes to the descriptor
        with bounded_stdio():
            print("stray", flush=True)
            os.write(1, b"of a program\n")
            sys.stdout.buffer.write(b"an answer\n")
    assert capfd.readouterr() == ("an answer\n", "stray\nof a program\n")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["mcp", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert "is no folder" in result.stderr


@pytest.mark.long
def test_the_server_starts_without_torch() -> None:
    code = "import sys, nasdsl.mcp.server; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=env)
        return await process.wait()

    assert asyncio.run(run()) == 0
