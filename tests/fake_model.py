"""A local server that answers as a language model would: a deterministic function of what it is asked."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | int | bytes | float
"""The content of an answer; a state of HTTP; a body as it is; or seconds to wait before nothing is said."""


def mutants(prompt: str) -> str:
    """Changes of the best lists in the prompt, by one decision each. Rewards count by their order alone."""
    sizes = [
        len(re.findall(r"(?:^|, )\d+: ", line.partition(": ")[2]))
        for line in re.findall(r"(?m)^\d+ \S+: .*$", prompt.partition("The decisions")[2].partition("The best of")[0])
    ]
    known = [json.loads(found) for found in re.findall(r"(?m)^(\[[0-9, ]*\]) reward", prompt)]
    asked = int(re.findall(r"Propose (\d+) other", prompt)[0])
    rng = random.Random(sha256(json.dumps(known).encode()).hexdigest())
    found = []
    for _ in range(asked):
        one = list(rng.choice(known[:5])) if known else [0] * len(sizes)
        places = [place for place, size in enumerate(sizes) if size > 1]
        for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
            one[place] = rng.randrange(sizes[place])
        found.append(one)
    return "Here they are:\n```json\n" + json.dumps(found) + "\n```"


class FakeModel:
    """A server on a free port.

    Attributes:
        answers: what it says next, one a request; then what `answer` makes of the user's message.
        requests: the bodies that it got; `headers` those of each request.
    """

    def __init__(self, answer: Callable[[str], Answer] = mutants) -> None:
        self.answer = answer
        self.answers: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append(body)
                fake.headers.append(dict(self.headers))
                fake.paths.append(self.path)
                made = fake.answers.pop(0) if fake.answers else fake.answer(body["messages"][-1]["content"])
                self._say(made)

            do_GET = do_POST

            def _say(self, made: Answer) -> None:
                if isinstance(made, float):
                    time.sleep(made)
                    return
                if isinstance(made, int):
                    self.send_response(made)
                    if 300 <= made < 400:
                        self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")  # type: ignore[attr-defined]
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = made if isinstance(made, bytes) else json.dumps({"choices": [{"message": {"content": made}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@cache
def standing() -> FakeModel:
    """A server that stays for all tests of the process."""
    return FakeModel()


def options() -> dict[str, Any]:
    """Options of the strategy that ask the standing server."""
    return {"address": standing().address, "model": "fake"}
