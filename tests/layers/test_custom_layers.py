"""Primitives of packages: their attributes, and classes that break the contract, each named with its class and field."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, get_args
from unittest import mock

import pytest
from click.testing import CliRunner

import nasdsl
from nasdsl.cli import cli, main
from nasdsl.decoder import Decoder, check_source
from nasdsl.diagnostics import Diagnostic, DiagnosticError, Source
from nasdsl.layers import CUSTOM, Cost, CustomLayer, Feature, LayerError, PrimitiveError, custom, primitive
from nasdsl.layers.custom import attribute_texts, layer_fields
from nasdsl.layers.fields import SECTION_WORDS
from nasdsl.semantics.primitives import ACTIVATIONS, PRIMITIVES, SECTION
from nasdsl.studio.messages import answer


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with mock.patch.dict(CUSTOM, clear=True):
        yield


def text(call: str, before: str = "") -> str:
    return (
        f"{before}decoder d {{\n  input c3, c4\n  fpn(width=64, norm=bn) {{ output p3 = {call} }}\n"
        "  head(width=64, norm=gn) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


def only(source: str) -> Diagnostic:
    found = check_source(Source("t.nas", source)).problems
    assert len(found) == 1, [f"{d.code} {d.message}" for d in found]
    return found[0]


class Same(CustomLayer):
    """Rules of a layer that leaves a feature as it is; a base for the classes below."""

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        return inputs[0]

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        return Cost()

    def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
        from torch import nn

        return nn.Identity()


def layer_of(decoder: Decoder) -> CustomLayer:
    found = [node.layer for node in decoder.lower({"c3": 8, "c4": 8}).nodes if isinstance(node.layer, CustomLayer)]
    assert len(found) == 1
    return found[0]


# ------------------------------------------------------------------------------------------------------- attributes


def drop() -> type[Same]:
    @primitive("drop")
    @dataclass(frozen=True, slots=True)
    class Drop(Same):
        p: float = 0.5
        scale: float = 1
        count: int = 2
        limit: int | None = None
        ratio: float | None = None
        inplace: bool = False
        mode: Literal["channel", "patch"] = "channel"
        kernel: str = field(default="flat", metadata={"words": ("flat", "hann")})
        groups: int = field(default_factory=lambda: 3)

    return Drop


DEFAULTS = {
    "p": "0.5", "scale": "1.0", "count": "2", "limit": "none", "ratio": "none", "inplace": "false", "mode": "channel",
    "kernel": "flat", "groups": "3",
}  # fmt: skip

SETTINGS: dict[str, tuple[str, Any, str]] = {
    "a float": ("p=0.25", 0.25, "0.25"),
    "a whole number for a float": ("p=1", 1.0, "1.0"),
    "a negative float": ("p=-0.5", -0.5, "-0.5"),
    "zero": ("p=0", 0.0, "0.0"),
    "arithmetic": ("p=1 - 0.9", 1 - 0.9, "0.09999999999999998"),
    "a small float": ("p=0.00001", 0.00001, "0.00001"),
    "a large float": ("p=1500000000000000.5", 1500000000000000.5, "1500000000000000.5"),
    "the largest": ("p=999999999999999 * 1000", 999999999999999000.0, "999999999999999000"),
    "less than nothing at zero": ("p=-0.0", 0.0, "0.0"),
    "with a suffix": ("p=1.5K", 1500.0, "1500.0"),
    "17 digits": ("p=0.1 + 0.2", 0.1 + 0.2, "0.30000000000000004"),
    "an int": ("count=7", 7, "7"),
    "a number for what may be None": ("limit=4", 4, "4"),
    "a float for what may be None": ("ratio=0.5", 0.5, "0.5"),
    "none": ("limit=none", None, "none"),
    "true": ("inplace=true", True, "true"),
    "a word of a Literal": ("mode=patch", "patch", "patch"),
    "a word of the metadata": ("kernel=hann", "hann", "hann"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_an_attribute_arrives_as_its_type_and_is_printed_as_the_language_writes_it(name: str) -> None:
    drop()
    setting, value, printed = SETTINGS[name]
    attribute = setting.partition("=")[0]
    decoder = nasdsl.loads(text(f"drop(c3, {setting})"))
    layer = layer_of(decoder)
    found = getattr(layer, attribute)
    assert type(found) is type(value)
    assert found == value
    assert attribute_texts(layer) == DEFAULTS | {attribute: printed}
    assert f"{attribute}={printed}" in decoder.canonical
    again = nasdsl.loads(decoder.canonical)
    assert (layer_of(again), again.digest, again.canonical) == (layer, decoder.digest, decoder.canonical)


def test_defaults_are_those_of_the_class() -> None:
    made = drop()()
    layer = layer_of(nasdsl.loads(text("drop(c3)")))
    assert layer == dataclasses.replace(made, scale=1.0)
    assert type(layer.scale) is float  # type: ignore[attr-defined]  # a field of its class
    assert attribute_texts(layer) == DEFAULTS


def test_one_value_has_one_digest_however_it_is_written() -> None:
    drop()
    settings = "scale=1", "scale=1.0", "scale=0.5 + 0.5", "count=2"
    assert len({nasdsl.loads(text(f"drop(c3, {s})")).digest for s in settings}) == 1


REFUSED: dict[str, tuple[str, str]] = {
    "a word for a float": ("p=high", "expected a number"),
    "a float for an int": ("count=1.5", "expected a whole number"),
    "a negative int": ("count=-1", "expected a whole number"),
    "none for what is never None": ("p=none", "expected a number"),
    "a number for a bool": ("inplace=1", "true or false"),
    "an unknown word": ("mode=pixel", "expected channel or patch"),
    "a number beyond": ("p=999999999999999999 * 1.5", "more than 18 digits"),
    "a number of 19 digits": ("p=1000000000 * 1000000000", "expected a number"),
    "a number too fine": ("p=0.0000000000000000001 * 0.0000000000000000000001", "expected a number"),
    "an attribute that is not there": ("q=1", "expected one of `p`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_a_field_does_not_take_is_a_finding_at_its_place(name: str) -> None:
    drop()
    setting, expected = REFUSED[name]
    source = text(f"drop(c3, {setting})")
    found = only(source)
    assert expected in f"{found.label} {found.message}"
    assert source.index(setting) <= found.span.start < source.index(setting) + len(setting)


def test_a_field_without_a_default_must_be_set() -> None:
    @primitive("need")
    @dataclass(frozen=True, slots=True)
    class Need(Same):
        p: float
        limit: int | None

    assert [(f.required, f.default) for f in layer_fields(Need)] == [(True, None)] * 2
    found = check_source(Source("t.nas", text("need(c3)"))).problems
    assert [(d.code, d.message) for d in found] == [
        ("NAS304", "`need` needs `p`"),
        ("NAS304", "`need` needs `limit`"),
    ]
    decoder = nasdsl.loads(text("need(c3, p=0.5, limit=none)"))
    assert layer_of(decoder) == Need(0.5, None)
    assert "p=0.5, limit=none" in decoder.canonical


def test_attributes_can_be_set_through_an_op_and_a_let() -> None:
    drop()
    through = text("mine(c3, rate=0.125)", before="op mine(x, rate=0.5) = drop(x, p=rate, limit=none)\n")
    assert layer_of(nasdsl.loads(through)).p == 0.125  # type: ignore[attr-defined]  # a field of its class
    found = only(through.replace("rate=0.125", "rate=true"))
    assert "expected a number" in found.label


def test_values_that_the_class_refuses_are_a_finding_at_the_call() -> None:
    @primitive("picky")
    @dataclass(frozen=True, slots=True)
    class Picky(Same):
        p: float = 0.5

        def __post_init__(self) -> None:
            if not 0 <= self.p < 1:
                raise ValueError(f"p is {self.p}")

    nasdsl.loads(text("picky(c3, p=0.9)"))
    found = only(text("picky(c3, p=1.5)"))
    assert found.code == "NAS314"
    assert re.search(r"`picky` \(.*Picky\) takes no such attributes: ValueError: p is 1\.5", found.message)


def test_a_field_that_is_no_parameter_is_no_attribute() -> None:
    @primitive("twice")
    @dataclass(frozen=True)
    class Twice(Same):
        p: float = 0.5
        double: float = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "double", 2 * self.p)

    decoder = nasdsl.loads(text("twice(c3, p=0.25)"))
    assert layer_of(decoder).double == 0.5  # type: ignore[attr-defined]  # a field of its class
    assert nasdsl.loads(decoder.canonical).digest == decoder.digest
    assert only(text("twice(c3, double=2)")).code == "NAS302"


# --------------------------------------------------------------------------------------------------- classes refused


def with_field(annotation: Any, default: Any = dataclasses.MISSING, name: str = "p") -> Callable[[], object]:
    def make() -> object:
        given = (name, annotation) if default is dataclasses.MISSING else (name, annotation, default)
        return primitive("made")(dataclasses.make_dataclass("Made", [given], bases=(Same,), frozen=True))

    return make


WRONG_FIELDS: dict[str, tuple[Callable[[], object], str]] = {
    "a list": (with_field(list, field(default_factory=list)), "field `p`: its type is list"),
    "a tuple": (with_field(tuple[int, int], (1, 2)), "field `p`: its type is"),
    "anything": (with_field(Any, 3), "field `p`: its type is"),
    "two types": (with_field(int | str, 3), "field `p`: its type is"),
    "a Literal of numbers": (with_field(Literal[1, 2], 1), "field `p`: its type is"),
    "a name that only a type checker knows": (with_field("Unknown", 3), "field `p`: its type is Unknown"),
    "a list of types": (with_field([int], 3), "field `p`: its type is [<class 'int'>]"),
    "no type at all": (with_field(None, None), "field `p`: its type is"),
    "a word for a float": (with_field(float, "0.5"), "field `p`: its default is '0.5', and its type float"),
    "a float for an int": (with_field(int, 0.5), "field `p`: its default is 0.5, and its type int"),
    "a bool for an int": (with_field(int, True), "field `p`: its default is True, and its type int"),
    "a bool for a float": (with_field(float, True), "field `p`: its default is True, and its type float"),
    "an int for a bool": (with_field(bool, 1), "field `p`: its default is 1, and its type bool"),
    "None for an int": (with_field(int, None), "field `p`: its default is None, and its type int; expected `int | None`"),
    "a negative int": (with_field(int, -1), "field `p`: its default is -1; expected a whole number from 0"),
    "an int beyond": (with_field(int, 10**10), "field `p`: its default is 10000000000"),
    "not a number": (with_field(float, math.nan), "field `p`: its default is nan"),
    "infinity": (with_field(float, math.inf), "field `p`: its default is inf"),
    "too fine a float": (with_field(float, 1e-300), "field `p`: its default is 1e-300"),
    "a str without words": (with_field(str), "field `p`: it has no words"),
    "a word that is no name": (with_field(str, "3x3"), "field `p`: its value '3x3'"),
    "the empty word": (with_field(str, ""), "field `p`: its value ''"),
    "a word of the language": (with_field(str, "head"), "field `p`: its value 'head'"),
    "a word of the section": (with_field(Literal["norm", "other"], "other"), "field `p`: its value 'norm'"),
    "true as a word": (with_field(Literal["true", "auto"], "auto"), "field `p`: its value 'true'"),
    "none as a word and None": (with_field(Literal["none", "a"] | None, None), "field `p`: its value 'none'"),
    "a default that is none of the words": (
        with_field(str, field(default="c", metadata={"words": ("a", "b")})), "field `p`: its default is 'c'; expected one of"
    ),
    "words in one string": (with_field(str, field(default="a", metadata={"words": "abc"})), "field `p`: its words are 'abc'"),
    "a default that cannot be made": (with_field(int, field(default_factory=lambda: 1 // 0)), "field `p`: its default_factory"),
    "a word of the language as name": (with_field(int, 1, name="at"), "field `at`: this is a word of the language"),
    "a letter that no text has": (with_field(int, 1, name="größe"), "field `größe`: this is not a name"),
    "kind": (with_field(int, 1, name="kind"), "field `kind`: CustomLayer has an attribute of this name"),
    "infer": (with_field(int, 1, name="infer"), "field `infer`: CustomLayer has an attribute of this name"),
    "a rule that is optional": (with_field(int, 1, name="onnx"), "field `onnx`: CustomLayer has an attribute of this name"),
    "to": (with_field(int, 1, name="to"), "field `to`"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FIELDS)
def test_a_field_that_the_language_cannot_express_is_refused(name: str) -> None:
    make, message = WRONG_FIELDS[name]
    with pytest.raises(PrimitiveError, match=re.escape(message)) as caught:
        make()
    assert "Made" in str(caught.value)
    assert "made" not in CUSTOM


def test_an_init_var_is_refused() -> None:
    with pytest.raises(PrimitiveError, match="field `seed`: an InitVar"):

        @primitive("made")
        @dataclass(frozen=True)
        class Made(Same):
            seed: InitVar[int] = 0


def no_dataclass() -> object:
    class Made(Same):
        p: float = 0.5

    return primitive("made")(Made)


def dataclass_outside() -> object:
    @dataclass(frozen=True)
    @primitive("made")
    class Made(Same):
        pass

    return Made


def dataclass_of_the_base_only() -> object:
    @dataclass(frozen=True)
    class Base(Same):
        p: float = 0.5

    @primitive("made")
    class Made(Base):
        q: float = 0.5

    return Made


def mutable() -> object:
    @primitive("made")
    @dataclass
    class Made(Same):
        p: float = 0.5

    return Made


def by_identity() -> object:
    @primitive("made")
    @dataclass(frozen=True, eq=False)
    class Made(Same):
        p: float = 0.5

    return Made


def without(rule: str) -> Callable[[], object]:
    def make() -> object:
        rules = {r: vars(Same)[r] for r in ("infer", "cost", "module") if r != rule}
        return primitive("made")(dataclass(frozen=True)(type("Made", (CustomLayer,), rules)))

    return make


def unmakeable() -> object:
    @primitive("made")
    @dataclass(frozen=True)
    class Made(Same):
        p: float = 0.5

        def __post_init__(self) -> None:
            raise ValueError("never")

    return Made


register: Any = primitive("made")

WRONG_CLASSES: dict[str, tuple[Callable[[], object], str]] = {
    "no dataclass": (no_dataclass, "Made) is not a dataclass: put @dataclass(frozen=True, slots=True) below @primitive"),
    "the decorators in the other order": (dataclass_outside, "Made) is not a dataclass"),
    "only the base is a dataclass": (dataclass_of_the_base_only, "Made) is not a dataclass"),
    "mutable": (mutable, "Made) is not immutable"),
    "compared by identity": (by_identity, "Made) is not immutable, or not compared by value"),
    "no shape rule": (without("infer"), "Made) has no shape rule: define infer(self, inputs)"),
    "no cost rule": (without("cost"), "Made) has no cost rule: define cost(self, inputs, out, area)"),
    "cannot be made": (unmakeable, "Made) cannot be made with its defaults: ValueError: never"),
    "no CustomLayer": (lambda: register(dataclass(frozen=True)(type("Made", (), {}))), "not a subclass of CustomLayer"),
    "no class": (lambda: register(3), "3 is not a subclass of CustomLayer"),
}


@pytest.mark.parametrize("name", WRONG_CLASSES)
def test_a_class_that_breaks_the_contract_is_refused(name: str) -> None:
    make, message = WRONG_CLASSES[name]
    with pytest.raises(PrimitiveError, match=re.escape(message)):
        make()
    assert "made" not in CUSTOM


def named(name: Any, **more: Any) -> type[Same]:
    @primitive(name, **more)
    @dataclass(frozen=True)
    class Named(Same):
        pass

    return Named


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("repeat", "a word of the language"), ("3x", "not a name of the language"), ("a-b", "not a name"), ("", "not a name"),
        ("größe", "not a name"), (None, "not a name"), ("conv", "a built-in primitive"), ("relu", "a built-in primitive"),
        ("conv_3x3", "an op of the prelude"), ("sum", "an op of the prelude"),
    ],
)  # fmt: skip
def test_a_name_that_means_something_already_is_refused(name: Any, message: str) -> None:
    with pytest.raises(PrimitiveError, match=re.escape(f"the name {name!r} of the primitive")) as caught:
        named(name)
    assert message in str(caught.value)
    assert "Named" in str(caught.value)


def test_built_in_names_are_those_of_the_language() -> None:
    assert custom._builtin_primitives() == {*PRIMITIVES, "input", "result"}
    assert set(ACTIVATIONS) <= set(PRIMITIVES)
    assert set(SECTION) == set(SECTION_WORDS)


@pytest.mark.parametrize("operands", [0, -1, 65, True, 1.0, "2"])
def test_a_wrong_number_of_operands_is_refused(operands: Any) -> None:
    with pytest.raises(PrimitiveError, match="expected 1 to 64"):
        named("made", operands=operands)


def test_a_name_has_one_class_and_a_class_defined_again_is_the_same() -> None:
    first = named("made")
    again = named("made")  # as after a reload of its module
    assert CUSTOM["made"] is again is not first
    with pytest.raises(PrimitiveError, match=r"the name 'made' of the primitive .*Same2 is taken: it is .*Named already"):
        primitive("made")(dataclass(frozen=True)(type("Same2", (Same,), {})))
    twin = type("Named", (Same,), {"__module__": "another_package", "__qualname__": first.__qualname__})
    with pytest.raises(PrimitiveError, match="is taken"):
        primitive("made")(dataclass(frozen=True)(twin))


def test_a_module_that_is_run_as_a_script_defines_the_same_class_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of two modules that have no file are two."""

    def of(module: str) -> type[Same]:
        return primitive("made")(dataclass(frozen=True)(type("Named", (Same,), {"__module__": module})))

    monkeypatch.setitem(sys.modules, "a_script", SimpleNamespace(__file__=__file__))  # type: ignore[misc]  # enough of a module
    first = of(__name__)
    assert of("a_script") is CUSTOM["made"] is not first
    monkeypatch.delitem(CUSTOM, "made")
    of("without_a_file")
    with pytest.raises(PrimitiveError, match="is taken"):
        of("another_without_a_file")


