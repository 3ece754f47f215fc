"""The language server, the server of tools and the studio, as editors, programs with a language model and browsers ask them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any
from urllib.request import Request, urlopen

from running import Environment, require

WRONG = "decoder d { input c3 fpn(width=32) { output p3 = conv_3x4(c3) } head(width=32) { conv_3x3 } predict fcos }"
TIMEOUT = 120


@contextmanager
def started(environment: Environment, command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server behind a pipe, which ends by itself when it is told to."""
    print(f"$ nasdsl {command}", flush=True)
    process = subprocess.Popen(
        [environment.program("nasdsl"), *command.split()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=environment.work,
        env=environment.variables,
    )  # fmt: skip
    timer = Timer(TIMEOUT, process.kill)
    timer.start()
    try:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        require(process.wait() == 0, f"nasdsl {command} ended with exit code {process.returncode}")
    finally:
        timer.cancel()
        process.kill()


def try_lsp(environment: Environment) -> None:
    """`initialize`, and the findings of a text."""
    with started(environment, "lsp") as process:
        assert process.stdin is not None

        def send(message: dict[str, Any]) -> None:
            assert process.stdin is not None
            body = json.dumps({"jsonrpc": "2.0", **message}).encode()
            process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            process.stdin.flush()

        def until(key: str, value: Any) -> Any:
            assert process.stdout is not None
            while True:
                length = 0
                while line := process.stdout.readline().strip():
                    name, _, given = line.partition(b":")
                    length = int(given) if name.lower() == b"content-length" else length
                require(length > 0, "the language server has ended")
                message = json.loads(process.stdout.read(length))
                if message.get(key) == value:
                    return message

        send({"id": 1, "method": "initialize", "params": {"processId": None, "rootUri": None, "capabilities": {}}})
        require("hoverProvider" in until("id", 1)["result"]["capabilities"], "the language server shows nothing")
        send({"method": "initialized", "params": {}})
        document = {"uri": "untitled:t", "languageId": "nas", "version": 1, "text": WRONG}
        send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        found = until("method", "textDocument/publishDiagnostics")["params"]["diagnostics"]
        require([d["code"] for d in found] == ["NAS201"], f"the language server found {found}")
        send({"id": 2, "method": "shutdown"})
        until("id", 2)
        send({"method": "exit"})


def try_mcp(environment: Environment) -> None:
    """`initialize`, and a call of a tool."""
    with started(environment, "mcp") as process:

        def send(message: dict[str, Any]) -> None:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            process.stdin.flush()

        def answer() -> Any:
            assert process.stdout is not None
            line = process.stdout.readline()
            require(bool(line), "the server of tools has ended")
            return json.loads(line)["result"]

        client = {"name": "try_wheel", "version": "1"}
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        send({"id": 1, "method": "initialize", "params": hello})
        require(answer()["serverInfo"]["name"] == "nasdsl", "another server answered")
        send({"method": "notifications/initialized"})
        send({"id": 2, "method": "tools/call", "params": {"name": "check", "arguments": {"text": WRONG}}})
        result = answer()["structuredContent"]
        require(result["errors"] == 1 and "NAS201" in result["report"], f"the tool answered {result}")


def try_studio(environment: Environment) -> None:
    """The page, and the findings of a text."""
    print("$ nasdsl studio", flush=True)
    process = subprocess.Popen(
        [environment.program("nasdsl"), "studio", "--no-browser"], stdout=subprocess.PIPE, cwd=environment.work,
        env={**environment.variables, "PYTHONUNBUFFERED": "1"}, text=True,
    )  # fmt: skip
    timer = Timer(TIMEOUT, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        address = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), "")
        require(address != "", "the studio names no address")
        for name in ("", "page.js", "graphviz.js", "page.css"):
            with urlopen(address + name) as answer:
                require(len(answer.read()) > 100, f"the page's {name or 'index.html'} is empty")
        body = json.dumps({"kind": "check", "text": WRONG}).encode()
        with urlopen(Request(address + "ask", body, {"Content-Type": "application/json"})) as answer:
            found = json.load(answer)["diagnostics"]
        require([f["code"] for f in found] == ["NAS201"], f"the studio found {found}")
        process.terminate()
        process.wait()
    finally:
        timer.cancel()
        process.kill()
