"""The proxy task of the search: how good a decoder is, after a short training on features that were computed once.

Section 4.1.1 of arXiv:1906.04423. Files: `spec` (what is done, as plain data), `features` (maps of all pictures in one
array, and crops of them), `cache` (that array made once, resumable, shared), `extraction` (the backbone's maps, and what
they depend on), `crops` (which part of which picture, and what is to be found there), `adaptation` (the short training),
`memory` (what it may take), `pyramid` (the second stage's features), `scoring` (AP of crops), `latency` (of a decoder alone),
`task` (text in, reward out).
"""

from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.errors import DeviceLost, Failed, NonFiniteFeatures, OutOfMemory, ProxyError, Stopped
from nasdsl.training.proxy.spec import ProxySpec
from nasdsl.training.proxy.task import ProxyTask, Scored

__all__ = [
    "DeviceLost", "Diverged", "Failed", "NonFiniteFeatures", "OutOfMemory", "ProxyError", "ProxySpec", "ProxyTask", "Scored",
    "Stopped",
]  # fmt: skip
