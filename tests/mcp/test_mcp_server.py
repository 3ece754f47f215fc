"""`nasdsl mcp` over a pipe, with the client of the protocol's SDK."""

from __future__ import annotations

import asyncio
import os
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