# -------------------------------------------------------------------------------------------------------- rules


def with_rules(**rules: Any) -> None:
    primitive("made")(dataclass(frozen=True)(type("Made", (Same,), rules)))


def fails(*_: object) -> Any:
    raise ZeroDivisionError("in the package")


INFER: dict[str, tuple[Any, str]] = {
    "None": (lambda self, inputs: None, "infer returns None; expected a Feature"),
    "a tuple": (lambda self, inputs: (3, 64), "infer returns (3, 64); expected a Feature"),
    "a width of no whole number": (lambda self, inputs: Feature(3, 32.0), "infer returns Feature(level=3, width=32.0)"),  # type: ignore[arg-type]  # on purpose
    "a negative width": (lambda self, inputs: Feature(3, -1), "infer returns Feature(level=3, width=-1)"),
    "a level of no number": (lambda self, inputs: Feature("p3", 64), "infer returns Feature(level='p3', width=64)"),  # type: ignore[arg-type]  # on purpose
    "no width": (lambda self, inputs: Feature(3, 0), "although the width of every operand is known"),
    "an exception": (fails, "fails in infer: ZeroDivisionError: in the package"),
    "too few parameters": (lambda self: None, "fails in infer: TypeError"),
}
COST: dict[str, tuple[Any, str]] = {
    "an int": (lambda self, inputs, out, area: 0, "cost returns 0; expected a Cost"),
    "None": (lambda self, inputs, out, area: None, "cost returns None; expected a Cost"),
    "a tuple": (lambda self, inputs, out, area: (0, 0, 0), "cost returns (0, 0, 0); expected a Cost"),
    "fractions": (lambda self, inputs, out, area: Cost(0.5, 0), "cost returns Cost(macs=0.5"),  # type: ignore[arg-type]  # on purpose
    "less than nothing": (lambda self, inputs, out, area: Cost(-1), "cost returns Cost(macs=-1"),
    "an exception": (fails, "fails in cost: ZeroDivisionError: in the package"),
}


