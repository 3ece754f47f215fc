"""Searches over whole detectors: the proxy task of each backbone and image size, and the evaluation that chooses among them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from nasdsl.decoder import loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.errors import SearchError
from nasdsl.search.evaluation import EvaluationResult
from nasdsl.search.trial import Thresholds
from nasdsl.spaces import Space

if TYPE_CHECKING:
    from nasdsl.search.proxy_evaluation import ProxyEvaluation
    from nasdsl.training.proxy import ProxySpec

DetectorKey: TypeAlias = tuple[str | None, tuple[int, int] | None]
"""Backbone and image size of a text, each None where ``detector(…)`` does not name it."""


def detector_key(text: str) -> DetectorKey:
    """Backbone and size that the text of a decoder names."""
    decoder = loads(str(text), "the text")
    return decoder.backbone, decoder.size


def key_name(key: DetectorKey) -> str:
    """A backbone and size for people: ``mobilenet_v2, 240x320``."""
    backbone, size = key
    return ", ".join([*([backbone] if backbone else []), *([f"{size[0]}x{size[1]}"] if size else [])]) or "any detector"


def proxy_specs(
    space: Space,
    spec: ProxySpec,
    *,
    shorter_side: int | None = None,
    weights: Callable[[str], str | None] | None = None,
) -> dict[DetectorKey, ProxySpec]:
    """The proxy task of each detector that the fillings of a space are for; empty where its text names none.

    Images are resized to the detector's own size. With one size, crops have their shorter side, rounded down to a multiple of
    the largest stride. With several, whole images are trained on, because crops would be another share of the image at each
    size, and the fewer boxes are cut, the smaller is the loss; and ``unassigned_loss`` is set: with both, losses compare. The
    tasks share the spec's ``memory_limit``.

    Args:
        space: whose text may name sizes and backbones.
        spec: all other settings.
        shorter_side: of the images of the largest size, in pixels, to train the proxy on smaller images than the detector's.
            Other sizes are scaled by the same factor, so that they keep their ratios. None: the detector's own sizes.
        weights: of the backbone of this name. None: the spec's, for all.

    Raises:
        SearchError: `shorter_side` is larger than that of the largest size.
    """
    if len(space.sizes) > 1 and spec.reward == "loss" and spec.unassigned_loss is None:
        from nasdsl.training.proxy.defaults import UNASSIGNED_LOSS

        spec = replace(spec, unassigned_loss=UNASSIGNED_LOSS)
    if not space.sizes and not space.backbones:
        return {}
    factor = 1.0
    if space.sizes and shorter_side is not None:
        largest = max(space.sizes, key=min)
        factor = shorter_side / min(largest)
        if factor > 1:
            raise SearchError(
                f"the proxy's shorter side is {shorter_side} pixels, and the detector's images have {largest[0]}x{largest[1]}; "
                f"expected {min(largest)} or less: it is for training the proxy on smaller images"
            )
    stride = 1 << max(int(name[1:]) for name in spec.levels or space.inputs)
    found: dict[DetectorKey, ProxySpec] = {}
    keys = list(itertools.product(space.backbones or (None,), space.sizes or (None,)))
    for backbone, size in keys:
        changes: dict[str, Any] = {"memory_limit": spec.memory_limit // len(keys)}
        if backbone is not None:
            changes["backbone"] = backbone
            if weights is not None:
                changes["backbone_weights"] = weights(backbone)
        if size is not None:
            height, width = (max(1, round(side * factor)) for side in size)
            side = max(1, min(height, width) // stride) * stride
            changes |= {"image_size": (height, width), "size": side, "longest": max(side, height, width)}
            changes |= {"whole_images": len(space.sizes) > 1}
        found[backbone, size] = replace(spec, **changes)
    return found


def described(texts: Sequence[str]) -> dict[str, list[str]]:
    """Size, backbone and width of decoders, by name of the column; those that are the same in all are left out."""
    columns: dict[str, list[str]] = {"size": [], "backbone": [], "width": []}
    for text in texts:
        size = backbone = width = ""
        with suppress(DiagnosticError):
            decoder = loads(str(text), "the text")
            size = "" if decoder.size is None else f"{decoder.size[0]}x{decoder.size[1]}"
            backbone, width = decoder.backbone or "", str(decoder.architecture.fpn.width)
        for column, value in zip(columns.values(), (size, backbone, width), strict=True):
            column.append(value)
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


class DetectorEvaluation:
    """Evaluation of decoders of several backbones and sizes, each on the proxy task of its own. It can be pickled.

    Args:
        evaluations: by backbone and size.

    Attributes:
        identity: everything that rewards depend on besides the text, as plain values; the `task` of `search`.
    """

    def __init__(self, evaluations: Mapping[DetectorKey, ProxyEvaluation]) -> None:
        self.evaluations = dict(evaluations)

    @property
    def identity(self) -> dict[str, Any]:
        """See the class."""
        return {"detectors": {key_name(key): evaluation.identity for key, evaluation in self.evaluations.items()}}

    def settings(self) -> dict[str, Any]:
        """Plain values from which `from_settings` makes this evaluation elsewhere; see `ProxyEvaluation.settings`."""
        return {"detectors": [[backbone, size, e.settings()] for (backbone, size), e in self.evaluations.items()]}

    @staticmethod
    def from_settings(settings: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> DetectorEvaluation:
        """Make an evaluation, and its features unless they are cached; see `ProxyEvaluation.from_settings`.

        Args:
            settings: those of another process, from its `settings`.
            changes: of the spec, on this machine.
        """
        from nasdsl.search.proxy_evaluation import ProxyEvaluation

        return DetectorEvaluation(
            {
                (backbone, None if size is None else (size[0], size[1])): ProxyEvaluation.from_settings(each, changes)
                for backbone, size, each in settings["detectors"]
            }
        )

    def prepare(self, *, keep: bool = True, share_on: Sequence[str] = ()) -> None:
        """Make the features of all tasks, one after the other; see `ProxyEvaluation.prepare`.

        Args:
            keep: keep the tasks in this process, which will evaluate texts itself.
            share_on: GPUs in whose memory this process keeps the features for others.
        """
        for evaluation in self.evaluations.values():
            evaluation.prepare(keep=keep, share_on=share_on)

    def release(self) -> None:
        """Free what this process keeps for others, which must be gone."""
        for evaluation in self.evaluations.values():
            evaluation.release()

    def __call__(self, text: str, thresholds: Thresholds | None = None) -> EvaluationResult:
        """Evaluate a decoder on the task of its backbone and size; see `ProxyEvaluation`.

        Raises:
            SearchError: there is none for them.
        """
        key = detector_key(text)
        evaluation = self.evaluations.get(key)
        if evaluation is None:
            known = "; ".join(map(key_name, self.evaluations))
            raise SearchError(f"the text is for {key_name(key)}; expected one of: {known}")
        return evaluation(text, thresholds)
