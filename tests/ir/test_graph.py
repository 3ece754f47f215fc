"""Lowering: explicit resizes and merges, ordered operands, dead layers, and the rules that `verify` holds passes to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import random_decoders

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir import Graph, MissingFeature, VerifyError, verify
from nasdsl.ir.graph import HeadLayer, Node, Tower
from nasdsl.layers import UNKNOWN_WIDTH, Activation, Add, Conv, Factor, Feature, Resize

PUBLISHED = nasdsl.from_nas_fcos(
    [[3, 3, 4, 4, 1], [3, 3, 4, 4, 1], [4, 3, 4, 3, 1], [1, 3, 4, 3, 1], [5, 3, 4, 4, 1], [4, 7, 4, 4, 1], [7, 2, 4, 4, 1]],
    [5, 1, 5, 0, 4, 4],
    width=64,
)


def graph_of(body: str, inputs: str = "c3, c4, c5", adapter: str = "conv_1x1") -> Graph:
    return nasdsl.loads(
        f"decoder d {{ input {inputs} fpn(width=64, norm=bn, adapter={adapter}) {{ {body} }}"
        " head(width=64, norm=gn) { conv_3x3 } predict fcos(centerness=cls) }"
    ).lower(random_decoders.CHANNELS)


def test_dangling_is_added_at_the_resolution_of_the_block() -> None:
    """x3 dangles; x6 has stride 8 and goes to P4: it is summed at stride 8, and then resized to stride 16."""
    graph = PUBLISHED.lower(random_decoders.CHANNELS)
    nodes = {n.id: n for n in graph.nodes}
    p4 = nodes[graph.outputs["p4"]]
    assert p4.layer == Resize(4)
    added = nodes[p4.inputs[0]]
    assert isinstance(added.layer, Add)
    assert added.out.level == 3
    assert [nodes[i].value.name for i in added.inputs] == ["x6", "p4.merge"]
    assert nodes[added.inputs[1]].layer == Resize(3)
    assert nodes[nodes[added.inputs[1]].inputs[0]].value.name == "x3"


def test_merge_into_values_then_widen() -> None:
    graph = graph_of("x1 = conv_3x3(c3); x2 = conv_3x3(c5); merge dangling into x1; output p3 = conv_1x1(x1)")
    nodes = {n.id: n for n in graph.nodes}
    added = next(n for n in graph.nodes if isinstance(n.layer, Add))
    assert {nodes[i].out.level for i in added.inputs} == {3}
    assert [r.value.name for r in graph.removed] == ["c4 adapter"]


def test_merge_takes_a_coarser_blocks_resolution() -> None:
    """A fine dangling value comes down to the coarse output's own resolution, not the output up to it."""
    graph = graph_of("x1 = conv_3x3(c3); x2 = conv_3x3(c5); output p5 = x2; merge dangling into p5")
    added = next(n for n in graph.nodes if isinstance(n.layer, Add))
    assert added.out.level == 5
    assert [n.layer for n in graph.nodes if isinstance(n.layer, Resize)] == [Resize(5)]


def test_what_a_merge_reads_twice_is_built_once() -> None:
    graph = graph_of("output p3 = conv_3x3(c3); z = conv_3x3(c4); w = sum(z, z); merge dangling into p3")
    verify(graph)
    assert [node.id for node in graph.nodes if node.value.name == "z"] == ["z.conv", "z.norm", "z.act"]
    assert [removed.value.name for removed in graph.removed] == ["c5 adapter"]


@pytest.mark.parametrize(("call", "function"), [("act(c3)", "silu"), ("act(c3, act=tanh)", "tanh"), ("act(c3, act=none)", "")])
def test_an_activation_is_that_of_the_section_or_the_one_that_is_named(call: str, function: str) -> None:
    graph = nasdsl.loads(
        f"decoder d {{ input c3 fpn(width=8, adapter=none, act=silu) {{ output p3 = {call} }}"
        " head(width=8) { skip } predict fcos }"
    ).lower({"c3": 8})
    assert [node.layer.function for node in graph.nodes if isinstance(node.layer, Activation)] == [function] * bool(function)