@pytest.mark.parametrize(("rule", "name"), [("infer", n) for n in INFER] + [("cost", n) for n in COST])
def test_a_rule_that_fails_is_a_finding_at_the_call(rule: str, name: str, tmp_path: Path) -> None:
    function, message = (INFER if rule == "infer" else COST)[name]
    with_rules(**{rule: function})
    source = text("made(c3)")
    found = only(source)
    assert (found.code, found.span.text) == ("NAS314", "made(c3)")
    assert re.search(r"the primitive `made` \(.*Made\)", found.message)
    assert message in found.message
    path = tmp_path / "t.nas"
    path.write_text(source)
    for arguments in (["check", str(path)], ["compile", str(path)], ["render", str(path)]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "NAS314" in result.stderr
    report = json.loads(CliRunner().invoke(cli, ["check", "--format", "json", str(path)]).stdout)
    assert [d["code"] for d in report["diagnostics"]] == ["NAS314"]


@pytest.mark.parametrize("name", COST)
def test_a_cost_rule_that_fails_is_found_when_the_width_is_known(name: str) -> None:
    """A raw backbone feature has no width before lowering."""
    with_rules(cost=COST[name][0])
    raw = text("conv_1x1(made(c3))").replace("norm=bn)", "norm=bn, adapter=none)")
    assert check_source(Source("t", raw)).problems == []
    decoder = nasdsl.loads(raw)
    with pytest.raises(DiagnosticError) as caught:
        decoder.cost()
    assert COST[name][1] in str(caught.value)


def test_a_requirement_over_a_cost_rule_that_fails_for_large_maps_only() -> None:
    with_rules(cost=lambda self, inputs, out, area: Cost() if area == 1 else 0)
    decoder = nasdsl.loads(text("made(c3)"))
    with pytest.raises(PrimitiveError, match=r"`made` \(.*Made\): cost returns 0"):
        decoder.cost()


def test_a_module_rule_that_fails_names_its_class() -> None:
    for rule, message in (
        (fails, "fails in module: ZeroDivisionError: in the package"),
        (lambda self, inputs, out: None, "module returns None; expected a torch.nn.Module"),
        (lambda self, inputs, out: "nn.Identity()", "module returns 'nn.Identity()'; expected a torch.nn.Module"),
    ):
        with_rules(module=rule)
        with pytest.raises(PrimitiveError, match=r"the primitive `made` \(.*Made\)") as caught:
            nasdsl.loads(text("made(c3)")).build({"c3": 8, "c4": 8}, 2)
        assert message in str(caught.value)
    without("module")()
    with pytest.raises(PrimitiveError, match="has no module: define module"):
        nasdsl.loads(text("made(c3)")).build({"c3": 8, "c4": 8}, 2)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"source": fails}, "fails in source: ZeroDivisionError: in the package"),
        ({"source": lambda self, inputs, out: None}, "source returns None; expected a str"),
        ({"cost": lambda self, inputs, out, area: Cost() if area == 1 else 0}, "cost returns 0"),
    ],
)
def test_the_program_names_the_class_and_no_internal_error(
    rules: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_rules(**rules)
    (tmp_path / "t.nas").write_text(text("made(c3)"))
    monkeypatch.setattr(sys, "argv", ["nasdsl", "compile", str(tmp_path / "t.nas"), "-o", str(tmp_path / "t.py")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.search(r"nasdsl: the primitive `made` \(.*Made\)", said)
    assert message in said
    assert "internal error" not in said


def test_a_layer_without_source_is_named_where_source_is_asked_for(tmp_path: Path) -> None:
    with_rules()
    (tmp_path / "t.nas").write_text(text("made(c3)"))
    done = CliRunner().invoke(cli, ["compile", str(tmp_path / "t.nas"), "-o", str(tmp_path / "t.py")])
    said = "Made) does not say how it is written as source: define source(self, inputs, out)"
    assert (done.exit_code, done.stderr.startswith("nasdsl: the primitive `made` (")) == (2, True)
    assert done.stderr.endswith(f"{said}\n")
    assert not (tmp_path / "t.py").exists()
    assert answer({"kind": "source", "text": text("made(c3)")})["error"].endswith(said)


def test_of_an_exception_without_words_only_its_class_is_said() -> None:
    with_rules(infer=lambda self, inputs: next(iter(())))
    assert only(text("made(c3)")).message.endswith(") fails in infer: StopIteration")


def test_a_rule_that_asks_the_base_class_is_told_to_be_defined() -> None:
    with_rules(infer=lambda self, inputs: CustomLayer.infer(self, inputs))
    assert only(text("made(c3)")).message.endswith("Made) has no shape rule: define infer(self, inputs)")
    with_rules(cost=lambda self, inputs, out, area: CustomLayer.cost(self, inputs, out, area))
    assert only(text("made(c3)")).message.endswith("Made) has no cost rule: define cost(self, inputs, out, area)")


def test_what_stands_beside_a_type_for_other_readers_is_passed_over() -> None:
    with_field(Annotated[int, "in pixels"], 3)()
    assert nasdsl.loads(text("made(c3)")).digest == nasdsl.loads(text("made(c3, p=3)")).digest
    assert only(text("made(c3, p=half)")).message == "`made` does not take `p=half`"


def test_a_layer_error_stays_what_the_class_says() -> None:
    def infer(self: CustomLayer, inputs: Sequence[Feature]) -> Feature:
        raise LayerError("any", "too wide")

    with_rules(infer=infer)
    assert only(text("made(c3)")).message == "too wide"


def test_rules_are_called_once_for_each_call() -> None:
    calls: list[str] = []

    class Counted(Same):
        def infer(self, inputs: Sequence[Feature]) -> Feature:
            calls.append("infer")
            return inputs[0]

    primitive("one")(dataclass(frozen=True)(type("One", (Counted,), {})))
    two = primitive("two")(dataclass(frozen=True)(type("Two", (CUSTOM["one"],), {})))  # inherits a rule that is wrapped
    two().infer([Feature(3, 8)])
    assert calls == ["infer"]
    assert two.infer is CUSTOM["one"].infer


def test_every_type_of_a_field_is_tried() -> None:
    tried = {f.type for f in layer_fields(drop())}
    from nasdsl.layers.fields import FieldType

    assert tried == set(get_args(FieldType))
