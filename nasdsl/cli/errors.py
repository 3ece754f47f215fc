"""Exit codes, and errors and warnings as messages for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nasdsl.cli.output import is_first_process, report, say

FINDINGS, USAGE = 1, 2


def fail(text: str) -> NoReturn:
    say(f"nasdsl: {text}")
    sys.exit(USAGE)


@contextmanager
def refusals() -> Iterator[None]:
    """Errors that the package raises with a message for people become that message and exit code 2 (1 for findings)."""
    from nasdsl.diagnostics import DiagnosticError

    try:
        yield
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except ValueError as error:
        if not type(error).__module__.startswith("nasdsl."):
            raise
        fail(str(error))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings of the package, such as that of weights that fit another backbone, as lines for people."""
    import warnings

    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if category is not UserWarning or Path(where[0]).parents[1] != Path(__file__).parents[1]:
                usual(message, category, *where, **more)
            elif is_first_process():
                say(f"warning: {message}")

        warnings.showwarning = show
        yield
