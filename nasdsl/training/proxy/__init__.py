"""The proxy task of the search: a decoder's reward after a short training on cached features (arXiv:1906.04423, section 4.1.1).

Modules: `spec` (the settings), `task` (text in, reward out), `extraction` (features of the backbone), `feature_batches` (of
many pictures), `features` (their array, and crops of it), `cache` (that array on the disk, resumable, shared), `resident` (in
the memory of a GPU), `sharing` (there, for several processes), `crops` (sampling, boxes and targets of crops), `loader`
(batches), `transfer` (copies of them beside the computation), `step` (a training step, as a CUDA graph), `loop` (training and
validation), `metrics` (AP of crops), `fpn_features` (features of the second stage), `memory` (memory limits), `latency` (of a
decoder alone), `timer`, `errors`.
"""

from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.errors import DeviceLost, Failed, NonFiniteFeatures, OutOfMemory, ProxyError, Stopped
from nasdsl.training.proxy.spec import ProxySpec
from nasdsl.training.proxy.task import ProxyResult, ProxyTask

__all__ = [
    "DeviceLost", "Diverged", "Failed", "NonFiniteFeatures", "OutOfMemory", "ProxyError", "ProxyResult", "ProxySpec",
    "ProxyTask", "Stopped",
]  # fmt: skip
