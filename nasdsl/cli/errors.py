"""Exit codes, and errors and warnings as messages without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nasdsl.cli.output import echo_err, is_main_process, print_diagnostics

FINDINGS, USAGE = 1, 2
"""Exit codes: findings in the input; wrong usage, unreadable files and broken configuration."""


def fail(message: str) -> NoReturn:
    """Print a message and exit with code `USAGE`."""
    echo_err(f"nasdsl: {message}")
    sys.exit(USAGE)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print the package's own errors and `OSError` as messages and exit: with `FINDINGS` for diagnostics, else `USAGE`.

    So are errors of torch in a layer of the decoder, with the layer's line in the text, and of too little memory. Other
    errors pass through.
    """
    from nasdsl.backends.layer_errors import first_line, is_out_of_memory, layer_error_message
    from nasdsl.diagnostics import DiagnosticError, is_message
    from nasdsl.semantics.files import UnreadableFile

    try:
        yield
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if is_message(error):
            fail(str(error))
        message = layer_error_message(error)
        if is_out_of_memory(error):
            message = f"not enough memory: {message or first_line(error)}; smaller batches or images need less"
        if message is None or os.environ.get("NASDSL_TRACEBACK"):
            raise
        fail(message)


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Print `UserWarning`s of this package, such as that weights fit another backbone, as one line each."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning, module=r"nasdsl\.")  # messages, also under `python -W error`
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *location: Any, **options: Any) -> None:
            if category is not UserWarning or Path(__file__).parents[1] not in Path(location[0]).parents:
                original(message, category, *location, **options)
            elif is_main_process():
                echo_err(f"warning: {message}")

        warnings.showwarning = show
        yield
