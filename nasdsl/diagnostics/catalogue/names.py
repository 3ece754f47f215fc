"""NAS2xx: what a word refers to."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import islice

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.catalogue.other_names import advice_on_op
from nasdsl.diagnostics.diagnostic import Code, Diagnostic, did_you_mean
from nasdsl.diagnostics.span import Span

UNKNOWN_OP = Code(
    "NAS201",
    "an op that nothing defines",
    "The word before a bracket, or in a head's chain, names an op, an aggregation, a block or a primitive. Those of the "
    "prelude are always there; others are defined in the file or in one that it brings in with `use`.",
    decoder("output p3 = dcnv_3x3(c3)"),
    decoder("output p3 = dconv_3x3(c3)"),
)

UNKNOWN_VALUE = Code(
    "NAS202",
    "a value that nothing binds",
    "In an fpn, a name refers to an input or to a value bound further up. In an op or a block only its parameters and "
    "what its own statements bind are known.",
    decoder("x1 = conv_3x3(c3)\noutput p3 = conv_3x3(x2)"),
    decoder("x1 = conv_3x3(c3)\noutput p3 = conv_3x3(x1)"),
)

FORWARD = Code(
    "NAS203",
    "a value used before it is bound",
    "Statements are read from top to bottom; a value can be used only below the statement that binds it, and a `shared` op "
    "only below the one that defines it.",
    decoder("x1 = add(c3, x2)\nx2 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x2 = conv_3x3(c4)\nx1 = add(c3, x2)\noutput p3 = x1"),
)

BOUND_TWICE = Code(
    "NAS204",
    "a name bound twice",
    "Each value, input and output has a name of its own. Only inside `repeat` may a name be bound again, because there "
    "the next round reads what the last one bound.",
    decoder("x1 = conv_3x3(c3)\nx1 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = sum(x1, x2)"),
)

UNKNOWN_INPUT = Code(
    "NAS205",
    "an input that no backbone has",
    "Inputs are the backbone's features c1 to c7; cK has stride 2^K.",
    decoder(inputs="input c3, c4, feature5"),
    decoder(inputs="input c3, c4, c5"),
)

DEFINED_TWICE = Code(
    "NAS206",
    "an op, block, choice or parameter defined twice",
    "In one file a name is defined once. (A definition may hide one of the prelude, or of a file that is used.)",
    decoder("output p3 = mine(c3)", before="op mine(x) = conv_3x3(x)\nop mine(x) = conv_1x1(x)"),
    decoder("output p3 = mine(c3)", before="op mine(x) = conv_3x3(x)\nop yours(x) = conv_1x1(x)"),
)

RECURSIVE = Code(
    "NAS207",
    "an op that calls itself",
    "An op is expanded where it is called, so it cannot call itself, neither directly nor by way of others. For a chain "
    "of layers use `repeat` in a block.",
    decoder("output p3 = deep(c3)", before="op deep(x) = deep(conv_3x3(x))"),
    decoder("output p3 = deep(c3)", before="op deep(x) = conv_3x3(conv_3x3(x))"),
)

UNKNOWN_DETECTOR = Code(
    "NAS208",
    "an unknown kind of prediction",
    "`predict fcos(centerness=cls|box|none, boxes=exp|relu)` and `predict atss(…)` predict at locations, `gfl(bins=16)` "
    "and `tal(bins=16)` too, with each side as a distribution, `retinanet(anchors=9)` at anchors. A package "
    "can add kinds by entry points of the group `nasdsl.predictions`.",
    decoder(predict="predict focs(centerness=cls)"),
    decoder(predict="predict fcos(centerness=cls)"),
)

UNKNOWN_BACKBONE = Code(
    "NAS209",
    "an unknown backbone",
    "`detector(backbone=…)` names one of the backbones that come with the package, or in double quotes a model of timm: "
    '`backbone="timm:resnet18"`. Names that are no word of a text stand in double quotes too: `backbone="resnet50_v1.5"`.',
    decoder(inputs="input c3, c4\n  detector(backbone=mobilenet_v3)"),
    decoder(inputs="input c3, c4\n  detector(backbone=mobilenet_v2)"),
)

MISSING_INPUT = Code(
    "NAS210",
    "an input that the backbone lacks",
    "A decoder that names its backbone can read only the features that this backbone gives. (Models of timm are looked up "
    "when the decoder is built.)",
    decoder(inputs="input c3, c4, c6\n  detector(backbone=tiny)"),
    decoder(inputs="input c3, c4, c5\n  detector(backbone=tiny)"),
)

# ------------------------------------------------------------------------------------------------ messages


def suggestion(guess: str | None) -> str:
    """The help line for a misspelled word; empty where there is no guess."""
    return f"did you mean `{guess}`?" if guess else ""


def unknown_op(span: Span, name: str, known: Iterable[str], *, is_value: bool, fixable: bool) -> Diagnostic:
    """A call of something that nothing defines.

    Args:
        known: names that can be called; empty to look for no misspelling.
        is_value: a value has this name.
        fixable: `span` is the name itself, so that the guess can be put in its place.
    """
    help, guess = (f"`{name}` is a value, and only ops are called", None) if is_value else advice_on_op(name, known)
    label = "no op, aggregation, block or primitive has this name"
    return UNKNOWN_OP(span, f"unknown op `{name}`", label=label, help=help, fix=guess if fixable else None)


def unknown_adapter(span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    """``adapter=`` names neither an op nor ``none``."""
    guess = did_you_mean(name, ["none", *known])
    return UNKNOWN_OP(span, f"unknown op `{name}`", label="expected an op, or none", help=suggestion(guess), fix=guess)


def unknown_value(
    span: Span, name: str, scope: Collection[str], *, is_op: bool = False, is_feature: bool = False, guess: bool = True,
    fixable: bool = True,
) -> Diagnostic:  # fmt: skip
    """A name that no value in scope has.

    Args:
        scope: names of the values in scope.
        is_op: an op has this name.
        is_feature: it is a backbone feature (c1 to c7) that the decoder does not name as an input.
        guess: look for a misspelling.
        fixable: `span` is the name itself, so that the guess can be put in its place.
    """
    found = None
    if is_op:
        help = f"`{name}` is an op: `{name}(…)` applies it"
    elif is_feature:
        help = f"a backbone feature is named first: `input {name}, …`"
    else:
        found = did_you_mean(name, scope) if guess else None
        help = suggestion(found)
    label = _expected_names(scope) if scope else "nothing is in scope here"
    return UNKNOWN_VALUE(span, f"no value is called `{name}`", label=label, help=help, fix=found if fixable else None)


def _expected_names(scope: Iterable[str]) -> str:
    return _expected_one_of(*islice(filter(str.isidentifier, scope), 9))  # the parser's recovery makes up others


@lru_cache(maxsize=16)
def _expected_one_of(*names: str) -> str:
    """The label that lists names, of more than eight the first eight: one text for many diagnostics about one scope."""
    return "expected one of " + ", ".join(f"`{name}`" for name in names[:8]) + (", …" if len(names) > 8 else "")


def forward(span: Span, name: str, bound: Span) -> Diagnostic:
    """A value that is read above the statement that binds it, or in that statement."""
    if bound.start < span.start:
        return FORWARD(
            span, f"`{name}` is used in the statement that binds it", label="not known yet here",
            help="only inside `repeat` may a statement read what it binds, once it is bound above",
        )  # fmt: skip
    return FORWARD(
        span, f"`{name}` is used before it is bound", label="not known yet here", related=[(bound, "bound here")],
        help="move the statement that binds it up",
    )  # fmt: skip


def shared_elsewhere(span: Span, name: str, defined: Span) -> Diagnostic:
    """A call of a `shared` op above its statement, in it, or behind the turn of a `repeat` that it belongs to."""
    return FORWARD(
        span, f"the shared op `{name}` cannot be called here", label="not known here", related=[(defined, "defined here")],
        help="it is known below its statement; one of a `repeat` is another one in each turn, and known in this turn only",
    )  # fmt: skip


def value_bound_twice(span: Span, name: str, first: Span) -> Diagnostic:
    return BOUND_TWICE(
        span, f"`{name}` is bound twice", label="second binding", related=[(first, "first binding")],
        help="give it another name; only inside `repeat` may a name be bound again",
    )  # fmt: skip


def output_bound_twice(span: Span, name: str, first: Span) -> Diagnostic:
    return BOUND_TWICE(
        span, f"the output `{name}` is bound twice", label="second binding", related=[(first, "first binding")]
    )  # fmt: skip


def output_named_as_value(span: Span, name: str, first: Span) -> Diagnostic:
    return BOUND_TWICE(
        span, f"`{name}` is bound twice", label="second binding", related=[(first, "first binding")],
        help=f"write `output {name} = …` in the place of the first, or give the value another name than the output",
    )  # fmt: skip


def input_named_twice(span: Span, name: str, first: Span) -> Diagnostic:
    return BOUND_TWICE(span, f"the input `{name}` is named twice", label="second time", related=[(first, "first time")])


def unknown_input(span: Span, name: str, guess: str | None) -> Diagnostic:
    return UNKNOWN_INPUT(
        span, f"no backbone feature is called `{name}`", label="expected c1 to c7: cK has stride 2^K",
        help=suggestion(guess), fix=guess,
    )  # fmt: skip


def defined_twice(span: Span, what: str, name: str, first: Span) -> Diagnostic:
    """`what` is the kind of the thing: op, parameter, choice."""
    return DEFINED_TWICE(
        span, f"the {what} `{name}` is defined twice", label="second definition", related=[(first, "first definition")],
        help="give one of them another name",
    )  # fmt: skip


def recursive(span: Span, name: str, circle: list[str]) -> Diagnostic:
    """`circle` is the chain of calls, from the op back to itself."""
    shown = circle if len(circle) <= 8 else [*circle[:4], "…", *circle[-3:]]
    return RECURSIVE(
        span, f"`{name}` calls itself: {' -> '.join(shown)}", label="an op is expanded where it is called; this never ends",
        help="use `repeat` in a block",
    )  # fmt: skip


def unbound_result(span: Span, block: str, name: str) -> Diagnostic:
    return UNKNOWN_VALUE(span, f"the block `{block}` binds no `{name}`", label="expected a name that its statements bind")


def unknown_detector(span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    known = list(known)
    guess = did_you_mean(name, known)
    expected = f"expected {', '.join(known[:-1])} or {known[-1]}"
    return UNKNOWN_DETECTOR(span, f"unknown detector `{name}`", label=expected, help=suggestion(guess), fix=guess)


def unknown_backbone(span: Span, name: str, known: Collection[str]) -> Diagnostic:
    """`span` is the value in the text."""
    guess = did_you_mean(name, known)
    fix = None
    if guess is not None:
        fix = guess if guess.isidentifier() else f'"{guess}"'
    return UNKNOWN_BACKBONE(
        span, f"unknown backbone `{name}`", label=f'expected one of {", ".join(known)}, or "timm:NAME"',
        help=suggestion(fix), fix=fix,
    )  # fmt: skip


def missing_input(span: Span, feature: str, backbone: str, given: Iterable[str], named: Span) -> Diagnostic:
    """`span` is the backbone in the text, `named` the input."""
    return MISSING_INPUT(
        span, f"the backbone `{backbone}` has no feature `{feature}`", label=f"it gives {', '.join(given)}",
        related=[(named, "read here")],
    )  # fmt: skip