def test_parallel_operands_keep_their_order() -> None:
    view = PUBLISHED.graph
    assert view.number_of_edges("c5.act", "x1.x.deform_conv") == 1
    graph = graph_of("x1 = concat(c5, c3, c5); output p3 = conv_1x1(x1)")
    node = next(n for n in graph.nodes if n.id == "x1.concat")
    assert node.inputs == ("c5.act.to_p3", "c3.act", "c5.act.to_p3")
    assert node.out.width == 192
    edges = nasdsl.loads(
        "decoder d { input c5 fpn(width=64) { x = concat(c5, c5) output p5 = conv_1x1(x) }"
        " head(width=64) { conv_3x3 } predict fcos() }"
    ).graph.get_edge_data("c5.act", "x.concat")
    assert sorted(e["operand"] for e in edges.values()) == [0, 1]


def test_one_resize_for_all_readers() -> None:
    graph = graph_of("x1 = sum(c3, c5); x2 = cat(c3, c5); output p3 = sum(x1, x2)")
    assert sum(isinstance(n.layer, Resize) for n in graph.nodes) == 1


def test_removed_layers_are_accounted_for() -> None:
    """What removing saves is what the decoder with everything read costs more."""
    body = "x1 = conv_3x3(c3); x2 = sep_3x3(c5); output p3 = {}"
    dead, alive = graph_of(body.format("x1")), graph_of(body.format("sum(x1, x2)"))
    without, whole = cost(dead, (96, 160), 3), cost(alive, (96, 160), 3)
    assert {r.name for r in without.removed} == {"x2", "c4 adapter", "c5 adapter"}
    saved = sum(r.macs for r in without.removed), sum(r.params for r in without.removed)
    still_dead = sum(r.macs for r in whole.removed), sum(r.params for r in whole.removed)
    assert without.fpn.macs + saved[0] == whole.fpn.macs + still_dead[0]
    assert without.fpn.params + saved[1] == whole.fpn.params + still_dead[1]
    assert without.fpn.published_flops == whole.fpn.published_flops
    assert without.fpn.published_params == whole.fpn.published_params


def test_missing_feature() -> None:
    with pytest.raises(MissingFeature, match="reads c4"):
        nasdsl.loads("decoder d { input c4 fpn(width=64) { output p4 = c4 } head(width=64) { skip } predict fcos() }").lower(
            {"c3": 8}
        )


def test_raw_widths_are_checked_for_the_backbone() -> None:
    text = (
        "decoder d { input c3, c4 fpn(width=64, adapter=none) { x = add(c3, c4) output p3 = conv_1x1(x) }"
        " head(width=64) { skip } predict fcos() }"
    )
    decoder = nasdsl.loads(text)
    decoder.lower({"c3": 96, "c4": 96})
    with pytest.raises(nasdsl.DiagnosticError) as error:
        decoder.lower({"c3": 96, "c4": 128})
    assert error.value.diagnostics[0].code == "NAS306"
    assert error.value.diagnostics[0].span.text == "add(c3, c4)"


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_verify(seed: int) -> None:
    verify(nasdsl.loads(random_decoders.text(seed)).lower(random_decoders.CHANNELS))


