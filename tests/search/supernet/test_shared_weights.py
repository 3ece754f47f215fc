"""Weights that the fillings of a space share: which are the same, which are not, and that modules with them compute alike."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from nasdsl.backends.module import DecoderModule
from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir.graph import Graph
from nasdsl.search.supernet.weights import BoundDecoder, SharedWeights
from nasdsl.search.supernet.widths import Widths
from nasdsl.spaces import Space, loads_space

SPACE = loads_space("""
choice op = sep_3x3 | sep_3x3_d3 | skip | conv_3x3 | dconv_3x3
choice agg = psum | cat | sum

decoder shared {
  input c3, c4, c5
  let w = ?(32 | 48 | 64)
  fpn(width=w, norm=bn) {
    repeat t in 1..3 { x[t] = ?agg(?op(?pool), ?op(?pool)) }
    output p3 = x1, p4 = x2, p5 = x3
    merge dangling into p3, p4, p5
  }
  head(width=w, norm=none, share=?(0..2)) { ?op -> conv_1x1 }
  predict fcos(centerness=cls)
}
""")
CHANNELS = {"c3": 8, "c4": 12, "c5": 16}
CLASSES = 3


def lower(text: str) -> Graph:
    return SPACE.load(text).lower(CHANNELS)


class Sharing:
    """Shared weights with what `bind` needs."""

    def __init__(self, space: Space = SPACE) -> None:
        self.space, self.weights, self.widths = space, SharedWeights(), Widths(space, lower)

    def bind(self, indices: tuple[int, ...]) -> BoundDecoder:
        graph = lower(self.space.decode(indices))
        widest = lower(self.space.decode(self.widths.widest(indices)))
        return self.weights.bind(graph, widest, CLASSES, lambda: DecoderModule(widest, CLASSES))


def maps() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(2, width, 64 >> int(name[1]), 64 >> int(name[1])) for name, width in CHANNELS.items()}


def fillings(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    return [text.indices for text in SPACE.samples(count, seed)]


def with_text(**parts: str) -> tuple[int, ...]:
    """A filling with the default parts but those that are given."""
    use = {
        "w": "64",
        "x1": "psum(sep_3x3(c3), skip(c4))",
        "x2": "sum(conv_3x3(x1), skip(c5))",
        "x3": "cat(skip(x1), sep_3x3(x2))",
    }
    use |= {"share": "0", "head": "conv_3x3", **parts}
    blocks = " ".join(f"{name} = {use[name]}" for name in ("x1", "x2", "x3"))
    text = f"""decoder shared {{
      input c3, c4, c5 let w = {use["w"]}
      fpn(width=w, norm=bn) {{ {blocks} output p3 = x1, p4 = x2, p5 = x3 merge dangling into p3, p4, p5 }}
      head(width=w, norm=none, share={use["share"]}) {{ {use["head"]} -> conv_1x1 }} predict fcos(centerness=cls)
    }}"""
    return tuple(SPACE.encode(text))


def storage(decoder: BoundDecoder, name: str) -> int:
    """Where a weight's numbers are: equal for views of one parameter."""
    return decoder.weights[name].untyped_storage().data_ptr()


def test_the_width_is_found_among_the_numbers() -> None:
    names = [
        (d.alternatives, n in Widths(SPACE, lower).decisions)
        for n, d in enumerate(SPACE.domains)
        if d.alternatives[0].isdigit()
    ]
    assert names == [(("32", "48", "64"), True), (("0", "1", "2"), False)]


def test_numbers_are_tried_on_decoders_that_have_them_and_can_be_built() -> None:
    """A width in one alternative alone is found though the others do not have it; widths that cannot be built are none."""
    text = """decoder some {
      input c3, c4
      fpn(width=32, norm=bn) { x = ?(conv(c3, k=1, width=?(16 | 32)) | skip(c3)) output p3 = conv_1x1(x), p4 = c4 }
      head(width=32, norm=none) { conv_1x1 }
      predict fcos
    }"""
    space = loads_space(text)

    def build(text: str) -> Graph:
        return space.load(text).lower(CHANNELS)

    found = Widths(space, build)
    assert [space.domains[number].alternatives for number in found.decisions] == [("16", "32")]

    def refuse(text: str) -> Graph:
        raise DiagnosticError([])

    assert Widths(space, refuse).decisions == ()


