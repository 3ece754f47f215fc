"""Deformable convolution on a GPU with Triton kernels: sampled columns, then a matrix product.

Channels of a pixel are contiguous, so that a tap reads four runs of memory. The backward pass samples again, in the one kernel
that computes the gradients of offsets and mask, accumulates that of the map, and writes the columns for the weight gradient.
The map's gradient is summed with atomics, so two runs may differ by rounding.

Everything is computed in chunks, so that columns take bounded memory; only the operands are kept for the backward pass.
`nasdsl.nn.deform.triton_kernels`, and with it Triton, is imported at the first call.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry, chunks
from nasdsl.nn.deform.implementation import Implementation, OptionalTensors, add_matmul
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import accumulation_dtype
from nasdsl.nn.triton_launch import device_of, next_power_of_2, require_triton

COLUMN_BYTES = 96 * 2**20
"""Size of the columns of a chunk, with their gradient if there is one; a chunk has one position at least. torchvision's columns
take 120 MiB for a level of a detector (256x100x136) and 160 for 32 maps of a search (64x48x48); the copies of a chunk's maps
fit into the difference."""
MEMORY_SHARE = 64
"""Columns may take this part of a GPU's memory if it is more: fewer and larger chunks keep a large GPU busy."""
GATHER_BLOCK, SCATTER_BLOCK = 1024, 512
"""Elements of a tap that a program reads at a time: enough that a thread reads 16 bytes of a pixel (8 in the backward pass of
half precision), and few enough that it has registers for the four pixels and their gradients."""
MAX_CHANNEL_BLOCK = 128
"""Channels that a program reads side by side; this many in float32 are what 32 threads read at once."""
NUM_WARPS = 4