def broken_graphs() -> list[Graph]:
    graph = PUBLISHED.lower(random_decoders.CHANNELS)
    nodes, head = list(graph.nodes), graph.head
    at = next(i for i, n in enumerate(nodes) if n.inputs and i > 5)
    node = nodes[at]
    tower = head.towers[0]

    def with_node(changed: Node) -> Graph:
        return replace(graph, nodes=tuple(changed if i == at else n for i, n in enumerate(nodes)))

    return [
        with_node(node._replace(id=nodes[0].id)),
        with_node(node._replace(inputs=("nowhere",))),
        with_node(node._replace(inputs=())),
        with_node(node._replace(out=Feature(node.out.level, 999))),
        with_node(node._replace(operands=(Feature(9, 9),))),
        replace(graph, nodes=tuple(reversed(nodes))),
        replace(graph, outputs={**graph.outputs, "p3": "nowhere"}),
        replace(graph, levels={**graph.levels, "p3": 4}),
        replace(graph, head=replace(head, share=3)),
        replace(graph, head=replace(head, towers=(replace(tower, width=1), *head.towers[1:]))),
        replace(graph, head=replace(head, predictions=(replace(head.predictions[0], width=3),))),
        replace(graph, head=replace(head, towers=(replace(tower, layers=tower.layers[1:]), *head.towers[1:]))),
    ]


def test_verify_of_layers_that_cannot_have_the_same_weights() -> None:
    graph = graph_of("output p3 = conv_3x3(conv_1x1(c3))")
    nodes = tuple(n._replace(shared="w") if isinstance(n.layer, Conv) else n for n in graph.nodes)
    with pytest.raises(VerifyError, match="has the weights w, whose shape is another in a node before it"):
        verify(replace(graph, nodes=nodes))


def test_towers_whose_widths_only_a_backbone_tells_apart() -> None:
    """An op of several layers in the place of the predictions takes one width."""
    decoder = nasdsl.loads(
        "block own(x) -> (y) { a = conv_1x1(x) y = conv_1x1(a) }"
        " decoder d { input c3 fpn(width=8, adapter=none) { output p3 = c3 }"
        " head(width=8) { cls: skip box: conv_1x1 } predict fcos(conv=own) }"
    )
    assert decoder.lower({"c3": 8}).head.predictions
    with pytest.raises(DiagnosticError, match="`own` has several layers, and the towers differ in width"):
        decoder.lower({"c3": 4})


def test_verify_of_a_prediction_that_shares_its_weights() -> None:
    graph = nasdsl.loads(
        "block own(x) -> (y) { a = conv_1x1(x) y = conv_1x1(a) }"
        " decoder d { input c3 fpn(width=8) { output p3 = c3 } head(width=8) { skip } predict fcos(conv=own) }"
    ).lower({"c3": 4})
    first, *others = graph.head.predictions
    nodes = (*first.nodes[:-1], first.nodes[-1]._replace(shared=first.nodes[1].id))
    with pytest.raises(VerifyError, match="ends in a convolution that has the weights of one before it"):
        verify(replace(graph, head=replace(graph.head, predictions=(replace(first, nodes=nodes), *others))))


def test_verify_of_levels_of_different_widths() -> None:
    """Each level's nodes take its width, and weights that levels share have one."""
    graph = nasdsl.loads(
        "decoder d { input c3 fpn(width=8) { output p3 = conv_1x1(c3), p4 = conv_1x1(c3, width=16) }"
        " head(width=8, share=1) { conv_1x1(width=in) } predict fcos(share=false) }"
    ).lower({"c3": 4})
    head = graph.head
    tower, prediction = head.towers[0], head.predictions[0]
    (layer,) = tower.layers
    swapped = dict(zip(layer.by_level, reversed(layer.by_level.values()), strict=True))

    def with_layer(changed: HeadLayer, share: int = 1) -> Graph:
        towers = tuple(Tower(t.name, (changed,), t.width) for t in head.towers)
        return replace(graph, head=replace(head, share=share, towers=towers))

    verify(with_layer(layer))
    for broken in (
        with_layer(replace(layer, by_level={})),
        with_layer(replace(layer, by_level=swapped)),
        with_layer(replace(layer, shared=True), share=0),
        replace(graph, head=replace(head, predictions=(replace(prediction, shared=True),))),
        replace(graph, head=replace(head, predictions=(replace(prediction, by_level={}),))),
    ):
        with pytest.raises(VerifyError):
            verify(broken)


