"""Starting a detector from the weights of another one: what both have in common is inherited.

A layer of the decoder inherits the weights of the layer that computes the same sub-graph, whatever it is called, or else of
one with the same name and shape; see `nasdsl.ir.matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from nasdsl.backbones import TIMM
from nasdsl.detection.detector import Detector
from nasdsl.detection.inheritance_result import Inheritance, Part, some
from nasdsl.ir.graph import Graph, HeadLayer, Node, Prediction
from nasdsl.ir.matching import Match, match_nodes
from nasdsl.layers import WeightedAdd
from nasdsl.predictions import PredictionKind

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked", "pixel_mean", "pixel_std")
_PREDICTIONS = {"cls_logits": "classification layer", "bbox_reg": "box layer", "centerness": "centerness layer"}

_Path = Callable[[Node], str]


class Origin(NamedTuple):
    """The detector that weights come from, as far as it is known.

    Attributes:
        backbone: its name; None: unknown, or a custom one.
        graph: of its decoder, or None.
        classes: their names, or None.
        holder: options of a detector that holds all of the weights, to be told where this one does not.
    """

    backbone: str | None = None
    graph: Graph | None = None
    classes: Sequence[str] | None = None
    holder: str | None = None


def inherit(detector: Detector, weights: Mapping[str, Tensor], origin: Origin, file: str) -> Inheritance:
    """Copy to a detector what it has in common with the detector that the weights are from.

    - The backbone inherits everything if it is the same network, and nothing if it is known to be another.
    - A layer of the decoder inherits all of its weights or none.
    - A layer of the head that all levels share gives its weights to each level where they are not shared, and so do its norms
      where each level has norms of its own.
    - Weights that calls of a `shared` op have in common are inherited only if they were common, or of one layer, before.
    - The classification layer inherits the rows of the classes that have the same names; all of them if the number of
      classes is the same and the names of either are not known.
    - The box layer inherits only from one that measures boxes in the same way.
    """
    copying = _Copying(detector, weights)
    copying.backbone(origin)
    decoder = detector.decoder.graph
    copying.fpn(origin.graph, decoder)
    copying.head(origin.graph, decoder, detector.decoder.head.levels)
    copying.predictions(origin, detector)
    return copying.finish(file, origin.holder)


class _Copying:
    """Collects the tensors that a detector inherits, and what is told about them."""

    def __init__(self, detector: Detector, weights: Mapping[str, Tensor]) -> None:
        self.detector = detector
        self.own = detector.state_dict()
        self.given = weights
        self.new: dict[str, Tensor] = {}
        self.used: set[str] = set()
        names = ("backbone", "fpn", "head", *_PREDICTIONS.values())
        self.parts = {name: Part(name) for name in names}
        for name, tensor in self.own.items():
            self.parts[_part_of(name)].total += _count(name, tensor)

    def finish(self, file: str, holder: str | None) -> Inheritance:
        """Load what was collected."""
        for name, tensor in self.new.items():
            self.parts[_part_of(name)].inherited += _count(name, tensor)
        self.detector.load_state_dict(self.new, strict=False)
        unused = sum(_count(name, tensor) for name, tensor in self.given.items() if name not in self.used)
        return Inheritance(file, tuple(part for part in self.parts.values() if part.total), unused, holder)

    def backbone(self, origin: Origin) -> None:
        part, name = self.parts["backbone"], self.detector.backbone.name
        if origin.backbone and name and not is_same_network(origin.backbone, name):
            part.notes.append(f"the weights are of {origin.backbone}, this is {name}, which keeps its own (--backbone-weights)")
            return
        names = [key for key in self.own if key.startswith("backbone.")]
        fitting = self._fitting({key: key for key in names})
        if origin.backbone and name and origin.backbone != name and not name.startswith(TIMM):
            part.notes.append(f"it has its strides elsewhere than {origin.backbone}, which the weights are of")
        is_complete = True
        for keys in _by_module(names).values():
            tensors = [key for key in keys if not key.endswith((".num_batches_tracked", "pixel_mean", "pixel_std"))]
            if all(key in fitting for key in tensors):
                self._copy({key: key for key in tensors})
            else:
                is_complete = False
        if is_complete:  # the counts of BatchNorms and the normalisation as well
            self._copy({key: key for key in fitting})
        else:
            part.notes.append("not all of its layers are in the file")

    def fpn(self, source: Graph | None, target: Graph) -> None:
        root = "decoder.fpn."
        if source is None:
            self._by_name([key for key in self.own if key.startswith(root)], self.parts["fpn"])
            return
        match = match_nodes(source.nodes, target.nodes, source.outputs, target.outputs)

        def path(node: Node) -> str:
            return f"{root}{node.weights}"

        missed = self._layers(source.nodes, target.nodes, match, path, path)
        self.parts["fpn"].note_missing([node.value.name for node in missed])

    def head(self, source: Graph | None, target: Graph, levels: Sequence[str]) -> None:
        part = self.parts["head"]
        if source is None:
            self._by_name([key for key in self.own if _part_of(key) == "head"], part)
            return
        towers = {tower.name: tower.effective_layers for tower in source.head.chains}
        missed: list[str] = []
        for tower in target.head.chains:
            chain = towers.get(tower.name, ())
            for place, layer in enumerate(tower.effective_layers):
                before = chain[place] if place < len(chain) else None
                missed += self._head_layer(tower.name, before, layer, levels, tuple(source.outputs))
        part.note_missing(missed)

    def _head_layer(
        self, tower: str, source: HeadLayer | None, target: HeadLayer, levels: Sequence[str], source_levels: Sequence[str]
    ) -> list[str]:
        """What is missing of a layer: its name, or nothing."""
        root = f"decoder.head.{tower}."
        label = f"{tower}.{target.index} ({target.op})"
        if not self._keys(f"{root}{target.index}."):
            return []
        if source is None:
            return [label]
        if target.shared and not source.shared:
            return [f"{label}, which has weights for each level in the file and shared ones here"]
        if source.norms_per_level and target.shared and not target.norms_per_level:
            return [f"{label}, which has norms for each level in the file and shared ones here"]
        match = match_nodes(source.nodes, target.nodes, {"y": source.result}, {"y": target.result})
        missing = False
        for level in levels if target.norms_per_level or not target.shared else ("",):
            if (source.norms_per_level or not source.shared) and level not in source_levels:
                missing = True
                continue
            paths = (lambda node, layer=layer, level=level: f"{root}{layer.path(node, level)}" for layer in (source, target))
            missing |= bool(self._layers(source.nodes, target.nodes, match, *paths))
        return [label] if missing else []

    def predictions(self, origin: Origin, detector: Detector) -> None:
        head, source = "decoder.head.", origin.graph
        target = detector.decoder.graph
        same_boxes = source is None or _measures_alike(source.predict, target.predict)
        for prediction in target.head.predictions:
            name = prediction.name
            part = self.parts[_PREDICTIONS[name]]
            if name == "bbox_reg" and not same_boxes:
                part.notes.append("the weights are of a detector that measures boxes in another way")
                continue
            before = None if source is None else next((p for p in source.head.predictions if p.name == name), None)
            missing = False
            for place in detector.decoder.head.places(prediction):
                names = self._prediction_names(place, prediction, before)
                missing |= not self._prediction(f"{head}{place}", names, prediction, part, origin, detector)
            if missing and prediction.shared and before is not None and not before.shared:
                part.notes.append("the weights have one for each level")
            if name == "bbox_reg" and not missing:
                scales = [key for key in self.own if key.startswith(f"{head}scale.")]
                self._copy({key: key for key in self._fitting({key: key for key in scales})})

    def _prediction_names(self, place: str, prediction: Prediction, before: Prediction | None) -> dict[str, str]:
        """The tensors of a prediction at a place, and the names of those that they would be copied from; none without a match.

        Args:
            before: the prediction that weights come from, where its text is known.
        """
        root, shared = f"decoder.head.{place}.", f"decoder.head.{prediction.name}."
        keys = self._keys(root)
        if before is None or (before.is_plain and prediction.is_plain):
            origin = root if any(f"{root}{key}" in self.given for key in keys) else shared  # one for all levels
            return {f"{root}{key}": f"{origin}{key}" for key in keys}
        if before.is_plain or prediction.is_plain or (prediction.shared and not before.shared):
            return {}
        origin = shared if before.shared else root
        ends = {"y": before.nodes[-1].id}, {"y": prediction.nodes[-1].id}
        pairs = match_nodes(before.nodes, prediction.nodes, *ends).pairs
        weights = {node.id: node.weights for node in before.nodes}
        found = {}
        for node in prediction.nodes[1:]:
            matched = weights.get(pairs.get(node.id, ""), "")
            for key in self._keys(f"{root}{node.weights}."):
                found[f"{root}{node.weights}.{key}"] = f"{origin}{matched}.{key}"
        return found

    def _prediction(
        self, place: str, names: Mapping[str, str], prediction: Prediction, part: Part, origin: Origin, detector: Detector
    ) -> bool:
        """Copy a prediction, or that of one level; whether it inherits all but the rows of classes.

        Args:
            place: path of its modules.
            names: of its tensors, and of those given.
        """
        last = f"{place}.{'' if prediction.is_plain else f'{prediction.place}.'}"
        final = {key: name for key, name in names.items() if key in (f"{last}weight", f"{last}bias")}
        rest = {key: name for key, name in names.items() if key not in final}
        wanted = [key for key in rest if not key.endswith(".num_batches_tracked")]
        if not final or not set(wanted) <= set(self._fitting(rest)) or any(n not in self.given for n in final.values()):
            return False
        if prediction.name != "cls_logits" and set(final) != set(self._fitting(final)):
            return False
        if prediction.name == "cls_logits" and not self._classes(final, part, origin, detector):
            return False
        self._copy({key: name for key, name in rest.items() if name in self.given})
        if prediction.name != "cls_logits":
            self._copy(final)
        return True

    def _classes(self, names: Mapping[str, str], part: Part, origin: Origin, detector: Detector) -> bool:
        """Copy the rows of the classes that both have; whether there are any.

        Args:
            names: of weight and bias here, and in what is given.
        """
        classes, known = list(detector.classes), list(origin.classes or ())
        (key, _), (name, bias_name) = names, names.values()
        weight, bias = self.given[name], self.given[bias_name]
        own = self.own[key]
        are_nameless = not known or (len(known) == len(classes) and (_are_numbers(known) or _are_numbers(classes)))
        if weight.shape == own.shape and (classes == known or are_nameless):
            self._copy(names)
            return True
        anchors = len(own) // len(classes)
        exact = {name: row for row, name in enumerate(known)}
        folded = {name.casefold(): row for row, name in enumerate(known)}
        found = [exact.get(name, folded.get(name.casefold())) for name in classes]
        rows = [(row, source_row) for row, source_row in enumerate(found) if source_row is not None]
        if weight.shape[1:] != own.shape[1:] or not known or len(weight) != anchors * len(known):
            part.note(f"it begins anew for {len(classes)} classes")
            return False
        if not rows:
            part.note(f"it begins anew: none of the {len(classes)} classes is among the {len(known)} of the weights")
            return False
        to, origins = (list(column) for column in zip(*rows, strict=True))
        for (key, name), tensor in zip(names.items(), (weight, bias), strict=True):
            new = self.own[key].clone().view(anchors, len(classes), *tensor.shape[1:])
            new[:, to] = tensor.reshape(anchors, len(known), *tensor.shape[1:])[:, origins].to(new)
            self.new[key] = new.flatten(0, 1)
            self.used.add(name)
        if len(rows) < len(classes):
            others = [name for row, name in enumerate(classes) if row not in to]
            part.note(f"anew are the classes {some(others)}")
            missing = (len(classes) - len(rows)) * (own[0].numel() + 1) * anchors
            part.inherited -= missing  # `finish` counts the whole layer
        return True

    def _layers(
        self, source: Sequence[Node], target: Sequence[Node], match: Match, source_path: _Path, target_path: _Path
    ) -> list[Node]:
        """Copy the weights of a section's layers; those of the target that inherit nothing although they have weights.

        Args:
            source_path, target_path: path of a node's weights in the file, and in the detector.
        """
        by_id = {node.id: node for node in source}
        pairs, taken = match.pairs, set(match.pairs.values())
        others: dict[str, Node] = {}
        origins: dict[str, set[str]] = {}  # of weights that several nodes have in common: where they would come from
        for node in target:
            other = by_id.get(pairs.get(node.id, ""))
            if other is None:
                named = by_id.get(node.id)
                other = named if named is not None and named.id not in taken and _is_alike(named, node) else None
            if other is not None:
                others[node.id] = other
                origins.setdefault(node.weights, set()).add(other.weights)
        missed = []
        for node in target:
            own = target_path(node)
            keys = self._keys(f"{own}.")
            if not keys:
                continue
            other = others.get(node.id)
            if other is None or len(origins[node.weights]) > 1:
                missed.append(node)
                continue
            given = source_path(other)
            names = {f"{own}.{key}": f"{given}.{key}" for key in keys}
            wanted = {to for to in names if not to.endswith(".num_batches_tracked")}
            fitting = self._fitting(names)
            if not wanted <= set(fitting):
                missed.append(node)
                continue
            self._copy({to: names[to] for to in fitting})
            if isinstance(node.layer, WeightedAdd) and node.id in match.operands:  # each operand has a weight
                key = f"{own}.weight"
                self.new[key] = self.new[key][list(match.operands[node.id])]
        return missed

    def _keys(self, root: str) -> list[str]:
        """Names of the tensors below a path, relative to it."""
        return [key.removeprefix(root) for key in self.own if key.startswith(root)]

    def _by_name(self, keys: Sequence[str], part: Part) -> None:
        missed = []
        for module, names in _by_module(keys).items():
            wanted = [key for key in names if not key.endswith(".num_batches_tracked")]
            if set(wanted) <= set(self._fitting({key: key for key in wanted})):
                self._copy({key: key for key in names if key in self.given})
            else:
                missed.append(module.split(".", 2)[2])
        part.note_missing(missed)

    def _fitting(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """The given tensors that have the shapes of the detector's, by its names."""
        return {
            to: self.given[name]
            for to, name in names.items()
            if name in self.given and self.given[name].shape == self.own[to].shape
        }

    def _copy(self, names: Mapping[str, str]) -> None:
        for to, name in names.items():
            self.new[to] = self.given[name]
            self.used.add(name)


