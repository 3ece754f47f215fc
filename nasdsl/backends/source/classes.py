"""Source of the classes ``Fpn`` and ``Head``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

from nasdsl.backends.export import sized_levels
from nasdsl.backends.source.writer import StatementWriter, Tree, constructor_call, module_source, module_tree
from nasdsl.ir.graph import Graph, HeadLayer, Node, Prediction
from nasdsl.layers import Input, Norm
from nasdsl.predictions.kind import MAPS


def fpn_class(graph: Graph) -> list[str]:
    tree = module_tree(graph.nodes)
    inputs = {n.layer.name: f'features["{n.layer.name}"]' for n in graph.inputs() if isinstance(n.layer, Input)}
    results = list(graph.outputs.values())
    writer = StatementWriter(graph.nodes, results, lambda n: f"self.{n.weights}", inputs)
    lines = [
        "class Fpn(Group):",
        '    """Feature pyramid network."""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(f"        self.{name} = {module_source(entry, '        ')}" for name, entry in tree.items()),
        "",
        "    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:",
        *_sizes(graph),
        *(f"        {line}" for line in writer.lines),
    ]
    bound = ", ".join(f'"{name}": {writer.text[node]}' for name, node in graph.outputs.items())
    return [*lines, f"        return {{{bound}}}", "", ""]


def _sizes(graph: Graph) -> list[str]:
    """Statements that assign `size`: height and width of each level that something is resized to."""
    needed = sized_levels(graph.nodes)
    known = {n.out.level: n.layer.name for n in graph.inputs() if isinstance(n.layer, Input) and n.out.level is not None}
    entries = []
    for level in needed:
        finer = [k for k in known if k <= level]
        nearest = max(finer) if finer else min(known)
        shape = f'features["{known[nearest]}"].shape[2:]'
        factor = 2 ** abs(level - nearest)
        if nearest == level:
            entries.append(f"{level}: {shape}")
        elif nearest < level:
            entries.append(f"{level}: [(n + {factor - 1}) // {factor} for n in {shape}]")
        else:
            entries.append(f"{level}: [n * {factor} for n in {shape}]")
    if not entries:
        return []
    return [
        "        # Height and width of the levels that features are resized to.",
        f"        size = {{{', '.join(entries)}}}",
    ]


def head_class(graph: Graph, *, exact_boxes: bool = False) -> list[str]:
    """Lines of the class ``Head``; see `nasdsl.backends.source.decoder_classes`."""
    levels = tuple(graph.outputs)
    predictions = {p.name: p for p in graph.head.predictions}
    form = predictions["bbox_reg"].form
    strides = json.dumps({level: 2 ** graph.levels[level] for level in levels})
    lines = [
        "class Head(Group):",
        '    """Towers and prediction convolutions, applied to every level."""'
        if graph.head.trunk is None
        else '    """A trunk, towers that go on from it, and prediction convolutions, applied to every level."""',
        "",
        f"    levels = {levels!r}",
        *([f"    strides = {strides}"] if form == "relu" else []),
        "",
        "    def __init__(self, classes: int) -> None:",
        "        super().__init__()",
    ]
    for tower in graph.head.chains:
        lines.append(f"        self.{tower.name} = nn.ModuleDict()")
        lines += [line for layer in tower.layers for line in _head_layer_init(tower.name, layer)]
    for p in graph.head.predictions:
        lines += _prediction_init(p)
    if form != "raw":
        lines.append("        self.scale = nn.ParameterDict({level: nn.Parameter(torch.ones(())) for level in self.levels})")
    for tower in graph.head.chains:
        lines += _tower(tower.name, tower.layers)
    trunk = graph.head.trunk
    read = "pyramid[level]" if trunk is None else trunk.name
    for p in graph.head.predictions:
        if not p.is_plain:
            lines += _prediction_method(p, exact=exact_boxes and p.name == "bbox_reg")
    maps = {name: _predicted(p, exact=exact_boxes and name == "bbox_reg") for name, p in predictions.items()}
    if form != "raw":
        box = f"self.scale[level] * {maps['bbox_reg']}"
        maps["bbox_reg"] = f"torch.relu({box}) * self.strides[level]" if form == "relu" else f"torch.exp({box})"
    lines += [
        "",
        "    def forward(self, pyramid: dict[str, Tensor]) -> dict[str, Prediction]:",
        "        predictions = {}",
        "        for level in self.levels:",
        *([] if trunk is None else [f"            {trunk.name} = self.tower_{trunk.name}(pyramid[level], level)"]),
        *(f"            {t.name} = self.tower_{t.name}({read}, level)" for t in graph.head.towers),
        "            predictions[level] = Prediction(",
        *(f"                {maps.get(name)}," for name in MAPS),
        "            )",
        "        return predictions",
        "",
        "",
    ]
    return lines


def _prediction_init(prediction: Prediction) -> list[str]:
    """Statements that construct the modules of a prediction."""
    terms = [f"{prediction.per_class} * classes" if prediction.per_class > 1 else "classes"] * (prediction.per_class > 0)
    channels = " + ".join([*terms, *([str(prediction.fixed)] if prediction.fixed else [])])
    place = f"        self.{prediction.name} = "
    if prediction.shared:
        return [place + module_source(_prediction_entry(prediction, prediction.nodes, channels), "        ")]
    entries = {
        level: _prediction_entry(prediction, nodes, channels)
        for level, nodes in _at_levels(prediction.nodes, prediction.by_level)
    }
    return _of_each_level(place, entries)


def _prediction_entry(prediction: Prediction, nodes: Sequence[Node], channels: str) -> Tree | str:
    """The modules of a prediction whose layers are these; `channels`: expression for those that it gives."""
    last = nodes[-1]
    bias = ", PRIOR_BIAS" if prediction.name == "cls_logits" else ""
    final = f"prediction({constructor_call(last, channels)}{bias})"
    return final if prediction.is_plain else module_tree(nodes, lambda node: final if node is last else constructor_call(node))


def _at_levels(nodes: tuple[Node, ...], by_level: Mapping[str, tuple[Node, ...]]) -> list[tuple[str, tuple[Node, ...]]]:
    """Layers of the head at each level; where they are the same at all, under the one name ""."""
    return list(by_level.items()) or [("", nodes)]


def _of_each_level(place: str, entries: Mapping[str, Tree | str]) -> list[str]:
    """Statements that assign a set of modules to each level; `entries` as of `_at_levels`."""
    calls = {level: module_source(entry, "            ") for level, entry in entries.items()}
    if "" in calls:
        return [place + "nn.ModuleDict({", f"            level: {calls['']} for level in self.levels", "        })"]
    return [place + "nn.ModuleDict({", *(f'            "{level}": {call},' for level, call in calls.items()), "        })"]


def _predicted(prediction: Prediction, *, exact: bool) -> str:
    """Expression of a prediction for ``level``."""
    if not prediction.is_plain:
        return f"self.predict_{prediction.name}({prediction.tower}, level)"
    conv = f"self.{prediction.name}" + ("" if prediction.shared else "[level]")
    return f"exact({conv}, {prediction.tower})" if exact else f"{conv}({prediction.tower})"


def _prediction_method(prediction: Prediction, *, exact: bool) -> list[str]:
    """A method that computes a prediction of several layers."""
    *before, last = prediction.nodes
    own = f"self.{prediction.name}" + ("" if prediction.shared else "[level]")
    writer = StatementWriter(before, last.inputs, lambda n: f"layer.{n.weights}", {"x": "x"})
    x, conv = writer.text[last.inputs[0]], f"layer.{last.weights}"
    return [
        "",
        f"    def predict_{prediction.name}(self, x: Tensor, level: str) -> Tensor:",
        f"        # {prediction.op}",
        f"        layer = {own}",
        *_sizes_at(prediction.nodes),
        *(f"        {line}" for line in writer.lines if not line.startswith("#")),
        f"        return exact({conv}, {x})" if exact else f"        return {conv}({x})",
    ]


def _sizes_at(nodes: Sequence[Node]) -> list[str]:
    """Statements that assign `size` in a layer of the head, relative to the level of ``x``."""
    needed = sized_levels(nodes)
    if not needed:
        return []
    entries = [f"{k}: [-(-n // {2**k}) for n in x.shape[2:]]" if k else "0: x.shape[2:]" for k in needed]
    return [f"        size = {{{', '.join(entries)}}}"]


def _head_layer_init(tower: str, layer: HeadLayer) -> list[str]:
    """Statements that construct the modules of a layer of the head; none where it has no modules."""
    place = f'        self.{tower}["{layer.index}"] = '
    if layer.shared:
        tree = module_tree(layer.nodes, partial(_constructor, layer))
        return [place + module_source(tree, "        ")] if tree else []
    trees = {level: module_tree(nodes) for level, nodes in _at_levels(layer.nodes, layer.by_level)}
    return _of_each_level(place, trees) if any(trees.values()) else []


def _constructor(layer: HeadLayer, node: Node) -> str | None:
    """Call that constructs the module of a node of a layer that all levels share, or those of a norm of each level."""
    call = constructor_call(node)
    if layer.norms_per_level and isinstance(node.layer, Norm):
        return f"nn.ModuleDict({{level: {call} for level in self.levels}})"
    return call


def _module(layer: HeadLayer, node: Node) -> str:
    """Expression of a node's module."""
    of_level = layer.norms_per_level and isinstance(node.layer, Norm)
    return f"layer.{node.weights}{'[level]' if of_level else ''}"


def _tower(name: str, layers: Sequence[HeadLayer]) -> list[str]:
    lines = ["", f"    def tower_{name}(self, x: Tensor, level: str) -> Tensor:"]
    for layer in layers:
        sharing = "shared by all levels" if layer.shared else "one for each level"
        sharing += ", with norms of each level" if layer.norms_per_level else ""
        if layer.is_identity:
            continue
        has_modules = any(constructor_call(n) is not None for n in layer.nodes)
        lines.append(
            f"        # {layer.index}: {layer.op}, {sharing}" if has_modules else f"        # {layer.index}: {layer.op}"
        )
        if has_modules:
            lines.append(f'        layer = self.{name}["{layer.index}"]' + ("" if layer.shared else "[level]"))
        lines += _sizes_at(layer.nodes)
        writer = StatementWriter(layer.nodes, [layer.result], partial(_module, layer), {"x": "x"})
        lines += [f"        {line}" for line in writer.lines if not line.startswith("#")]
        lines[-1] = f"        x = {writer.lines[-1].partition(' = ')[2]}"
    return [*lines, "        return x"]
