"""Time of a keystroke in the language server: from the changed text to its findings, and to what an editor shows of it.

    python benchmarks/lsp.py [--rounds 2]

A server is started as an editor starts it, and driven over its pipe. Into the largest file of the zoo, and into a decoder of
1,000 lines, a statement is typed in the middle, character by character, so that most versions do not parse, and taken back. The
findings of a version are waited for before the next; then the requests that an editor sends with each version are answered.
This is done several times. The best time of each keystroke is what it takes on a machine that does nothing else; the CPU time
is that of the server's main thread (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
URI = "file:///text.nas"
TYPED = "    q9 = sum(conv_3x3(c3, width=width), resize(c4, to=c3, mode=nearest))\n"
SHOWN = {
    "textDocument/semanticTokens/full": {},
    "textDocument/inlayHint": {"range": {"start": {"line": 0, "character": 0}, "end": {"line": 80, "character": 0}}},
    "textDocument/codeLens": {},
    "textDocument/foldingRange": {},
    "textDocument/documentSymbol": {},
}
"""What VS Code asks for after a change."""


class Server:
    """A server behind a pipe."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "nasdsl", "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        self.request("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self.send({"method": "initialized", "params": {}})

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()

    def until(self, is_it: Callable[[Any], bool]) -> Any:
        """The next message of this kind."""
        stdout = self.process.stdout
        assert stdout is not None
        while True:
            length = 0
            while line := stdout.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            message = json.loads(stdout.read(length))
            if is_it(message):
                return message

    def request(self, method: str, params: dict[str, Any]) -> Any:
        self.number += 1
        number = self.number
        self.send({"id": number, "method": method, "params": params})
        return self.until(lambda m: m.get("id") == number)

    def findings(self, version: int) -> None:
        """Wait for the findings of a version."""
        self.until(lambda m: m.get("method") == "textDocument/publishDiagnostics" and m["params"].get("version") == version)

    def cpu_seconds(self) -> float:
        """CPU time of the server's main thread so far; 0 where the system does not say."""
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[0]) / 1e9
        except OSError:
            return 0.0


def versions(text: str, at: int) -> Iterator[str]:
    """The text as a statement is typed, and taken back at once."""
    for end in range(1, len(TYPED) + 1):
        yield text[:at] + TYPED[:end] + text[at:]
    yield text


def long_text(lines: int = 1000) -> str:
    """A decoder of so many lines, most of them statements."""
    ops = ("conv_3x3", "sep_3x3", "dconv_3x3")
    body = [f"    x{i} = sum({ops[i % 3]}(x{i - 1}), c{3 + i % 3})" for i in range(1, lines - 8)]
    top = ["decoder long {", "  input c3, c4, c5", "  fpn(width=256, norm=bn) {", "    x0 = sum(c4, c5)"]
    end = [f"    output p3 = x{lines - 9}", "  }", "  head(width=256, norm=gn) { conv_3x3 }", "  predict fcos", "}", ""]
    return "\n".join([*top, *body, *end])


FINDINGS, SHOWN_TOO = "findings", "and all that is shown"


def measure(server: Server, text: str, at: int, rounds: int) -> dict[str, list[list[tuple[float, float]]]]:
    """Of each keystroke the milliseconds, and those of CPU time, in each round: to its findings, and to all that is shown."""
    found: dict[str, list[list[tuple[float, float]]]] = {FINDINGS: [], SHOWN_TOO: []}
    version = 0
    document = {"uri": URI, "languageId": "nas", "version": version, "text": text}
    server.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
    server.findings(version)
    for _ in range(rounds):
        for number, changed in enumerate(versions(text, at)):
            version += 1
            cpu, start = server.cpu_seconds(), time.perf_counter()

            def note(what: str, number: int = number, cpu: float = cpu, start: float = start) -> None:
                times = 1e3 * (time.perf_counter() - start), 1e3 * (server.cpu_seconds() - cpu)
                if len(found[what]) <= number:
                    found[what].append([])
                found[what][number].append(times)

            params = {"textDocument": {"uri": URI, "version": version}, "contentChanges": [{"text": changed}]}
            server.send({"method": "textDocument/didChange", "params": params})
            server.findings(version)
            note(FINDINGS)
            for method, more in SHOWN.items():
                server.request(method, {"textDocument": {"uri": URI}, **more})
            note(SHOWN_TOO)
    server.send({"method": "textDocument/didClose", "params": {"textDocument": {"uri": URI}}})
    return found


def row(times: list[list[tuple[float, float]]]) -> str:
    """p50 and p95 of all times, of the best time of each keystroke, and of its best CPU time."""
    every = [wall for rounds in times for wall, _ in rounds]
    best = [min(wall for wall, _ in rounds) for rounds in times]
    cpu = [min(cpu for _, cpu in rounds) for rounds in times]
    return " | ".join(f"{statistics.median(t):.0f} | {statistics.quantiles(t, n=20)[-1]:.0f}" for t in (every, best, cpu))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often the statement is typed")
    rounds = parser.parse_args().rounds
    files = sorted((ROOT / "genotypes").rglob("*.nas"), key=lambda p: len(p.read_text()))
    largest = files[-1].read_text()
    long = long_text()
    texts = {
        f"`{files[-1].stem}`, {largest.count(chr(10))} lines": (largest, largest.index("    output")),
        f"{long.count(chr(10)):,} lines": (long, long.index("    x500 =")),
    }
    server = Server()
    print("| text | ms to | p50 | p95 | best, p50 | p95 | CPU, p50 | p95 |\n|---|---|--:|--:|--:|--:|--:|--:|")
    for name, (text, at) in texts.items():
        for what, times in measure(server, text, at, rounds).items():
            print(f"| {name} | {what} | {row(times)} |", flush=True)
    server.request("shutdown", {})
    server.send({"method": "exit", "params": {}})
    server.process.wait(timeout=60)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"\n{rounds} x {len(TYPED) + 1} keystrokes; {os.cpu_count()} CPU cores{load}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
