"""Warnings about a decoder that checks, and probably does not mean what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import lints
from nasdsl.layers import Norm
from nasdsl.semantics.architecture import Application, FpnPart, HeadPart


def layer_warnings(fpn: FpnPart, head: HeadPart) -> list[Diagnostic]:
    """Warnings about the layers of a decoder."""
    found = list(_pooled_batch_norms(fpn.applications))
    for tower in head.towers:
        for layer in tower.layers:
            found += _pooled_batch_norms(layer.applications)
    return found


def _pooled_batch_norms(applications: Sequence[Application]) -> Iterator[Diagnostic]:
    """BatchNorms of globally pooled values, which have one value per channel of an image."""
    for layer, _, feature, _, _, span in applications:
        if feature[0] is None and type(layer) is Norm and layer.norm == "bn":
            yield lints.pooled_batch_norm(span)
