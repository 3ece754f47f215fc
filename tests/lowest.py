"""Tests that need more than the lowest versions that the package asks for; the package says so itself where a user meets it."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.version import Version

from nasdsl.backends.torch_export import OLDEST_TORCH


def _lacks(package: str, version: str) -> bool:
    """Whether a package is older than a version, or not there."""
    try:
        return Version(importlib.metadata.version(package)) < Version(version)
    except importlib.metadata.PackageNotFoundError:
        return True


exports_programs = pytest.mark.skipif(
    _lacks("torch", ".".join(map(str, OLDEST_TORCH))), reason="this torch cannot export programs for images of any size"
)
runs_deform_conv = pytest.mark.skipif(_lacks("onnxruntime", "1.25"), reason="this onnxruntime has no DeformConv on a CPU")
imagines_a_gpu = pytest.mark.skipif(
    _lacks("torch", "2.5"), reason="torch 2.4 asks the driver where tensors without values are on a GPU"
)
