"""Run commands in this process."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from nasdsl.cli import cli


def invoke(*arguments: str | Path) -> Result:
    """Run a command. It may raise nothing but `SystemExit`, and print no traceback."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def refused(*arguments: str | Path, code: int = 2) -> str:
    """Run a command that is refused with an exit code; returns its message, which is on standard error alone."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr
