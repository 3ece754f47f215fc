"""A client for language models behind an OpenAI-compatible address (``POST ADDRESS/chat/completions``)."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

from nasdsl.files import parse_json

MAX_ANSWER: Final = 2_000_000
"""Bytes of the longest answer that is read."""

NOT_RETRIED: Final = frozenset((400, 401, 403, 404, 405, 422))
"""HTTP status codes that asking again does not change: a wrong address, key, model or request."""

_PAUSE: Final = 1.0
"""Seconds before the second attempt; twice as long before each further one."""


class LanguageModelError(ValueError):
    """The options make no sense, or the server refuses the request for good."""


class NoAnswer(Exception):
    """The server gave no usable answer, after all attempts."""


@dataclass(frozen=True)
class LanguageModel:
    """A model behind an address. Nothing of it but the name of the variable with the key is ever written to a file.

    Attributes:
        address: such as ``http://localhost:8080/v1``; ``/chat/completions`` is added.
        model: as the server calls it.
        key_variable: the environment variable that holds the key. Without one the request has no key.
        temperature: of sampling.
        timeout: seconds that an attempt may take.
        retries: further attempts after one that failed for a while: no connection, a timeout, status codes 429 and 5xx.

    Raises:
        LanguageModelError: the address is none, or has a user or password in it; a number is out of range.
    """

    address: str
    model: str
    key_variable: str = "NASDSL_LLM_KEY"
    temperature: float = 1.0
    timeout: float = 60.0
    retries: int = 2

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.address)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LanguageModelError("address: expected that of a server, such as http://localhost:8080/v1")
        if parts.username or parts.password:  # it is written to the journal, as all options are
            raise LanguageModelError("address: it has a user or password in it; put the key into an environment variable")
        if not self.model:
            raise LanguageModelError("model: expected the name that the server has for a model")
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_variable):
            raise LanguageModelError(
                "key_variable: expected the name of an environment variable, such as NASDSL_LLM_KEY, and not the key itself"
            )
        for name, value, least in (("temperature", self.temperature, 0), ("timeout", self.timeout, 0.001)):
            if not isinstance(value, int | float) or not least <= value < 100_000:
                raise LanguageModelError(f"{name} is {value!r}; expected a number from {least}")

    def ask(self, messages: Sequence[Mapping[str, str]], seed: int) -> str:
        """The content of the model's answer.

        Raises:
            LanguageModelError: the server refuses the request, or its key.
            NoAnswer: there was none in time, or it is not of the protocol.
        """
        body = {"model": self.model, "messages": list(messages), "temperature": self.temperature, "seed": seed, "stream": False}
        problem = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                return self._attempt(json.dumps(body).encode())
            except urllib.error.HTTPError as error:
                error.close()  # it is the response, and holds the connection
                problem = f"{error.code} {error.reason}"
                if error.code in NOT_RETRIED or 300 <= error.code < 400:
                    what = "its key" if error.code in (401, 403) else "the request"
                    raise LanguageModelError(f"{self._place} refuses {what}: {problem}") from None
            except (OSError, HTTPException, ValueError) as error:  # no connection, a timeout, half an answer
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
        raise NoAnswer(f"{self._place}: {problem}")

    @property
    def _place(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"

    def _attempt(self, body: bytes) -> str:
        parts = urlsplit(self.address)
        url = parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl()
        headers = {"Content-Type": "application/json", "User-Agent": "nasdsl"}
        key = os.environ.get(self.key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key.strip()}"
        request = urllib.request.Request(url, body, headers)
        with _OPENER.open(request, timeout=self.timeout) as response:
            data = response.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise ValueError(f"an answer of more than {MAX_ANSWER:,} bytes")
        return content_of(parse_json(data))


def content_of(answer: Any) -> str:
    """The content in an answer of the protocol.

    Raises:
        ValueError: it is no such answer.
    """
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        content = None
    if not isinstance(content, str):
        raise ValueError("an answer without choices[0].message.content")
    return content


def warn(message: str) -> None:
    """Warn the user, once for each message."""
    warnings.warn(message, UserWarning, stacklevel=1)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirections are errors: they would take the key to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect)
