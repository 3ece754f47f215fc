"""The tools as a server of the Model Context Protocol, on standard input and output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal  # noqa: F401  # the SDK reads the tools' annotations in this module

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from nasdsl.diagnostics import DiagnosticError, is_message, render_all
from nasdsl.folder import Folder
from nasdsl.mcp.tools import MAX_SHOWN, Toolbox

INSTRUCTIONS = """\
nasdsl is a language (.nas) for the decoders of object detectors: the feature pyramid and the head; a decoder with holes is a \
search space. `zoo` has examples to start from. Write a text, `check` it and mend what it reports (`explain` a code), then ask \
for its `cost` or a picture (`render`). Paths are relative to the served folder, or zoo:NAME."""


def make_server(folder: Folder) -> MCPServer[Any]:
    """A server over a folder. It has the tool `save` if the folder is writable."""
    toolbox = Toolbox(folder)
    server: MCPServer[Any] = MCPServer("nasdsl", instructions=INSTRUCTIONS, version=version("nasdsl"), log_level="WARNING")
    readers: list[Callable[..., Any]] = [
        toolbox.check, toolbox.explain, toolbox.cost, toolbox.render, toolbox.sample, toolbox.grammar, toolbox.zoo,
        toolbox.search_status,
    ]  # fmt: skip
    for tool in readers:
        annotations = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        server.add_tool(_with_messages(tool), annotations=annotations)
    if folder.is_writable:
        annotations = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
        server.add_tool(_with_messages(toolbox.save), annotations=annotations)
    return server


def _with_messages(tool: Callable[..., Any]) -> Callable[..., Any]:
    """A tool whose errors are the messages that the command line gives."""

    @functools.wraps(tool)
    def called(*arguments: Any, **named: Any) -> Any:
        try:
            return tool(*arguments, **named)
        except DiagnosticError as error:
            raise ToolError(render_all(error.diagnostics[:MAX_SHOWN], color=False)) from None
        except OSError as error:
            raise ToolError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
        except ValueError as error:
            if not is_message(error):
                raise
            raise ToolError(str(error)) from None

    return called
