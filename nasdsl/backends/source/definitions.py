"""Definitions of this package as text, read from its files: importing them would import torch."""

from __future__ import annotations

import ast
from functools import cache
from importlib.resources import files


@cache
def definition(module: str, name: str) -> str:
    """Source of a class or function of this package, with its decorators, as `inspect.getsource` gives it.

    Args:
        module: such as ``nasdsl.nn.fusion``.
        name: of a class or function at the module's top level.

    Raises:
        LookupError: the module has no such definition.
    """
    package, *path = module.split(".")
    text = files(package).joinpath(*path[:-1], f"{path[-1]}.py").read_text("utf-8")
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            first = min(node.lineno for node in (*statement.decorator_list, statement))
            return "\n".join(text.splitlines()[first - 1 : statement.end_lineno])
    raise LookupError(f"{module} defines no {name}")