def is_same_network(left: str, right: str) -> bool:
    """Whether two backbones have the same parameters.

    Those of torchvision may have their strides in different convolutions. Of ``timm:NAME.TAG``, the tag names weights.
    """
    return _network(left) == _network(right)


def _network(backbone: str) -> str:
    return backbone.partition(".")[0] if backbone.startswith(TIMM) else backbone.removesuffix("_v1.5")


def _part_of(key: str) -> str:
    """The part that a tensor belongs to."""
    section, _, rest = key.partition(".")
    if section == "backbone":
        return "backbone"
    where, _, name = rest.partition(".")
    if where == "fpn":
        return "fpn"
    first = name.split(".")[0]
    return {**_PREDICTIONS, "scale": _PREDICTIONS["bbox_reg"]}.get(first, "head")


def _count(name: str, tensor: Tensor) -> int:
    """The number of parameters of a tensor: statistics of BatchNorms are none."""
    return 0 if name.endswith(_STATISTICS) else tensor.numel()


def _by_module(keys: Sequence[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for key in keys:
        modules.setdefault(key.rpartition(".")[0], []).append(key)
    return modules


def _is_alike(left: Node, right: Node) -> bool:
    """Whether two layers are the same but for what they read."""
    widths = [[feature.width for feature in node.operands] for node in (left, right)]
    return left.layer == right.layer and widths[0] == widths[1] and left.out.width == right.out.width


def _measures_alike(left: PredictionKind, right: PredictionKind) -> bool:
    """Whether the boxes of two predictions mean the same."""
    return (left.boxes_are or left.kind) == (right.boxes_are or right.kind) and left.box_form == right.box_form


def _are_numbers(classes: Sequence[str]) -> bool:
    """Whether these are the names of classes without names."""
    return all(name == f"class {number}" for number, name in enumerate(classes))
