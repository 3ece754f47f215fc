"""Canonical text of a graph, and its hash.

Two decoders have one canonical text when they compute the same function in the same way: names, the order of statements,
the order of commutative operands, skips, dead values, and whether something was written with `repeat`, `block`, `let`,
`use` or an op, leave no trace in it. It is a text of the language: read again, it gives itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nasdsl.ir.graph import Graph, HeadLayer, Node, Tower
from nasdsl.layers import (
    WITHOUT_WEIGHTS,
    Activation,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    Features,
    GlobalPool,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
    attribute_texts,
)
from nasdsl.semantics.architecture import DetectorPart
from nasdsl.syntax.build import number_digits
from nasdsl.syntax.printer import print_name

_COMMUTATIVE = (Add, Multiply, Maximum, WeightedAdd)
_DEEPEST = 12  # nested calls in one statement
_MOST_TRIALS = 64  # texts that are compared where twins are tied
_MOST_PICKS = 200  # twins that are distinguished one by one
_DEFAULT_KERNEL = 3  # of the prediction convolutions


def digest(graph: Graph) -> str:
    """Hash of the canonical text, the decoder's name aside: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_text(graph, name="_").encode()).hexdigest()


def canonical_text(graph: Graph, name: str | None = None) -> str:
    """The canonical text of a graph, under its own name or another; any backbone gives the same."""
    fpn = Section(graph.nodes, graph.outputs)
    lines = []
    inputs = sorted(n.layer.name for n in graph.nodes if isinstance(n.layer, Input))
    lines += [f"decoder {name or graph.name} {{", *_detector(graph.detector), f"  input {', '.join(inputs)}", ""]
    width = min(graph.pyramid_widths.values())
    section = f"width={width}, norm=none, act=none"
    lines.append(f"  fpn({section}, adapter=none) {{")
    lines += [f"    {line}" for line in fpn.statements()]
    lines += ["  }", ""]
    towers, share, blocks = _towers(graph)
    prediction = _prediction(graph, blocks)
    # Written where it is not the default: texts older than it keep their digests.
    of_level = any(layer.norms_per_level for tower in graph.head.chains for layer in tower.layers)
    lines.append(f"  head({section}, share={share}{', norms=level' if of_level else ''}) {{")
    lines += [f"    {name}: {' -> '.join(steps)}" for name, steps in towers]
    lines += ["  }", ""]
    lines += [f"  predict {prediction}", "}", ""]
    return "\n".join([*blocks.values(), *lines])


def _detector(detector: DetectorPart | None) -> list[str]:
    """The line of the detector that the decoder is for; none where its text names none: its digest is as without them."""
    if detector is None:
        return []
    size = [] if detector.size is None else ["size={}x{}".format(*detector.size)]
    backbone = [] if detector.backbone is None else [f"backbone={print_name(detector.backbone)}"]
    return [f"  detector({', '.join(size + backbone)})"]


def _prediction(graph: Graph, blocks: dict[str, str]) -> str:
    """What is predicted, and by which layers: what is not the default, so that older texts keep their digests.

    The op of ``conv=`` becomes a block. Towers of several widths have such a one only where it is a single convolution, whose
    width does not count.
    """
    first = graph.head.predictions[0]
    common = [] if first.shared else ["share=false"]
    last = first.nodes[-1]
    if isinstance(last.layer, Conv) and first.is_plain and last.layer == Conv(first.width, last.layer.k, bias=True):
        if last.layer.k != _DEFAULT_KERNEL:
            common.append(f"kernel={last.layer.k}")
    else:
        common.append(f"conv={_step(HeadLayer(0, first.op, True, first.nodes, last.id, last.span), blocks)}")
    return graph.predict.text(tuple(common))


