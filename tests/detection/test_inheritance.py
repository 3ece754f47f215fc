"""What a detector inherits from another one: names leave no trace, what differs begins anew, and all of it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import random_decoders
import torch
from small_detectors import FCOS, IMPROVED, RETINANET, TEXT, body, random_images
from torch import Tensor

from nasdsl import loads
from nasdsl.detection.detector import Detector, DetectorError
from nasdsl.detection.factory import detector
from nasdsl.detection.inheritance import Origin, inherit
from nasdsl.detection.inheritance_result import Inheritance, Part
from nasdsl.detection.weights import load_weights, save_detector


def made(text: str, seed: int, classes: Any = 3, **options: Any) -> Detector:
    """A detector whose every parameter is random, those that begin as constants as well."""
    torch.manual_seed(seed)
    options = {"backbone": body(norm=True), "min_size": 64, "max_size": 96, **options}
    model = detector(loads(text), classes=classes, **options).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def pass_on(source: Detector, target: Detector, **origin: Any) -> Inheritance:
    known = {"graph": source.decoder.graph, "classes": source.classes, **origin}
    return inherit(target, source.state_dict(), Origin(**known), "model.pt")


def outputs(model: Detector) -> list[Tensor]:
    with torch.no_grad():
        inputs = model.prepare(random_images((64, 96)))
        predictions = model.decoder(model.backbone(inputs.images))
    return [tensor for level in predictions.values() for tensor in level if tensor is not None]


def same_outputs(left: Detector, right: Detector) -> None:
    for one, other in zip(outputs(left), outputs(right), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, equal_nan=True)


def parts(result: Inheritance) -> dict[str, tuple[int, int]]:
    return {part.name: (part.inherited, part.total) for part in result.parts}


def plain(text: str = TEXT, predict: str = FCOS) -> str:
    return text.replace("PREDICT", predict)


# ------------------------------------------------------------------------------------------------ the same decoder


@pytest.mark.parametrize("seed", range(5))
def test_a_decoder_in_other_words_inherits_everything(seed: int) -> None:
    """Random decoders in their canonical text: other names, another order of statements and operands, other towers' indices."""
    text = random_decoders.text(seed)
    source, target = made(text, 1), made(loads(text).canonical, 2)
    assert [key for key in source.state_dict() if "fpn" in key] != [key for key in target.state_dict() if "fpn" in key]
    result = pass_on(source, target)
    assert result.is_complete, str(result)
    assert (result.unused, result.inherited) == (0, sum(p.numel() for p in target.parameters()))
    same_outputs(source, target)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5, 48))
def test_more_decoders_in_other_words(seed: int) -> None:
    test_a_decoder_in_other_words_inherits_everything(seed)