@pytest.mark.parametrize("number", range(len(broken_graphs())))
def test_verify_refuses(number: int) -> None:
    with pytest.raises(VerifyError):
        verify(broken_graphs()[number])


def test_verify_says_what_is_wrong_in_a_head() -> None:
    text = (
        "decoder d { input c3 fpn(width=8) { output p3 = c3 } head(width=8, share=1) { both: conv_1x1 cls: conv_1x1 box: skip }"
        " predict fcos }"
    )
    graph = nasdsl.loads(text).lower({"c3": 4})
    verify(graph)
    head = graph.head
    assert head.trunk is not None
    prediction, *others = head.predictions
    layer = head.trunk.layers[0]
    entry, convolution = prediction.nodes
    without = (entry, Node(**{**convolution._asdict(), "layer": Factor(2.0), "out": entry.out}))
    twice = (entry, convolution, entry)
    unknown = (entry._replace(out=Feature(3, UNKNOWN_WIDTH)), convolution)
    for changed, message in (
        (replace(head, trunk=replace(head.trunk, width=9)), "the trunk gives 8 channels, not 9"),
        (replace(head, predictions=(replace(prediction, nodes=without), *others)), "cls_logits does not end in a convolution"),
        (replace(head, predictions=(replace(prediction, nodes=twice), *others)), f"two nodes are called {entry.id}"),
        (replace(head, predictions=(replace(prediction, nodes=unknown), *others)), f"{entry.id} has the width {UNKNOWN_WIDTH}"),
        (
            replace(head, trunk=replace(head.trunk, layers=(replace(layer, norms_per_level=True),))),
            "has all weights for each level, and is marked as if norms only",
        ),
    ):
        with pytest.raises(VerifyError, match=re.escape(message)):
            verify(replace(graph, head=changed))


def test_verify_after_a_pass_looks_at_the_head_where_it_or_the_pyramid_has_changed() -> None:
    graph = PUBLISHED.lower(random_decoders.CHANNELS)
    verify(graph, before=graph)
    for number, changed in enumerate(broken_graphs()):
        with pytest.raises(VerifyError):
            verify(changed, before=graph)
        assert changed is not graph, number
    other = PUBLISHED.with_width(128).lower(random_decoders.CHANNELS)
    with pytest.raises(VerifyError, match="does not take 128 channels"):
        verify(replace(other, head=graph.head), before=graph)


def test_towers_of_one_chain_share_its_layers() -> None:
    cls, box = PUBLISHED.lower(random_decoders.CHANNELS).head.towers
    assert cls.layers is box.layers
    assert (cls.name, box.name) == ("cls", "box")


@pytest.mark.parametrize("dead", ["z = conv_1x1(x, width=64)", "z = conv_1x1(y) w = conv_3x3(z)"])
def test_what_nothing_reads_in_a_block_of_the_head_is_not_built(dead: str) -> None:
    """It has no cost, no parameters and no part in the digest, as in the fpn, and figures of a space agree."""
    text = (
        "block t(x) -> (y) {{ y = conv_3x3(x) {} }} decoder d {{ input c3, c4 fpn(width=32) {{ output p3 = c3, p4 = c4 }} "
        "head(width=32) {{ t -> {} }} predict fcos }}"
    )
    without, whole = (nasdsl.loads(text.format(part, "conv_3x3")) for part in ("", dead))
    assert whole.digest == without.digest
    assert whole.cost().head == without.cost().head
    assert [(v.macs, v.params) for v in whole.cost().nodes] == [(v.macs, v.params) for v in without.cost().nodes]
    modules = [decoder.build({"c3": 8, "c4": 8}, 3).state_dict() for decoder in (without, whole)]
    assert list(modules[0]) == list(modules[1])
    figures = nasdsl.loads_space(text.format(dead, "?(conv_3x3 | conv_1x1)")).figures((0,))
    assert figures is not None
    assert figures.params == whole.cost().decoder.params