@pytest.mark.parametrize("indices", fillings(6))
def test_a_filling_computes_what_its_module_computes_with_the_same_weights(indices: tuple[int, ...]) -> None:
    sharing = Sharing()
    for other in fillings(3, seed=1):  # the weights exist already, at other widths
        sharing.bind(other)
    bound = sharing.bind(indices)
    bound.calibrate([maps()])
    module = DecoderModule(lower(SPACE.decode(indices)), CLASSES)
    module.load_state_dict(bound.own_state())
    for mode in (False, True):
        bound.train(mode)
        module.train(mode)
        for level, expected in module(maps()).items():
            for left, right in zip(bound(maps())[level], expected, strict=True):
                assert torch.equal(left, right)


LEVELS = loads_space("""
decoder levels {
  input c3, c4, c5
  fpn(width=32, norm=bn) {
    output p3 = conv_1x1(c3, width=?(32 | 96)), p4 = concat(conv_3x3(c4, width=?(32 | 64)), c5), p5 = ?(conv_1x1 | conv_3x3)(c5)
  }
  head(width=32, norm=bn, share=2) { both: ?(conv_3x3 | conv_1x1(width=in)) cls: conv(k=3, groups=in, width=in) box: relu }
  predict fcos(share=false, conv=?(none | sep_3x3))
}
""")


@pytest.mark.parametrize("indices", [(0, 0, 0, 0, 0), (1, 0, 1, 1, 0), (0, 1, 1, 0, 1), (1, 0, 0, 0, 1)])
def test_levels_of_different_widths_have_weights_of_each(indices: tuple[int, ...]) -> None:
    """What a filling computes is what its module computes; of the widest form it has the first channels, level by level."""
    sharing = Sharing(LEVELS)
    for other in LEVELS.samples(3, 1):
        sharing.bind(other.indices)
    bound = sharing.bind(indices)
    bound.calibrate([maps()])
    module = DecoderModule(lower(LEVELS.decode(indices)), CLASSES)
    module.load_state_dict(bound.own_state())
    for level, expected in module.eval()(maps()).items():
        assert torch.equal(bound.eval()(maps())[level].cls_logits, expected.cls_logits)
    widest = sharing.bind(sharing.widths.widest(indices))
    for name, weight in bound.weights.items():
        if name.startswith("head.both.0."):
            wide = widest.weights[name][: len(weight)]
            if name.endswith("p4.conv.weight"):  # behind the concatenation: the first channels of each operand
                wide = wide[:, [*range(weight.shape[1] - 32), *range(64, 96)]]
            elif weight.dim() > 1:
                wide = wide[:, : weight.shape[1]]
            assert torch.equal(weight, wide), name


def test_calibration_gives_the_mean_statistics_of_the_batches() -> None:
    bound = Sharing().bind(with_text())
    batches = [{name: values * factor for name, values in maps().items()} for factor in (1.0, 2.0)]
    bound.calibrate(batches)
    means = [torch.nn.functional.conv2d(b["c3"], bound.weights["fpn.c3.conv.weight"]).mean((0, 2, 3)) for b in batches]
    torch.testing.assert_close(bound.statistics["fpn.c3.norm.running_mean"], sum(means) / 2)


def test_a_place_has_one_set_of_weights_for_each_alternative() -> None:
    sharing = Sharing()
    base = sharing.bind(with_text())
    other_pool = sharing.bind(with_text(x1="psum(sep_3x3(c5), skip(c4))"))
    other_op = sharing.bind(with_text(x1="psum(sep_3x3_d3(c3), skip(c4))"))
    other_agg = sharing.bind(with_text(x1="sum(sep_3x3(c3), skip(c4))"))
    name = "fpn.x1.x.conv2.weight"
    assert storage(base, name) == storage(other_pool, name) == storage(other_agg, name)
    assert storage(base, name) != storage(other_op, name)  # a pointwise convolution of the same shape, of another op
    assert storage(base, "fpn.x3.norm.weight") == storage(other_op, "fpn.x3.norm.weight")
    assert storage(base, name) != storage(base, "fpn.x3.y.conv2.weight")


def test_layers_of_each_level_have_weights_of_their_own() -> None:
    sharing = Sharing()
    shared, apart = (sharing.bind(with_text(share=share)) for share in ("0", "2"))
    assert storage(shared, "head.cls.1.conv.weight") != storage(apart, "head.cls.1.p3.conv.weight")
    assert storage(apart, "head.cls.1.p4.conv.weight") != storage(apart, "head.cls.1.p3.conv.weight")
    assert storage(shared, "head.cls_logits.weight") == storage(apart, "head.cls_logits.weight")


def test_of_a_width_the_first_channels_are_used() -> None:
    sharing = Sharing()
    wide, narrow = sharing.bind(with_text()), sharing.bind(with_text(w="32"))
    conv = "fpn.x2.x.conv.weight"
    assert torch.equal(narrow.weights[conv], wide.weights[conv][:32, :32])
    assert storage(narrow, conv) == storage(wide, conv)
    depthwise = "fpn.x1.x.conv.weight"
    assert torch.equal(narrow.weights[depthwise], wide.weights[depthwise][:32])
    prediction = "head.cls_logits.weight"
    assert torch.equal(narrow.weights[prediction], wide.weights[prediction][:, :32])


