"""Puts another code into functions that exist, so that a forked process has the mutant without importing anything again."""

from __future__ import annotations

import gc
from collections import Counter
from types import CodeType, FunctionType


class Unfit(Exception):
    """No function of this process can take the code: none was made of the source, or it uses other variables around it."""


def install(file: str, source: str, changed: str) -> None:
    """Change the functions of a module that is imported, wherever they are held: behind decorators, in tables, as methods.

    Args:
        file: path of the module's source.
        source: which it was imported from.
        changed: what it is to be.

    Raises:
        Unfit: see there.
    """
    right, wrong = (_codes(compile(text, file, "exec", dont_inherit=True)) for text in (source, changed))
    codes = {_key(old): wrong[place] for place, old in right.items() if place in wrong and wrong[place] != old}
    functions = [f for f in gc.get_objects() if type(f) is FunctionType and f.__code__.co_filename == file]
    changing = [f for f in functions if _key(f.__code__) in codes]
    if not changing:
        raise Unfit("no function of this process has this code")
    try:
        for function in changing:
            function.__code__ = codes[_key(function.__code__)]
    except ValueError as error:
        raise Unfit(str(error)) from None


def _key(code: CodeType) -> tuple[str, int, bytes]:
    return code.co_qualname, code.co_firstlineno, code.co_code


def _codes(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """All functions of a module, by qualified name and number among those of the name: a change can move lines."""
    found: dict[tuple[str, int], CodeType] = {}
    numbers: Counter[str] = Counter()

    def collect(code: CodeType) -> None:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                found[inner.co_qualname, numbers[inner.co_qualname]] = inner
                numbers[inner.co_qualname] += 1
                collect(inner)

    collect(code)
    return found
