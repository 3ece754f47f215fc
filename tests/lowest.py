"""Tests that need more than the lowest versions that the package asks for; the package says so itself where a user meets it."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.version import Version

from nasdsl.backends.torch_export import OLDEST_TORCH


def _is_below(package: str, version: str) -> bool:
    return Version(importlib.metadata.version(package)) < Version(version)


exports_programs = pytest.mark.skipif(
    _is_below("torch", ".".join(map(str, OLDEST_TORCH))), reason="this torch cannot export programs for images of any size"
)
runs_deform_conv = pytest.mark.skipif(_is_below("onnxruntime", "1.25"), reason="this onnxruntime has no DeformConv on a CPU")
imagines_a_gpu = pytest.mark.skipif(
    _is_below("torch", "2.6"), reason="this torch asks the driver where tensors without values are on a GPU"
)