def test_behind_a_concatenation_they_are_the_first_of_each_operand() -> None:
    sharing = Sharing()
    wide, narrow = sharing.bind(with_text()), sharing.bind(with_text(w="32"))
    norm = "fpn.x3.norm.weight"
    with torch.no_grad():
        next(p for key, p in sharing.weights.parameters.items() if key.startswith(norm)).copy_(torch.arange(128.0))
    narrow = sharing.bind(with_text(w="32"))
    assert narrow.weights[norm].tolist() == [*range(32), *range(64, 96)]
    assert wide.weights[norm].tolist() == list(range(128))


def test_gradients_reach_the_weights_that_are_used_and_no_others() -> None:
    sharing = Sharing()
    sharing.bind(with_text(x1="psum(dconv_3x3(c3), skip(c4))"))
    bound = sharing.bind(with_text(w="32")).train()
    sum(values.sum() for level in bound(maps()).values() for values in level).backward()  # type: ignore[union-attr]  # not 0
    grads = {key: parameter.grad for key, parameter in sharing.weights.parameters.items()}
    assert all(grad is None for key, grad in grads.items() if key.startswith("fpn.x1.x.deform_conv"))
    used = next(grad for key, grad in grads.items() if key.startswith("fpn.x2.x.conv.weight"))
    assert used is not None
    assert used[:32, :32].abs().sum() > 0
    assert used[32:].abs().sum() == used[:, 32:].abs().sum() == 0


def test_order_makes_no_difference_to_what_is_shared() -> None:
    some = fillings(5)
    keys = []
    for order in (some, random.Random(0).sample(some, len(some))):
        sharing = Sharing()
        for indices in order:
            sharing.bind(indices)
        keys.append({key: parameter.shape for key, parameter in sharing.weights.parameters.items()})
    assert keys[0] == keys[1]


def test_turns_have_the_same_weights_whatever_the_depth() -> None:
    """A shallower filling of a space with depth holes uses a part of the weights of a deeper one, and adds none."""
    space = loads_space("""
    decoder deep {
      input c3, c4
      let w = ?(32 | 64)
      fpn(width=w, norm=bn) { x = c3 repeat ?(0..3) { x = ?(conv_3x3 | conv_1x1)(x) } output p3 = x, p4 = c4 }
      head(width=w, norm=none) { conv_3x3 * ?(1..3) }
      predict fcos
    }
    """)
    sharing = Sharing(space)
    assert sharing.widths.decisions == (0,), "depths are no widths"
    sharing.bind((1, 3, 0, 0, 1, 2))
    deepest = dict(sharing.weights.parameters)
    shallow = sharing.bind((0, 2, 0, 0, 0, 1))
    assert sharing.weights.parameters.keys() == deepest.keys()
    assert all(sharing.weights.parameters[key] is deepest[key] for key in deepest)
    outputs = shallow(maps())
    assert set(outputs) == {"p3", "p4"}
    sharing.bind((0, 2, 1, 0, 0, 1))
    assert len(sharing.weights.parameters) > len(deepest), "another op in the first turn"


def test_a_shared_op_has_one_set_however_often_a_filling_calls_it() -> None:
    """Wherever it is called; its alternatives have sets of their own. Norms of each level are told apart."""
    space = loads_space("""decoder t {
      input c3, c4
      let w = ?(32 | 64)
      fpn(width=w, norm=bn) {
        shared f(x) = ?(conv_3x3 | sep_3x3)(x)
        x = c3
        repeat ?(1..3) { x = f(x) }
        output p3 = x, p4 = ?(f(c4) | c4)
      }
      head(width=w, norm=bn, norms=level) { both: conv_3x3 cls: conv_1x1 }
      predict fcos(centerness=cls)
    }""")

    def lowered(text: str) -> Graph:
        return space.load(text).lower(CHANNELS)

    widths, weights = Widths(space, lowered), SharedWeights()
    assert widths.decisions == (0,)
    made: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for indices in itertools.product(*(range(len(domain)) for domain in space.domains)):
        graph, widest = lowered(space.decode(indices)), lowered(space.decode(widths.widest(indices)))
        bound = weights.bind(graph, widest, CLASSES, lambda widest=widest: DecoderModule(widest, CLASSES))
        made[indices] = bound.weights
        bound.module.load_state_dict(bound.own_state())
        assert bound.eval()(maps())["p3"].cls_logits.isfinite().all()
    shared = [key for key in weights.parameters if key.startswith("fpn.f.")]
    assert len(shared) == 3 + 4, "one convolution with a norm, or two"
    for op in (0, 1):
        sets = {found["fpn.f.conv.weight"].data_ptr() for indices, found in made.items() if indices[1] == op}
        assert len(sets) == 1
    level_norms = {key.split()[0] for key in weights.parameters if key.startswith("head.both.0.norm")}
    assert level_norms == {f"head.both.0.norm.{level}.{name}" for level in ("p3", "p4") for name in ("weight", "bias")}


