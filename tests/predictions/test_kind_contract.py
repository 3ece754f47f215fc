"""What `@prediction` refuses, in one process: kinds of installed packages are in tests/layers/test_example_plugin.py."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.predictions import KINDS, PredictedMap, PredictionError, PredictionKind, kind_fields, prediction
from nasdsl.predictions.kind import checked_maps


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with mock.patch.dict(KINDS):
        yield


class Plain(PredictionKind):
    """Classes and four sides."""

    __slots__ = ()

    method = "somewhere:Plain"

    def maps(self) -> tuple[PredictedMap, ...]:
        return PredictedMap("cls_logits", "cls", per_class=1), PredictedMap("bbox_reg", "box", fixed=4)


def with_field(name: str, annotation: Any = int, default: Any = 1) -> type[PredictionKind]:
    made = dataclasses.make_dataclass("Made", [(name, annotation, default)], bases=(Plain,), frozen=True)
    return prediction("made")(made)


@pytest.mark.parametrize("name", ["operands", "cost", "source", "definitions"])
def test_attributes_of_primitives_are_free(name: str) -> None:
    assert [field.name for field in kind_fields(with_field(name))] == [name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kind", "field `kind`: PredictionKind has an attribute of this name; rename the field"),
        ("text", "field `text`: PredictionKind has an attribute of this name; rename the field"),
        ("box_form", "field `box_form`: PredictionKind has an attribute of this name; rename the field"),
        ("kernel", "every kind has `kernel` already; rename the field"),
        ("at", "field `at`: this is a word of the language; rename the field"),
    ],
)
def test_names_that_are_taken(name: str, message: str) -> None:
    with pytest.raises(PredictionError, match=re.escape(message)) as caught:
        with_field(name)
    assert "Made" in str(caught.value)
    assert "made" not in KINDS


@pytest.mark.parametrize("method", ["Plain", "somewhere:", ":Plain", "", None, Plain])
def test_a_method_that_names_no_class(method: Any) -> None:
    made = dataclasses.make_dataclass("Made", [], bases=(Plain,), frozen=True, namespace={"method": method})
    with pytest.raises(PredictionError, match=re.escape(f"has method={method!r}; expected 'package.module:Class'")):
        prediction("made")(made)
    assert "made" not in KINDS


class Silent(PredictionKind):
    __slots__ = ()

    method = "somewhere:Plain"


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("made", int, "the prediction `made` (builtins.int) is no subclass of PredictionKind"),
        ("made", Plain(), "is no subclass of PredictionKind"),
        ("1st", Plain, "the prediction `1st` (test_kind_contract.Plain): its name is not a name of the language: letters"),
        ("made", type("Loose", (Plain,), {}), "is no frozen dataclass: put @dataclass(frozen=True, slots=True) below"),
        ("made", dataclasses.make_dataclass("Loose", [], bases=(Plain,)), "is no frozen dataclass"),
        ("made", dataclasses.make_dataclass("Quiet", [], bases=(Silent,), frozen=True),
         "does not say what is predicted: define maps(self)"),
    ],
)  # fmt: skip
def test_what_is_no_kind_of_prediction(name: str, cls: Any, message: str) -> None:
    with pytest.raises(PredictionError, match=re.escape(message)):
        prediction(name)(cls)
    assert name not in KINDS


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        ([], "predicts nothing; expected cls_logits, bbox_reg, and perhaps centerness"),
        ([PredictedMap("cls_logits", "cls", per_class=1)], "predicts cls_logits; expected cls_logits, bbox_reg"),
    ],
)
def test_maps_that_no_detector_can_use(maps: list[PredictedMap], says: str) -> None:
    made = dataclasses.make_dataclass("Made", [], bases=(Plain,), frozen=True, namespace={"maps": lambda self: maps})
    prediction("made")(made)
    with pytest.raises(PredictionError, match=re.escape(f"Made) {says}")):
        checked_maps(made())


class Careful(Plain):
    __slots__ = ()

    def __post_init__(self) -> None:
        if self.size > 4:  # type: ignore[attr-defined]  # a field of what is made of it
            raise ValueError("at most 4")


def test_values_that_a_kind_refuses_are_a_finding() -> None:
    prediction("made")(dataclasses.make_dataclass("Made", [("size", int)], bases=(Careful,), frozen=True))
    text = "decoder d { input c3 fpn(width=8) { output p3 = c3 } head(width=8) { conv_3x3 } predict made(size=SIZE) }"
    assert check_source(Source("t", text.replace("SIZE", "4"))).problems == []
    assert check_source(Source("t", text.replace("SIZE", "?(1..4)"))).problems == []  # one value has to do for what is certain
    (problem,) = check_source(Source("t", text.replace("SIZE", "5"))).problems
    assert (problem.span.text, problem.severity) == ("made", "error")
    assert problem.message.endswith("Made) takes no such attributes: ValueError: at most 4")


def test_a_kind_that_asks_its_base_class_what_is_predicted_is_told_to_say_it() -> None:
    namespace = {"maps": lambda self: PredictionKind.maps(self)}
    made = prediction("made")(dataclasses.make_dataclass("Made", [], bases=(Plain,), frozen=True, namespace=namespace))
    with pytest.raises(PredictionError, match=r"Made\) does not say what is predicted: define maps\(self\)"):
        checked_maps(made())
    assert made().method_options() == {}


def test_a_module_that_is_run_as_a_script_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its class is registered twice, under two names of one file; a class of another file keeps its name."""
    first = with_field("one")
    for module, file in (("as_module", "kinds.py"), ("__main__", "kinds.py"), ("other", "other.py")):
        made = types.ModuleType(module)
        made.__file__ = file
        monkeypatch.setitem(sys.modules, module, made)
    first.__module__ = "as_module"
    again = dataclasses.make_dataclass("Made", [], bases=(Plain,), frozen=True)
    again.__module__ = "__main__"
    assert KINDS["made"] is first
    assert prediction("made")(again) is KINDS["made"]
    again = dataclasses.make_dataclass("Made", [], bases=(Plain,), frozen=True)
    again.__module__ = "other"
    with pytest.raises(PredictionError, match=r"the name is taken, by __main__\.Made"):
        prediction("made")(again)