TWINS = """decoder twins {{
  input c3
  fpn(width=32, norm=none, act=none, adapter=none) {{
    {statements}
  }}
  head(width=32, norm=none) {{ conv_3x3 }}
  predict fcos()
}}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Twins that are read differently.
        ("a = conv_1x1(c3); b = conv_1x1(c3); output p3 = concat(conv_3x3(a), conv_1x1(b)), p4 = down(p3)",
         "b = conv_1x1(c3); a = conv_1x1(c3); output p3 = concat(conv_3x3(b), conv_1x1(a)), p4 = down(p3)"),
        # Symmetrical twins, in pairs.
        ("a = conv_1x1(c3); b = conv_1x1(c3); c = conv_3x3(a); d = conv_3x3(b); output p3 = weighted_add(c, d), p4 = down(p3)",
         "b = conv_1x1(c3); a = conv_1x1(c3); d = conv_3x3(a); c = conv_3x3(b); output p3 = weighted_add(d, c), p4 = down(p3)"),
        # Two pairs of twins, read in the other combination.
        ("a = conv_1x1(c3); b = conv_1x1(c3); e = conv_3x3(c3); f = conv_3x3(c3); x = conv_3x3(add(a, e)); "
         "y = conv_3x3(add(b, f)); output p3 = weighted_add(x, y), p4 = down(p3)",
         "a = conv_1x1(c3); b = conv_1x1(c3); e = conv_3x3(c3); f = conv_3x3(c3); x = conv_3x3(add(a, f)); "
         "y = conv_3x3(add(b, e)); output p3 = weighted_add(x, y), p4 = down(p3)"),
        # Of operands with weights of their own, the order is another.
        ("a = conv_1x1(c3); b = conv_3x3(c3); e = weighted_add(a, b, sep_3x3(a)); output p3 = conv_1x1(e), p4 = down(p3)",
         "b = conv_3x3(c3); a = conv_1x1(c3); e = weighted_add(sep_3x3(a), b, a); output p3 = conv_1x1(e), p4 = down(p3)"),
        # Equal nodes without parameters are one.
        ("c = conv_1x1(c3); r = relu(c); s = relu(c); e = weighted_add(r, conv_1x1(s), r); output p3 = skip(e), p4 = down(p3)",
         "c = conv_1x1(c3); t = relu(c); e = weighted_add(conv_1x1(t), t, t); output p3 = skip(e), p4 = down(p3)"),
    ],
    ids=["twins", "pairs", "combination", "order", "merged"],
)  # fmt: skip
def test_twins_and_operands_in_another_order(before: str, after: str) -> None:
    before, after = (TWINS.format(statements=s.replace("; ", "\n    ")) for s in (before, after))
    if "concat" in before:
        before, after = (text.replace("concat(", "conv_1x1(concat(").replace("), p4", ")), p4") for text in (before, after))
    assert loads(before).digest == loads(after).digest
    source, target = made(before, 1), made(after, 2)
    assert pass_on(source, target).is_complete
    same_outputs(source, target)


# ------------------------------------------------------------------------------------------------ parts in common


def test_a_changed_statement() -> None:
    """All but the changed layer is inherited: what is above it by its sub-graph, what is below it by its name."""
    text = plain().replace("conv_3x3(m4)", "conv_3x3(relu(m4))").replace("l4 = conv_1x1(c4)", "l4 = conv_3x3(c4)")
    for names in ({}, {"l3": "a", "l5": "b"}):  # renamed above the change
        renamed = text
        for old, new in names.items():
            renamed = renamed.replace(old, new)
        source, target = made(plain(), 1), made(renamed, 2)
        before = target.state_dict()["decoder.fpn.l4.conv.weight"].clone()
        result = pass_on(source, target)
        assert torch.equal(target.state_dict()["decoder.fpn.l4.conv.weight"], before)
        changed = sum(v.numel() for k, v in target.state_dict().items() if k.startswith("decoder.fpn.l4."))
        total = result.total
        assert (result.inherited, parts(result)["fpn"][0]) == (total - changed, parts(result)["fpn"][1] - changed)
        assert "fpn: " in str(result)
        assert "not l4" in str(result)
        for name in ("l3", "l5"):
            own = target.state_dict()[f"decoder.fpn.{names.get(name, name)}.conv.weight"]
            assert torch.equal(own, source.state_dict()[f"decoder.fpn.{name}.conv.weight"])


def test_another_width_inherits_the_backbone_only() -> None:
    target = made(plain().replace("width=16", "width=32"), 2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    source = made(plain(), 1)
    with torch.no_grad():
        for parameter in source.backbone.parameters():
            parameter.add_(1)
    result = pass_on(source, target)
    found = parts(result)
    assert found.pop("backbone") == (sum(p.numel() for p in target.backbone.parameters()),) * 2
    assert {inherited for inherited, _ in found.values()} == {0}
    for name, value in target.state_dict().items():
        assert torch.equal(value, (source.state_dict() if name.startswith("backbone.") else before)[name]), name
    assert str(result).startswith(f"{100 * result.inherited / result.total:.1f} % of {result.total:,} parameters are inherited")


def test_a_shorter_and_a_longer_tower() -> None:
    chain = "conv_3x3(bias=true) -> conv_3x3(bias=true)"
    for text in (plain().replace(chain, "conv_3x3(bias=true)"), plain().replace(chain, f"{chain} -> conv_1x1")):
        result = pass_on(made(plain(), 1), made(text, 2))
        found = parts(result)
        assert all(inherited == total for name, (inherited, total) in found.items() if name != "head")
        longer = "conv_1x1" in text.split("head(")[1]
        assert result.is_complete is not longer
        assert ("not cls.2 (conv_1x1), box.2 (conv_1x1)" in str(result)) is longer
        assert (result.unused > 0) is not longer


def test_shared_layers_of_the_head_give_their_weights_to_each_level() -> None:
    apart = plain().replace("head(width=16, norm=none)", "head(width=16, norm=none, share=2)")
    source, target = made(plain(), 1), made(apart, 2)
    assert "decoder.head.cls.0.p3.conv.weight" in target.state_dict()
    assert pass_on(source, target).is_complete
    same_outputs(source, target)
    back = pass_on(target, made(plain(), 3))
    assert parts(back)["head"][0] == 0
    assert "has weights for each level in the file and shared ones here" in str(back)


def test_norms_of_each_level_begin_with_the_shared_ones() -> None:
    one = plain().replace("head(width=16, norm=none)", "head(width=16, norm=bn)")
    source, target = made(one, 1), made(one.replace("norm=bn)", "norm=bn, norms=level)"), 2)
    assert "decoder.head.cls.0.norm.p3.running_mean" in target.state_dict()
    assert pass_on(source, target).is_complete
    same_outputs(source, target)
    assert pass_on(target, made(one.replace("norm=bn)", "norm=bn, norms=level)"), 4)).is_complete
    back = pass_on(target, made(one, 3))
    assert parts(back)["head"][0] == 0
    assert "has norms for each level in the file and shared ones here" in str(back)


def test_weights_of_a_shared_op() -> None:
    """They pass on to one set under another name, and to layers with sets of their own; several sets do not become one."""
    end = plain().split("fpn(")[1].split("}", 1)[1]
    text = f"decoder small {{ input c3, c4, c5 fpn(width=16, norm=bn) {{ FPN }} {end}"
    tied = text.replace("FPN", "shared f(x) = sum(x, conv_3x3(x)) output p3 = f(c3), p4 = f(f(c4)), p5 = c5")
    untied = text.replace("FPN", "output p3 = sum(c3, conv_3x3(c3)), p4 = g(g(c4)), p5 = c5")
    untied = "op g(x) = sum(x, conv_3x3(x)) " + untied
    source, target = made(tied, 1), made(tied.replace("f(", "other("), 2)
    assert "decoder.fpn.other.y.conv.weight" in target.state_dict()
    for other in (target, made(untied, 3)):
        assert pass_on(source, other).is_complete
        same_outputs(source, other)
    back = pass_on(made(untied, 4), made(tied, 5))
    assert not back.is_complete
    assert "fpn: " in str(back)
    assert parts(back)["fpn"][0] == parts(back)["fpn"][1] - (9 * 16 * 16 + 2 * 16)


def test_weights_of_a_shared_op_of_a_prediction() -> None:
    own = "block own(x) -> (y) { shared w(x) = conv_3x3(x) y = conv_1x1(w(relu(w(x)))) }\n"
    text = own + plain(predict="fcos(centerness=none, conv=own)")
    source, target = made(text, 0), made(text.replace("relu(w(x))", "w(x)"), 1)
    assert pass_on(source, made(text, 1)).is_complete
    assert parts(pass_on(source, target))["classification layer"][0] < parts(pass_on(source, target))["classification layer"][1]


def test_a_trunk_inherits_from_a_trunk() -> None:
    before = plain().split("head(")[0]
    text = f"{before}head(width=16, norm=none) {{ both: conv_3x3 -> conv_1x1 cls: conv_3x3 }} predict {FCOS} }}"
    source, target = made(text, 1), made(text.replace("{ both: ", "{ both: skip -> "), 2)
    assert "decoder.head.both.1.conv.weight" in target.state_dict()
    assert pass_on(source, target).is_complete
    same_outputs(source, target)
    without = pass_on(made(text.replace("both: conv_3x3 -> conv_1x1 cls: conv_3x3", "conv_3x3"), 1), made(text, 3))
    assert "not both.0 (conv_3x3), both.1 (conv_1x1)" in str(without)


def test_levels_that_the_weights_do_not_have_begin_anew() -> None:
    apart = plain().replace("head(width=16, norm=none)", "head(width=16, norm=none, share=2)")
    fewer = apart.replace(", p5 = conv_3x3(l5)", "")
    source, target = made(fewer, 1), made(apart, 2)
    before = target.state_dict()["decoder.head.cls.0.p5.conv.weight"].clone()
    result = pass_on(source, target)
    assert parts(result)["head"][0] == parts(result)["head"][1] * 2 // 3
    assert "head: " in str(result)
    assert "not cls.0 (conv_3x3)" in str(result)
    own = target.state_dict()
    assert torch.equal(own["decoder.head.cls.0.p5.conv.weight"], before)
    assert torch.equal(own["decoder.head.cls.0.p4.conv.weight"], source.state_dict()["decoder.head.cls.0.p4.conv.weight"])
    assert pass_on(target, made(fewer, 3)).parts[2].inherited > 0


@pytest.mark.parametrize("conv", ["", ", conv=sep_3x3"])
def test_predictions_of_each_level_do_not_become_one(conv: str) -> None:
    one = plain(predict=f"fcos(centerness=none{conv})")
    each = plain(predict=f"fcos(centerness=none, share=false{conv})")
    source, target = made(each, 1), made(one, 2)
    result = pass_on(source, target)
    assert (parts(result)["classification layer"][0], parts(result)["box layer"][0]) == (0, 0)
    assert str(result).count("the weights have one for each level") == 2
    assert pass_on(target, made(each, 3)).is_complete


def test_a_note_that_several_levels_give_is_given_once() -> None:
    part = Part("box layer", 0, 5)
    for note in ("one", "two", "one"):
        part.note(note)
    assert part.notes == ["one", "two"]


def test_boxes_that_are_measured_in_another_way() -> None:
    for predict in (IMPROVED, "retinanet(anchors=1)"):
        result = pass_on(made(plain(), 1), made(plain(predict=predict), 2))
        found = parts(result)
        assert found["box layer"][0] == 0
        assert found["fpn"] == (found["fpn"][1],) * 2
        assert "measures boxes in another way" in str(result)


def test_weights_of_another_known_backbone() -> None:
    """Nothing of it is inherited, even where shapes are the same."""
    target = made(plain(), 2, backbone="tiny")
    before = target.backbone.state_dict()["body.stem.0.weight"].clone()
    result = pass_on(made(plain(), 1, backbone="tiny"), target, backbone="resnet50")
    assert parts(result)["backbone"][0] == 0
    assert "backbone: nothing; the weights are of resnet50, this is tiny" in str(result)
    assert torch.equal(target.backbone.state_dict()["body.stem.0.weight"], before)


def test_a_backbone_without_its_normalisation() -> None:
    source, target = made(plain(), 1), made(plain(), 2)
    weights = {key: value for key, value in source.state_dict().items() if not key.startswith("backbone.pixel_")}
    result = inherit(target, weights, Origin(), "model.pt")
    assert result.is_complete
    assert "not all of its layers" not in str(result)


# ------------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("predict", [FCOS, RETINANET])
def test_classes_of_the_same_names(predict: str) -> None:
    source = made(plain(predict=predict), 1, classes=["cat", "dog", "cow"])
    target = made(plain(predict=predict), 2, classes=["horse", "Cow", "cat"])
    fresh = {k: v.clone() for k, v in target.state_dict().items()}
    result = pass_on(source, target)
    anchors = 1 if predict == FCOS else 9
    for tensor in ("weight", "bias"):
        key = f"decoder.head.cls_logits.{tensor}"
        given, own, old = (s[key].unflatten(0, (anchors, 3)) for s in (source.state_dict(), target.state_dict(), fresh))
        assert torch.equal(own[:, 1], given[:, 2])
        assert torch.equal(own[:, 2], given[:, 0])
        assert torch.equal(own[:, 0], old[:, 0])
    inherited, total = parts(result)["classification layer"]
    assert 3 * inherited == 2 * total
    assert "anew are the classes horse" in str(result)


def test_other_classes() -> None:
    source = made(plain(), 1, classes=["cat", "dog", "cow"])
    for classes, share in ((["cat", "dog", "cow"], 1), (3, 1), (["a", "b", "c"], 0), (["a", "b"], 0), (7, 0)):
        inherited, total = parts(pass_on(source, made(plain(), 2, classes=classes)))["classification layer"]
        assert inherited == share * total
    assert "it begins anew" in str(pass_on(source, made(plain(), 2, classes=["a", "b"])))


def test_names_of_classes_that_differ_in_case_alone() -> None:
    source = made(plain(), 1, classes=["cat", "Cat", "dog"])
    target = made(plain(), 2, classes=["Cat", "cat", "DOG"])
    assert pass_on(source, target).is_complete
    key = "decoder.head.cls_logits.bias"
    assert torch.equal(target.state_dict()[key], source.state_dict()[key][[1, 0, 2]])


def test_a_layer_of_the_same_shape_for_other_classes() -> None:
    """Nine anchors with two classes have as many rows as two anchors with nine: rows of other classes are not inherited."""
    source = made(plain(predict="retinanet(anchors=9)"), 1, classes=2)
    target = made(plain(predict="retinanet(anchors=2)"), 2, classes=9)
    result = pass_on(source, target)
    assert parts(result)["classification layer"][0] == 0
    assert "it begins anew for 9 classes" in str(result)


# ------------------------------------------------------------------------------------------------ files


def test_from_a_run_through_the_factory(tmp_path: Path) -> None:
    source = made(plain(), 1, classes=["cat", "dog"], backbone="tiny", freeze_at=1)
    save_detector(source, tmp_path / "model.pt")
    changed = plain().replace("conv_3x3(m3)", "conv_1x1(m3)")
    options: dict[str, Any] = {"classes": ["cat", "dog"], "min_size": 64, "max_size": 96}
    with pytest.warns(UserWarning, match=r"% of [\d,]+ parameters are inherited from .*model\.pt \((?s:.*)not p3"):
        target = detector(loads(changed), "tiny", tmp_path, **options)
    assert target.inherited is not None
    assert not target.inherited.is_complete
    assert target.config["backbone"]["freeze_at"] == 1
    same = detector(loads(loads(plain()).canonical), "tiny", tmp_path, **options).eval()
    assert same.inherited is not None
    assert same.inherited.is_complete
    assert detector(loads(plain()), "tiny", **options).inherited is None
    same_outputs(source, same)


def test_a_file_of_a_state_dict(tmp_path: Path) -> None:
    """Without a decoder's text, names and shapes decide."""
    source = made(plain(), 1)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    assert load_weights(made(plain(), 2), tmp_path / "state.pt").is_complete
    result = load_weights(made(plain().replace("conv_3x3(m3)", "conv_1x1(m3)"), 2), tmp_path / "state.pt")
    assert not result.is_complete
    assert "not p3.conv" in str(result)
    found = parts(result)
    assert all(inherited == total for name, (inherited, total) in found.items() if name != "fpn")


def test_nothing_in_common(tmp_path: Path) -> None:
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pt")
    target = made(plain(), 2)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(DetectorError, match=r"other\.pt has the weights of another detector, which has nothing in common"):
        load_weights(target, tmp_path / "other.pt")
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pt")
    with pytest.raises(DetectorError, match=r"These are weights of a backbone: .*--backbone-weights"):
        load_weights(target, tmp_path / "resnet.pt")
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items()), "it is as it was"
