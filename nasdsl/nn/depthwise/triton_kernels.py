"""Triton kernels of the dilated depthwise convolution. Only `nasdsl.nn.depthwise.triton` imports this module.

Maps are [N, H, W, C]. A program handles `CHANNEL_BLOCK` channels of one class of rows of one image: rows that are `classes`
apart. It walks down them, `BLOCK` pixels at a time. If `classes` is the dilation, each row that a tap reads is one that the
program read for the tap below just before, and is still in its multiprocessor's cache: so a map is read from memory about once.

Arguments of both kernels:

    weight              [K * K, C]
    height, width       of the maps
    classes             of rows; row number modulo `classes`
    parts, tiles        programs that share a class, and blocks of pixels of each of them
"""

import torch
import triton
import triton.language as tl

# Arguments whose values must not trigger a compilation: maps have many sizes.
UNSPECIALIZED = {"do_not_specialize": ("height", "width", "classes", "parts", "tiles")}
DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _program(index, classes, parts, tiles, C: tl.constexpr, CHANNEL_BLOCK: tl.constexpr):
    """Channels and their first tile, class of rows, and image of a program. Programs that read adjacent memory are adjacent."""
    CHANNEL_BLOCKS: tl.constexpr = (C + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    channel = index % CHANNEL_BLOCKS * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    index = index // CHANNEL_BLOCKS
    first_tile = index % parts * tiles
    index = index // parts
    return channel, first_tile, index % classes, (index // classes).to(tl.int64)


@triton.jit
def _pixels(tile, first_row, classes, height, width, BLOCK: tl.constexpr):
    """Rows and columns of the pixels of a tile, and whether they exist."""
    index = tile * BLOCK + tl.arange(0, BLOCK)
    row = first_row + index // width * classes
    return row, index % width, row < height


@triton.jit(**UNSPECIALIZED)
def convolve(
    x, weight, bias, out, height, width, classes, parts, tiles,
    C: tl.constexpr, K: tl.constexpr, DILATION: tl.constexpr, FLIPPED: tl.constexpr, BIASED: tl.constexpr,
    DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """The convolution, or with FLIPPED that with the kernel rotated by 180 degrees: the gradient of the input."""
    channel, first_tile, first_row, image = _program(tl.program_id(0), classes, parts, tiles, C, CHANNEL_BLOCK)
    own = (channel < C)[None, :]
    x += image * height * width * C
    out += image * height * width * C
    shift = tl.zeros([CHANNEL_BLOCK], DTYPE)
    if BIASED:
        shift = tl.load(bias + channel, mask=channel < C, other=0.0).to(DTYPE)
    for tile in range(first_tile, first_tile + tiles):
        row, column, inside = _pixels(tile, first_row, classes, height, width, BLOCK)
        place = ((row * width + column) * C)[:, None] + channel[None, :]
        total = tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE) + shift[None, :]
        for i in tl.static_range(K):
            down = (i - K // 2) * DILATION
            in_row = inside & (row >= -down) & (row < height - down)
            for j in tl.static_range(K):
                right = (j - K // 2) * DILATION
                exists = in_row & (column >= -right) & (column < width - right)
                value = tl.load(x + place + (down * width + right) * C, mask=exists[:, None] & own, other=0.0).to(DTYPE)
                tap = K * K - 1 - (i * K + j) if FLIPPED else i * K + j
                factor = tl.load(weight + tap * C + channel[None, :], mask=own, other=0.0).to(DTYPE)
                total += value * factor
        tl.store(out + place, total.to(out.dtype.element_ty), mask=inside[:, None] & own)


@triton.jit(**UNSPECIALIZED)
def gradients(
    x, weight, grad_out, grad_x, sums, height, width, classes, parts, tiles,
    C: tl.constexpr, K: tl.constexpr, DILATION: tl.constexpr, TAP_ROWS: tl.constexpr,
    GRAD_X: tl.constexpr, GRAD_BIAS: tl.constexpr,
    DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients from that of the output.

    A program computes the weight's gradient for TAP_ROWS rows of taps: programs of further rows follow one another.

    sums: [programs, K * K + 1, C], written: for each tap, and last for the bias, the sum over the pixels of a program.
    GRAD_X: write `grad_x`, as `convolve` does with FLIPPED; TAP_ROWS is K.
    GRAD_BIAS: write the last row of `sums`.
    """
    GROUPS: tl.constexpr = (K + TAP_ROWS - 1) // TAP_ROWS
    first_tap_row = tl.program_id(0) % GROUPS * TAP_ROWS
    program = tl.program_id(0) // GROUPS
    channel, first_tile, first_row, image = _program(program, classes, parts, tiles, C, CHANNEL_BLOCK)
    own = (channel < C)[None, :]
    x += image * height * width * C
    grad_out += image * height * width * C
    grad_x += image * height * width * C
    of_bias = tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE)
    of_taps = (tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE),)
    for _ in tl.static_range(TAP_ROWS * K - 1):
        of_taps = of_taps + (tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE),)  # type: ignore[assignment]  # noqa: RUF005  # it grows; Triton unpacks none
    for tile in range(first_tile, first_tile + tiles):
        row, column, inside = _pixels(tile, first_row, classes, height, width, BLOCK)
        place = ((row * width + column) * C)[:, None] + channel[None, :]
        value = tl.load(x + place, mask=inside[:, None] & own, other=0.0).to(DTYPE)
        total = tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE)
        for i in tl.static_range(TAP_ROWS):
            # The output that reads this pixel by a tap lies on the other side of it.
            down = (K // 2 - first_tap_row - i) * DILATION
            in_row = inside & (row >= -down) & (row < height - down)
            for j in tl.static_range(K):
                right = (K // 2 - j) * DILATION
                exists = in_row & (column >= -right) & (column < width - right)
                grad = tl.load(grad_out + place + (down * width + right) * C, mask=exists[:, None] & own, other=0.0).to(DTYPE)
                # Triton indexes tuples by constant expressions, not by names for them.
                of_taps = of_taps[: i * K + j] + (of_taps[i * K + j] + grad * value,) + of_taps[i * K + j + 1 :]  # noqa: RUF005  # none is unpacked
                if GRAD_X:
                    total += grad * tl.load(weight + (i * K + j) * C + channel[None, :], mask=own, other=0.0).to(DTYPE)
        if GRAD_X:
            tl.store(grad_x + place, total.to(grad_x.dtype.element_ty), mask=inside[:, None] & own)
        if GRAD_BIAS:
            of_bias += tl.load(grad_out + place, mask=inside[:, None] & own, other=0.0).to(DTYPE)
    CHANNEL_BLOCKS: tl.constexpr = (C + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    sums += (program // CHANNEL_BLOCKS).to(tl.int64) * ((K * K + 1) * C) + channel
    for tap in tl.static_range(TAP_ROWS * K):
        target = first_tap_row * K + tap
        tl.store(sums + target * C, tl.sum(of_taps[tap], 0), mask=(channel < C) & (target < K * K))
    if GRAD_BIAS:
        tl.store(sums + K * K * C, tl.sum(of_bias, 0), mask=(channel < C) & (first_tap_row == 0))