def test_layers_without_weights_share_nothing_and_hand_on_channels() -> None:
    space = loads_space("""
    decoder small {
      input c3, c4
      let w = ?(32 | 64)
      fpn(width=w, norm=bn) {
        a, b = split(c3)
        by = conv(c4, k=1, width=2)
        d = weighted_add(conv_3x3(mul(b, 0.5)), c4, by=by)
        output p3 = conv_1x1(concat(d, a)), p4 = c4
      }
      head(width=w, norm=none) { conv_3x3 }
      predict fcos
    }
    """)
    sharing = Sharing(space)
    assert sharing.widths.decisions == (0,)
    narrow, wide = sharing.bind((0,)), sharing.bind((1,))
    assert torch.equal(narrow.weights["fpn.d.conv.weight"], wide.weights["fpn.d.conv.weight"][:32, :16])
    joined = wide.weights["fpn.p3.conv.weight"][:32, [*range(32), *range(64, 80)]]
    assert torch.equal(narrow.weights["fpn.p3.conv.weight"], joined)
    assert set(narrow(maps())) == {"p3", "p4"}


FINER = loads_space("""decoder finer { input c3, c4, c5 let w = ?(32 | 64)
  fpn(width=w, norm=ln) {
    a = up_conv(concat(c4, c5), k=3, norm=bn)
    b = conv_1x1(pixel_shuffle(concat(c4, c5)))
    output p3 = add(carafe(concat(a, b), compressed=8), attention(concat(a, b), heads=2))
  }
  head(width=w, norm=none) { conv_3x3 } predict fcos }""")


def test_layers_that_lead_to_finer_maps() -> None:
    """A transposed convolution has the channels of its operand first; the other layers keep those that they read."""
    sharing = Sharing(FINER)
    wide = sharing.bind((1,))
    narrow = sharing.bind((0,))
    of_each_operand = [*range(32), *range(64, 96)]
    kernel = wide.weights["fpn.a.up_conv.weight"]
    assert torch.equal(narrow.weights["fpn.a.up_conv.weight"], kernel[of_each_operand, :32])
    for name in ("carafe.compress", "attention.query"):
        given, own = wide.weights[f"fpn.p3.{name}.weight"], narrow.weights[f"fpn.p3.{name}.weight"]
        rows = of_each_operand if name == "attention.query" else list(range(8))
        assert torch.equal(own, given[rows][:, of_each_operand])
    assert sharing.widths.decisions == (0,)
    narrow.calibrate([maps()])
    module = DecoderModule(FINER.load(FINER.decode((0,))).lower(CHANNELS), CLASSES)
    module.load_state_dict(narrow.own_state())
    narrow.eval(), module.eval()
    assert torch.equal(narrow(maps())["p3"].cls_logits, module(maps())["p3"].cls_logits)


def test_predictions_of_other_ops_and_bins_are_other_weights() -> None:
    """Every filling computes; predictions share their weights with those of the same op and bins, whatever the width."""
    space = loads_space("""
op deep(x) = conv_1x1(relu(conv_3x3(x)))
decoder shared {
  input c3, c4
  let w = ?(32 | 64)
  fpn(width=w, norm=bn) { output p3 = conv_1x1(c3), p4 = conv_3x3(c4) }
  head(width=w, norm=none) { conv_1x1 }
  predict gfl(bins=?(2 | 5), conv=?(none | deep), share=?(true | false))
}
""")
    sharing = Sharing(space)
    for indices in itertools.product(range(2), repeat=4):
        bound = sharing.bind(indices)
        bins = (2, 5)[indices[1]]
        features = {name: x for name, x in maps().items() if name != "c5"}
        for level in bound(features).values():
            assert level.bbox_reg.shape[1] == 4 * (bins + 1)
    narrow, wide = sharing.bind((0, 1, 1, 0)), sharing.bind((1, 1, 1, 0))
    for name in (name for name in wide.weights if name.startswith("head.bbox_reg")):
        rows = narrow.weights[name].shape
        assert torch.equal(narrow.weights[name], wide.weights[name][tuple(slice(0, length) for length in rows)])