def test_a_method_that_is_not_complete_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a detector is built, and not in its first training step."""
    from nasdsl.detection.detector import DetectorError
    from nasdsl.detection.method import Method

    @dataclasses.dataclass(frozen=True, slots=True)
    class Half(Method):
        score_threshold: float = 0.05
        candidates: int = 1000
        nms: float = 0.6

        def level_candidates(self, predictions: Any) -> list[Any]:
            return []

    module = types.ModuleType("somewhere")
    module.Plain = Half  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "somewhere", module)
    with_field("size")
    text = """decoder d { input c3 fpn(width=8) { output p3 = conv_1x1(c3) } head(width=8) { conv_3x3 } predict made }"""
    message = "Made): its method somewhere:Plain does not define loss_terms, targets, detections"
    with pytest.raises(DetectorError, match=re.escape(message)):
        nasdsl.detector(nasdsl.loads(text), "tiny", classes=1)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "its method somewhere:Plain cannot be imported: AttributeError: module 'somewhere' has no attribute 'Plain'"),
        ({"Plain": print}, "its method somewhere:Plain is no dataclass derived from Method"),
        ({"Plain": Plain}, "its method somewhere:Plain is no dataclass derived from Method"),
        (None, "its method somewhere:Plain cannot be imported: ModuleNotFoundError: "),
    ],
)
def test_a_method_that_cannot_be_used_is_named(
    found: dict[str, Any] | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nasdsl.detection.detector import DetectorError

    module = types.ModuleType("somewhere")
    vars(module).update(found or {})
    monkeypatch.setitem(sys.modules, "somewhere", None if found is None else module)
    with_field("size")
    text = "decoder d { input c3 fpn(width=8) { output p3 = conv_1x1(c3) } head(width=8) { conv_3x3 } predict made }"
    with pytest.raises(DetectorError, match=re.escape(f"Made): {message}")):
        nasdsl.detector(nasdsl.loads(text), "tiny", classes=1)


def test_a_method_that_does_not_say_how_it_is_written_is_named_when_it_is_exported() -> None:
    from nasdsl.backends.export import ExportError
    from nasdsl.detection.method import Method

    class Mute(Method):
        level_candidates = loss_terms = targets = None  # type: ignore[assignment]  # none is called

    mute: Any = object.__new__(Mute)
    name = re.escape(f"{__name__}.{Mute.__qualname__} does not say how its boxes are written as ")
    with pytest.raises(ExportError, match=f"^{name}ONNX: define write_boxes"):
        mute.write_boxes(None, "p3", None, "values")
    with pytest.raises(ExportError, match=f"^{name}source: define source"):
        mute.source({"p3": 8})
