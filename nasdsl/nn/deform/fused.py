"""Deformable convolution on a GPU in one Triton kernel: what is sampled goes into the matrix product without being stored.

A program computes a tile of positions and output channels, and samples again for each further tile of output channels. There
are no columns in memory and one launch, which pays in inference and for small maps. The backward pass is that of
`nasdsl.nn.deform.triton`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nasdsl.nn.deform import triton as columns
from nasdsl.nn.deform.geometry import Geometry
from nasdsl.nn.deform.implementation import Implementation
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import allows_tf32
from nasdsl.nn.triton_launch import device_of, next_power_of_2

BLOCK = 64
"""Positions of a program: rows of a warp group's matrix product."""
MAX_OUT_BYTES, MIN_OUT_BLOCK = 512, 64
"""Output channels of a program: as many as there are, up to 256 in half precision and 128 in float32, for which a thread has
registers; fewer while there are too few programs."""
CHANNEL_BYTES = 128
"""Bytes of a pixel that are read and multiplied at a time."""
MIN_SIDE = 16
"""Smallest side of a factor of a matrix product."""
PROGRAMS = 256
"""Programs that occupy a GPU: about two for each multiprocessor of a large one."""


def _out_block(outputs: int, groups: int, position_blocks: int, itemsize: int) -> int:
    """Output channels of a program; `outputs` are those of a group."""
    block = max(MIN_SIDE, min(MAX_OUT_BYTES // itemsize, next_power_of_2(outputs)))
    while block > MIN_OUT_BLOCK and position_blocks * groups * -(-outputs // block) < PROGRAMS:
        block //= 2
    return block


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    matmul_dtype: torch.dtype,
) -> Tensor:
    if matmul_dtype == torch.float64:
        return columns.forward(x, offset, mask, weight, bias, geometry, matmul_dtype)  # registers do not suffice
    shape = x.shape[0], weight.shape[0], *offset.shape[2:]
    dtype = matmul_dtype if bias is None else torch.promote_types(matmul_dtype, bias.dtype)
    out = torch.empty(shape, dtype=dtype, device=x.device, memory_format=memory_format_of(x))
    with device_of(x):
        launcher = columns.Launcher(x, offset, mask, weight, geometry)
        groups, outputs = launcher.groups, weight.shape[0] // launcher.groups
        run = math.gcd(weight.shape[1], launcher.channels // launcher.offset_groups)
        position_blocks = -(-shape[0] * launcher.positions // BLOCK)
        out_block = _out_block(outputs, groups, position_blocks, matmul_dtype.itemsize)
        kernels = columns.kernel_rows(weight, groups, matmul_dtype)
        given_mask = launcher.offset if launcher.mask is None else launcher.mask
        constants = launcher.constants | {
            "BLOCK": BLOCK,
            "CHANNEL_BLOCK": max(MIN_SIDE, min(CHANNEL_BYTES // matmul_dtype.itemsize, next_power_of_2(run))),
            "OUT": weight.shape[0],
            "OUT_BLOCK": out_block,
            "RUN": run,
            "BIASED": bias is not None,
            "CHANNELS_LAST": memory_format_of(x) == torch.channels_last,
            # Three products in TensorFloat-32 have about the precision of float32, and use tensor cores.
            "PRECISION": "tf32" if allows_tf32() else "tf32x3",
            "num_warps": 8 if out_block >= 128 else 4,
            "num_stages": 1,  # what is read follows from the offsets: there is nothing to read ahead
        }
        launcher.kernels.convolve[(position_blocks, groups * -(-outputs // out_block))](
            columns.pixel_rows(x),
            launcher.offset,
            given_mask,
            kernels,
            kernels if bias is None else bias,
            out,
            launcher.positions,
            shape[0] * launcher.positions,
            *launcher.sizes,
            *launcher.offset.stride(),
            *given_mask.stride(),
            **constants,
        )
    return out


deform_conv2d = Implementation(_forward, columns.backward)
