"""GroupNorm: the layer, and its implementations.

On a GPU, `nasdsl.nn.group_norm.autotune` picks the faster of torch's own and `nasdsl.nn.group_norm.triton`, which keeps maps in
channels-last format. Elsewhere it is torch's own.
"""

from nasdsl.nn.group_norm.layer import GroupNorm

__all__ = ["GroupNorm"]