class Launcher:
    """Launches the kernels for one call: holds the arguments that all chunks share."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry) -> None:
        require_triton()
        from nasdsl.nn.deform import triton_kernels

        self.kernels = triton_kernels
        self.channels, self.taps = x.shape[1], geometry.taps
        self.groups, self.offset_groups = x.shape[1] // weight.shape[1], offset.shape[1] // (2 * geometry.taps)
        self.positions = offset.shape[2] * offset.shape[3]  # of an image
        self.sizes = (*geometry.size, offset.shape[3])
        self.offset = offset.flatten(2)
        self.mask = None if mask is None else mask.flatten(2)
        self.dtype = accumulation_dtype(x.dtype)
        per_offset_group = self.channels // self.offset_groups
        self.channel_block = min(MAX_CHANNEL_BLOCK, next_power_of_2(per_offset_group))
        self.channel_blocks = -(-per_offset_group // self.channel_block)
        self.constants = {
            "C": self.channels,
            "OFFSET_GROUPS": self.offset_groups,
            "GROUPS": self.groups,
            "TAPS": self.taps,
            "KERNEL_WIDTH": geometry.kernel[1],
            "STRIDE_Y": geometry.stride[0],
            "STRIDE_X": geometry.stride[1],
            "PADDING_Y": geometry.padding[0],
            "PADDING_X": geometry.padding[1],
            "DILATION_Y": geometry.dilation[0],
            "DILATION_X": geometry.dilation[1],
            "MASKED": mask is not None,
            "DTYPE": triton_kernels.DTYPES[self.dtype],
            "CHANNEL_BLOCK": self.channel_block,
            "num_warps": NUM_WARPS,
        }

    def chunks(self, n: int, itemsize: int) -> tuple[list[slice], list[slice]]:
        """Chunks of `n` images, and of the positions of each; `itemsize`: bytes of a column's element, gradient included."""
        limit = max(1, column_bytes(self.offset.device) // (self.channels * self.taps * itemsize))
        return _even_chunks(n, max(1, limit // self.positions)), _even_chunks(self.positions, limit)

    def columns(self, buffer: Tensor, positions: int) -> Tensor:
        """[groups, positions, taps * C / groups], the beginning of `buffer`."""
        return buffer[: positions * self.channels * self.taps].view(self.groups, positions, -1)

    def buffer(self, images: list[slice], positions: list[slice], dtype: torch.dtype) -> Tensor:
        """Memory for the columns of any of these chunks."""
        size = _length(images[0]) * _length(positions[0]) * self.channels * self.taps
        return torch.empty(size, dtype=dtype, device=self.offset.device)

    def gather(self, pixels: Tensor, images: slice, positions: slice, columns: Tensor) -> None:
        """Write the `columns` of these positions; `pixels` are those of the images, [N, H, W, C]."""
        block = max(1, GATHER_BLOCK // self.channel_block)
        grid = (-(-columns.shape[1] // block), self.offset_groups * self.channel_blocks)
        tensors, numbers = self._arguments(images, positions, columns.shape[1])
        self.kernels.gather[grid](pixels, *tensors, columns, *numbers, **self.constants, BLOCK=block)

    def scatter(
        self,
        pixels: Tensor,
        images: slice,
        positions: slice,
        grad_columns: Tensor,
        columns: Tensor | None,
        grad_pixels: Tensor | None,
        grad_offset: Tensor | None,
        grad_mask: Tensor | None,
    ) -> None:
        """Compute those gradients that are not None from that of the columns, and write `columns` as `gather` does.

        Args:
            grad_pixels: like `pixels`; added to.
            grad_offset, grad_mask: of the whole call, [N, channels, positions].
        """
        block = max(1, SCATTER_BLOCK // self.channel_block)
        grid = (-(-grad_columns.shape[1] // block), self.offset_groups)
        tensors, numbers = self._arguments(images, positions, grad_columns.shape[1])
        outputs = columns, grad_pixels, grad_offset, grad_mask
        self.kernels.scatter[grid](
            pixels,
            *tensors,
            grad_columns,
            *(grad_columns if t is None else t for t in outputs),  # of those that are None, only the pointer's type matters
            *numbers,
            *(s for t in (grad_offset, grad_mask) for s in ((0, 0, 0) if t is None else t.stride())),
            **self.constants,
            **{
                name: t is not None
                for name, t in zip(("COLUMNS", "GRAD_PIXELS", "GRAD_OFFSET", "GRAD_MASK"), outputs, strict=True)
            },
            BLOCK=block,
        )

    def _arguments(self, images: slice, positions: slice, total: int) -> tuple[tuple[Tensor, Tensor], tuple[int, ...]]:
        mask = self.offset if self.mask is None else self.mask
        chunk = images.start, positions.start, positions.stop - positions.start, total
        return (self.offset, mask), (*chunk, *self.sizes, *self.offset.stride(), *mask.stride())


@functools.cache
def _memory(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).total_memory)


def column_bytes(device: torch.device) -> int:
    """Size of the columns of a chunk on this device."""
    return max(COLUMN_BYTES, _memory(device) // MEMORY_SHARE) if device.type == "cuda" else COLUMN_BYTES


def _even_chunks(total: int, limit: int) -> list[slice]:
    """0..total in as few chunks as are no larger than `limit`, all of the same size but the last."""
    return list(chunks(total, -(-total // -(-total // limit))))


def _length(chunk: slice) -> int:
    return int(chunk.stop - chunk.start)


def pixel_rows(maps: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C], contiguous."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _accumulator(grad_maps: Tensor, dtype: torch.dtype) -> Tensor:
    """Zeros, [N, H, W, C], to sum [N, C, H, W] in: in its own memory where type and layout allow."""
    rows = grad_maps.permute(0, 2, 3, 1)
    if rows.is_contiguous() and rows.dtype == dtype:
        return rows.zero_()
    return torch.zeros(rows.shape, dtype=dtype, device=rows.device)


def kernel_rows(weight: Tensor, groups: int, dtype: torch.dtype) -> Tensor:
    """[O, C / groups, kh, kw] as [groups, O / groups, taps * C / groups], in the order of the columns."""
    return weight.permute(0, 2, 3, 1).to(dtype).reshape(groups, weight.shape[0] // groups, -1)


def forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    matmul_dtype: torch.dtype,
) -> Tensor:
    n, out_channels = x.shape[0], weight.shape[0]
    shape = n, out_channels, *offset.shape[2:]
    out = torch.empty(shape, dtype=matmul_dtype, device=x.device, memory_format=memory_format_of(x))
    with device_of(x):
        launcher = Launcher(x, offset, mask, weight, geometry)
        kernels = kernel_rows(weight, launcher.groups, matmul_dtype)
        outputs, rows = out.view(n, out_channels, -1).chunk(launcher.groups, 1), out.permute(0, 2, 3, 1)
        one_product = launcher.groups == 1 and rows.is_contiguous()
        image_chunks, position_chunks = launcher.chunks(n, matmul_dtype.itemsize)
        buffer = launcher.buffer(image_chunks, position_chunks, matmul_dtype)
        for images in image_chunks:
            pixels, count = pixel_rows(x[images]), _length(images)
            for positions in position_chunks:
                columns = launcher.columns(buffer, count * _length(positions))
                launcher.gather(pixels, images, positions, columns)
                if one_product:
                    start = images.start * launcher.positions + positions.start
                    of_chunk = rows.view(-1, out_channels)[start : start + columns.shape[1]]
                    torch.mm(columns[0], kernels[0].t(), out=of_chunk)
                    continue
                for kernel, of_group, output in zip(kernels, columns, outputs, strict=True):
                    of_group = of_group.view(count, _length(positions), -1).transpose(1, 2)
                    torch.bmm(kernel.expand(count, -1, -1), of_group, out=output[images, :, positions])
    if bias is None:
        return out
    return out.to(torch.promote_types(matmul_dtype, bias.dtype)).add_(bias.view(-1, 1, 1))


def backward(
    operands: OptionalTensors, grad_output: Tensor, geometry: Geometry, matmul_dtype: torch.dtype, needs_grad: tuple[bool, ...]
) -> OptionalTensors:
    x, offset, mask, weight, bias = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    grad_bias = grad_output.sum((0, 2, 3)).to(bias.dtype) if bias is not None and needs_grad[4] else None
    if not any(needs_grad[:4]):
        return None, None, None, None, grad_bias

    with device_of(x):
        launcher = Launcher(x, offset, mask, weight, geometry)
        grad_x = torch.empty_like(x) if needs_grad[0] else None
        grad_offset = torch.empty_like(launcher.offset) if needs_grad[1] else None
        grad_mask = torch.empty_like(launcher.mask) if needs_grad[2] and launcher.mask is not None else None
        kernels = kernel_rows(weight, launcher.groups, matmul_dtype)
        grad_kernels = torch.zeros_like(kernels, dtype=launcher.dtype) if needs_grad[3] else None
        scatters = any(needs_grad[:3])
        image_chunks, position_chunks = launcher.chunks(x.shape[0], matmul_dtype.itemsize * (scatters + needs_grad[3]))
        buffer = launcher.buffer(image_chunks, position_chunks, matmul_dtype) if needs_grad[3] else None
        grad_buffer = launcher.buffer(image_chunks, position_chunks, matmul_dtype) if scatters else None
        for images in image_chunks:
            pixels, count = pixel_rows(x[images]), _length(images)
            grad_pixels = None if grad_x is None else _accumulator(grad_x[images], launcher.dtype)
            grad_rows = grad_output[images].permute(0, 2, 3, 1).to(matmul_dtype).reshape(count, launcher.positions, -1)
            for positions in position_chunks:
                grad_outs = grad_rows[:, positions].reshape(-1, grad_rows.shape[2]).chunk(launcher.groups, 1)
                columns = None if buffer is None else launcher.columns(buffer, len(grad_outs[0]))
                if grad_buffer is not None:
                    grad_columns = launcher.columns(grad_buffer, len(grad_outs[0]))
                    for grad_out, kernel, grad_group in zip(grad_outs, kernels, grad_columns, strict=True):
                        torch.mm(grad_out, kernel, out=grad_group)
                    launcher.scatter(pixels, images, positions, grad_columns, columns, grad_pixels, grad_offset, grad_mask)
                elif columns is not None:
                    launcher.gather(pixels, images, positions, columns)
                if grad_kernels is not None and columns is not None:
                    for grad_kernel, grad_out, of_group in zip(grad_kernels, grad_outs, columns, strict=True):
                        add_matmul(grad_kernel, grad_out.t(), of_group)
            if grad_x is not None and grad_pixels is not None and grad_pixels.data_ptr() != grad_x[images].data_ptr():
                grad_x[images].copy_(grad_pixels.permute(0, 3, 1, 2))
    grad_weight = None
    if grad_kernels is not None:
        out_channels, per_group, height, width = weight.shape
        grad_weight = torch.empty_like(weight)
        grad_weight.copy_(grad_kernels.view(out_channels, height, width, per_group).permute(0, 3, 1, 2))
    out_size = offset.shape[2:]
    grad_taps = (None if t is None else t.view(*t.shape[:2], *out_size) for t in (grad_offset, grad_mask))
    return grad_x, *grad_taps, grad_weight, grad_bias


deform_conv2d = Implementation(forward, backward)