class Section:
    """Orders the nodes of one section by structure alone.

    Attributes:
        kept: the nodes, of equal ones without parameters the first.
        sets: ids of the nodes of each set of weights that several share.
        color: a color for each of them, by which they are ordered.
    """

    def __init__(self, nodes: Sequence[Node], outputs: Mapping[str, str]) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.outputs = outputs
        self.sets: dict[str, list[str]] = {}
        for node in nodes:
            if node.shared and not isinstance(node.layer, WITHOUT_WEIGHTS):
                self.sets.setdefault(node.weights, []).append(node.id)
        self.sets = {weights: ids for weights, ids in self.sets.items() if len(ids) > 1}
        self.same: dict[str, str] = {}  # node id to the id of the node that stands for it
        self._merge_equal(nodes)
        self.kept = [node for node in nodes if self.same[node.id] == node.id]
        self.color = self._colors()

    def inputs(self, node: Node) -> list[str]:
        return [self.same[i] for i in node.inputs]

    def is_ordered(self, node: Node) -> bool:
        """Whether the order of a node's operands matters: also that of a weighted sum whose weights other nodes have."""
        is_weighted = isinstance(node.layer, WeightedAdd) and node.weights in self.sets
        return is_weighted or not isinstance(node.layer, _COMMUTATIVE)

    def ordered_inputs(self, node: Node) -> list[str]:
        inputs = self.inputs(node)
        return inputs if self.is_ordered(node) else sorted(inputs, key=lambda i: self.color[i])

    def _merge_equal(self, nodes: Sequence[Node]) -> None:
        """Layers without parameters that have the same operands are one."""
        known: dict[tuple[Layer, tuple[str, ...]], str] = {}
        for node in nodes:
            self.same[node.id] = node.id
            if isinstance(node.layer, WITHOUT_WEIGHTS):
                inputs = tuple(self.same[i] for i in node.inputs)
                key = (node.layer, tuple(sorted(inputs)) if isinstance(node.layer, _COMMUTATIVE) else inputs)
                self.same[node.id] = known.setdefault(key, node.id)

    def _colors(self) -> dict[str, bytes]:
        """A color for each node that depends on its place in the graph and not on names.

        First what it computes (its layer and the colors of its operands), then, until nothing changes, who reads it:
        twins that compute alike and are read differently come apart (color refinement of Weisfeiler and Leman).
        """
        return self._refined(self.with_output_names(self.computed_colors()))

    def computed_colors(self, marks: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """A color for what each node computes: its layer and the colors of its operands.

        Args:
            marks: of nodes, to tell them from others that compute the same.
        """
        color: dict[str, bytes] = {}
        for node in self.kept:
            operands = [color[i] for i in self.inputs(node)]
            if not self.is_ordered(node):
                operands.sort()
            color[node.id] = _hash(repr(node.layer).encode(), *operands)
            if marks and node.id in marks:
                color[node.id] = _hash(color[node.id], marks[node.id])
        return color

    def with_output_names(self, color: Mapping[str, bytes]) -> dict[str, bytes]:
        """The colors, with those of outputs told apart by their names."""
        named = dict(color)
        for name, output in self.outputs.items():
            output = self.same[output]
            named[output] = _hash(named[output], name.encode())
        return named

    def _refined(self, color: dict[str, bytes]) -> dict[str, bytes]:
        """Colors refined until nothing changes."""
        count = len(set(color.values()))
        while count < len(color):
            color = self.refine(color)
            now = len(set(color.values()))
            if now == count:
                break
            count = now
        return color

    def refine(self, color: Mapping[str, bytes]) -> dict[str, bytes]:
        """Colors refined once by who reads a node, by what it reads, and by which nodes have its weights."""
        seen_from: dict[str, list[bytes]] = {i: [] for i in color}
        for node in self.kept:
            ordered = self.is_ordered(node)
            for place, source in enumerate(self.inputs(node)):
                seen_from[source].append(_hash(color[node.id], bytes([place % 256]) if ordered else b"any"))
        refined = {i: _hash(color[i], *sorted(seen_from[i])) for i in color}
        for node in self.kept:  # and what twins that came apart are operands of
            operands = [refined[i] for i in self.inputs(node)]
            if not self.is_ordered(node):
                operands.sort()
            refined[node.id] = _hash(refined[node.id], *operands)
        for ids in self.sets.values():
            together = sorted(refined[i] for i in ids)
            refined.update({i: _hash(refined[i], *together) for i in ids})
        return refined

    def settle(self, text: Callable[[], list[str]]) -> list[str]:
        """What `text` gives once every node has a color of its own.

        Twins that refinement leaves alike are distinguished by picking one and refining again. Where a symmetry exchanges
        them, any pick gives the same text; where none does, all are tried, up to `_MOST_TRIALS`, and the least text is it.
        """
        return self._settled(text, _MOST_TRIALS, _MOST_PICKS)

    def _settled(self, text: Callable[[], list[str]], trials: int, picks: int) -> list[str]:
        members: dict[bytes, list[str]] = {}
        for name, value in self.color.items():
            members.setdefault(value, []).append(name)
        tied = min((c for c, names in members.items() if len(names) > 1), default=None)
        if tied is None or not picks:
            return text()
        candidates = members[tied] if len(members[tied]) <= trials else members[tied][:1]
        before, found = self.color, []
        for name in candidates:
            self.color = self._refined({**before, name: _hash(before[name], b"picked")})
            found.append(self._settled(text, trials // len(candidates), picks - 1))
        self.color = before
        return min(found)

    def statements(self) -> list[str]:
        """The section's statements: shared values named v1, v2, … in the order in which the outputs need them."""
        ends = [(name, self.same[o]) for name, o in self.outputs.items()]
        return self.settle(lambda: self._print(ends, lambda name, text: f"output {name} = {text}"))

    def body(self, result: str) -> list[str]:
        """Statements of a block that binds ``y``."""
        return self.settle(lambda: self._print([("y", self.same[result])], lambda name, text: f"{name} = {text}"))

    def _print(self, ends: Sequence[tuple[str, str]], end: Callable[[str, str], str]) -> list[str]:
        readers: dict[str, int] = {}
        for node in self.kept:
            for source in self.inputs(node):
                readers[source] = readers.get(source, 0) + 1
        for _, target in ends:
            readers[target] = readers.get(target, 0) + 1
        named = {self.inputs(node)[-1] for node in self.kept if _names_last(node)}
        names: dict[str, str] = {n.id: n.layer.name for n in self.kept if isinstance(n.layer, Input)}
        depth = dict.fromkeys(names, 0)
        text = dict(names)
        lines: list[str] = []
        number = several = 0
        shared: dict[str, str] = {}  # name of the `shared` op of each set of weights
        for name, target in ends:
            stack = [target]
            while stack:
                at = stack[-1]
                waiting = [i for i in self.ordered_inputs(self.nodes[at]) if i not in text]
                if at in text:
                    stack.pop()
                elif waiting:
                    stack += reversed(waiting)
                else:
                    stack.pop()
                    node = self.nodes[at]
                    operands = self.ordered_inputs(node)
                    if isinstance(node.layer, Result):
                        text[at], depth[at] = f"{text[operands[0]]}{node.layer.index + 1}", 0
                        continue
                    if node.weights in self.sets:
                        if node.weights not in shared:
                            shared[node.weights] = f"w{len(shared) + 1}"
                            lines.append(_shared_op(shared[node.weights], node))
                        text[at] = f"{shared[node.weights]}({', '.join(text[i] for i in operands)})"
                    else:
                        text[at] = call(node.layer, [text[i] for i in operands], node.out.width)
                    depth[at] = 1 + max((depth[i] for i in operands), default=0)
                    if isinstance(node.out, Features):  # s1_1, s1_2 = split(…), whatever of them is read
                        several += 1
                        bound = ", ".join(f"s{several}_{i}" for i in range(1, len(node.out.results) + 1))
                        lines.append(f"{bound} = {text[at]}")
                        text[at], depth[at] = f"s{several}_", 0
                    elif readers[at] > 1 or depth[at] > _DEEPEST or at in named:
                        number += 1
                        lines.append(f"v{number} = {text[at]}")
                        text[at], depth[at] = f"v{number}", 0
            lines.append(end(name, text[target]))
        return lines


def _names_last(node: Node) -> bool:
    """Whether the last operand is an attribute, ``by=`` or ``offset=``, which takes the name of a value and no call."""
    return isinstance(node.layer, PlacewiseAdd) or (isinstance(node.layer, DeformConv) and len(node.inputs) > 1)


def _shared_op(name: str, node: Node) -> str:
    """The statement of an op that is this layer, and whose calls have one set of weights."""
    names = [f"x{i}" for i in range(1, len(node.inputs) + 1)]
    return f"shared {name}({', '.join(names)}) = {call(node.layer, names, node.out.width)}"


def call(layer: Layer, operands: Sequence[str], width: int) -> str:
    """A layer as a call in the language, with every attribute that a section could change."""
    x = ", ".join(operands)
    match layer:
        case Input():
            return layer.name
        case Conv():
            return f"conv({x}, {_conv(layer)}, bias={str(layer.bias).lower()})"
        case DeformConv():
            given = f", offset={operands[1]}" if len(operands) > 1 else ""
            rest = f"offset_groups={layer.offset_groups}, bias={str(layer.bias).lower()}{given}"
            return f"deform_conv({operands[0]}, {_conv(layer)}, {rest})"
        case UpConv():
            return f"up_conv({x}, {_up_conv(layer)}, bias={str(layer.bias).lower()})"
        case PixelShuffle():
            return f"pixel_shuffle({x}, factor={layer.factor})"
        case Carafe():
            sizes = f"factor={layer.factor}, k={layer.k}, encoder_k={layer.encoder_k}, compressed={layer.compressed}"
            return f"carafe({x}, {sizes})"
        case Attention():
            return f"attention({x}, heads={layer.heads}, position={layer.position})"
        case Norm():
            return f"norm({x}, norm={layer.norm})"
        case Activation():
            return f"{layer.function}({x})"
        case Resize():
            return f"resize({x}, to={layer.level}, mode={layer.mode})"
        case Pool():
            return f"pool({x}, k={layer.k}, stride={layer.stride}, kind={layer.pool})"
        case GlobalPool():
            return f"global_pool({x}, kind={layer.pool})"
        case Scale() | Add() | Multiply() | Maximum() | WeightedAdd() | Concat():
            return f"{layer.kind}({x})"
        case PlacewiseAdd():
            return f"{layer.kind}({', '.join(operands[:-1])}, by={operands[-1]})"
        case Factor():
            return f"mul({x}, {_number(layer.value)})"
        case Term():
            return f"add({x}, {_number(layer.value)})"
        case Split():
            return f"split({x}, parts={layer.parts})"
        case Result():
            return operands[0]
        case CustomLayer():
            return f"{layer.kind}({x}{_fields(layer)})"


def _number(value: float) -> str:
    return number_digits(value).removesuffix(".0")


def _conv(layer: Conv | DeformConv) -> str:
    parts = [f"k={layer.k}", f"width={layer.width or 'in'}"]
    parts += [f"{name}={value or 'in'}" for name in ("stride", "dilation", "groups") if (value := getattr(layer, name)) != 1]
    return ", ".join(parts)


def _up_conv(layer: UpConv) -> str:
    parts = [f"k={layer.k}", f"width={layer.width or 'in'}", f"stride={layer.stride}"]
    return ", ".join([*parts, *([f"groups={layer.groups or 'in'}"] if layer.groups != 1 else [])])


def _fields(layer: CustomLayer) -> str:
    return "".join(f", {name}={value}" for name, value in attribute_texts(layer).items())


@dataclass(frozen=True, slots=True)
class _Step:
    text: str
    shared: bool


def _towers(graph: Graph) -> tuple[list[tuple[str, list[str]]], int, dict[str, str]]:
    """The chains, the sharing index, and the blocks that they call.

    Layers that do nothing are left out, and the sharing index moves with them; a layer without weights counts as shared
    where all behind it are. Where the towers then differ in their number of layers per level, `skip` fills the gap. A trunk
    without layers is none, and a tower without layers behind a trunk is left out.
    """
    blocks: dict[str, str] = {}
    chains: dict[str, list[_Step]] = {}
    for tower in graph.head.towers:
        chains[tower.name] = _chain(tower, blocks)
    per_level = {name: sum(not s.shared for s in steps) for name, steps in chains.items()}
    share = max(per_level.values(), default=0)
    towers = []
    trunk = [] if graph.head.trunk is None else _chain(graph.head.trunk, blocks)
    for name, steps in chains.items():
        texts = ["skip"] * (share - per_level[name]) + [s.text for s in steps]
        if steps or not trunk:
            towers.append((name, texts or ["skip"]))
    if trunk:  # where a tower has a layer per level, all of the trunk are
        share = share + len(trunk) if share else sum(not s.shared for s in trunk)
        towers.insert(0, ("both", [s.text for s in trunk]))
    return towers, share, blocks


def _chain(tower: Tower, blocks: dict[str, str]) -> list[_Step]:
    layers = tower.effective_layers
    last = max((i for i, layer in enumerate(layers) if not layer.shared and layer.has_weights), default=-1)
    return [_Step(_step(layer, blocks), i > last) for i, layer in enumerate(layers)]


def _step(layer: HeadLayer, blocks: dict[str, str]) -> str:
    """A layer of the chain: a block of its own, called by a name made from what it does."""
    statements = Section(layer.nodes, {}).body(layer.result)
    body = "; ".join(statements)
    name = "layer_" + hashlib.sha256(body.encode()).hexdigest()[:8]
    blocks.setdefault(name, f"block {name}(x) -> (y) {{ {body} }}")
    return name


def _hash(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"\x00".join(parts), digest_size=16).digest()
