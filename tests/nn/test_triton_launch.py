"""What launching a Triton kernel takes, where Triton is too old."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from nasdsl.nn.group_norm.triton import group_norm
from nasdsl.nn.triton_launch import require_triton


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    require_triton.cache_clear()
    yield
    require_triton.cache_clear()


@pytest.mark.parametrize("version", ["2.3.1", "3.0.0", "3.1.0"])
def test_an_older_triton_is_told(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    with pytest.raises(ImportError, match=rf"^needs Triton 3\.2 or newer, as torch 2\.6 has it; this is Triton {version}$"):
        group_norm(torch.rand(1, 4, 2, 2), torch.ones(4), torch.zeros(4), 2, 1e-5)


@pytest.mark.parametrize("version", ["3.2.0", "3.10.0+git1", "4.0"])
def test_a_newer_one_is_not(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(__version__=version))
    require_triton()
