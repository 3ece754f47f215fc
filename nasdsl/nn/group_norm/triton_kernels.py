"""Triton kernels of GroupNorm for maps [N, H * W, C]. Only `nasdsl.nn.group_norm.triton` imports this module.

Sums over positions are made in two steps, so that many programs share an image, and are added in a fixed order: first of each
channel over the `tiles` blocks of positions of a program, a part of an image; then over the parts and the channels of a group.

    positions       of an image
    parts, tiles    programs that share the positions of an image, and blocks of positions of each
    sums            [N, parts, 2, C]
    mean, rstd      [N, GROUPS]; rstd is the reciprocal of the standard deviation
"""

import torch
import triton
import triton.language as tl

# Arguments whose values must not trigger a compilation: maps have many sizes.
UNSPECIALIZED = {"do_not_specialize": ("positions", "parts", "tiles")}
DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _program(parts, tiles, C: tl.constexpr, CHANNEL_BLOCK: tl.constexpr):
    """Image, part, first tile and channels of a program."""
    CHANNEL_BLOCKS: tl.constexpr = (C + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    index = tl.program_id(0)
    channel = index % CHANNEL_BLOCKS * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    index = index // CHANNEL_BLOCKS
    return (index // parts).to(tl.int64), index % parts, index % parts * tiles, channel


@triton.jit
def _tile(tile, positions, channel, C: tl.constexpr, BLOCK: tl.constexpr):
    """Places of the elements of a tile in the maps of an image, and whether they exist."""
    position = tile * BLOCK + tl.arange(0, BLOCK)
    return (position * C)[:, None] + channel[None, :], (position < positions)[:, None] & (channel < C)[None, :]


@triton.jit
def _group(
    sums, parts, C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Image of a program that handles a group, channels of the group, whether they exist, and both of their `sums` over all
    parts, of which `PARTS` are read at a time."""
    PER_GROUP: tl.constexpr = C // GROUPS
    image, in_group = (tl.program_id(0) // GROUPS).to(tl.int64), tl.arange(0, CHANNELS)
    channel, own = tl.program_id(0) % GROUPS * PER_GROUP + in_group, in_group < PER_GROUP
    first, second = tl.zeros([CHANNELS], DTYPE), tl.zeros([CHANNELS], DTYPE)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        given = (part < parts)[:, None] & own[None, :]
        place = sums + ((image * parts + part) * (2 * C))[:, None] + channel[None, :]
        first += tl.sum(tl.load(place, mask=given, other=0.0), 0)
        second += tl.sum(tl.load(place + C, mask=given, other=0.0), 0)
    return image, channel, own, first, second


@triton.jit(**UNSPECIALIZED)
def moments(
    x, sums, positions, parts, tiles,
    C: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sums of x - s and of its square for each channel, s being its value at the first position: the differences are
    small, so that no digits are lost where the mean is large."""
    image, part, first_tile, channel = _program(parts, tiles, C, CHANNEL_BLOCK)
    own = channel < C
    x += image * positions * C
    start = tl.load(x + channel, mask=own, other=0.0).to(DTYPE)
    total, squares = tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE), tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE)
    for tile in range(first_tile, first_tile + tiles):
        place, given = _tile(tile, positions, channel, C, BLOCK)
        value = tl.load(x + place, mask=given, other=0.0).to(DTYPE)
        value = tl.where(given, value - start[None, :], 0.0)
        total += value
        squares += value * value
    sums += (image * parts + part) * (2 * C) + channel
    tl.store(sums, tl.sum(total, 0), mask=own)
    tl.store(sums + C, tl.sum(squares, 0), mask=own)


@triton.jit(**UNSPECIALIZED)
def statistics(
    x, sums, mean, rstd, positions, parts, eps,
    C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, PARTS: tl.constexpr, PER_GROUP_BLOCK: tl.constexpr,
):  # fmt: skip
    """From the sums of `moments` to mean and rstd of each group. Grid: (N * GROUPS,)."""
    PER_GROUP: tl.constexpr = C // GROUPS
    image, channel, own, total, squares = _group(sums, parts, C, GROUPS, DTYPE, PARTS, PER_GROUP_BLOCK)
    count = positions.to(DTYPE)
    of_channel = total / count  # the mean less the first value
    within = tl.sum(tl.where(own, squares - total * of_channel, 0.0), 0)  # squared distances from the means of channels
    of_channel += tl.load(x + image * positions * C + channel, mask=own, other=0.0).to(DTYPE)
    center = tl.sum(tl.where(own, of_channel, 0.0), 0) / PER_GROUP
    apart = tl.where(own, of_channel - center, 0.0)
    variance = (within / count + tl.sum(apart * apart, 0)) / PER_GROUP
    tl.store(mean + tl.program_id(0), center)
    tl.store(rstd + tl.program_id(0), 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps))


@triton.jit(**UNSPECIALIZED)
def normalize(
    x, weight, bias, mean, rstd, out, positions, parts, tiles,
    C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write ``(x - mean) * rstd * weight + bias``."""
    image, _, first_tile, channel = _program(parts, tiles, C, CHANNEL_BLOCK)
    own = channel < C
    group = image * GROUPS + channel // (C // GROUPS)
    scale = tl.load(rstd + group, mask=own, other=0.0) * tl.load(weight + channel, mask=own, other=0.0).to(DTYPE)
    center, shift = tl.load(mean + group, mask=own, other=0.0), tl.load(bias + channel, mask=own, other=0.0).to(DTYPE)
    x += image * positions * C
    out += image * positions * C
    for tile in range(first_tile, first_tile + tiles):
        place, given = _tile(tile, positions, channel, C, BLOCK)
        value = tl.load(x + place, mask=given, other=0.0).to(DTYPE)
        value = (value - center[None, :]) * scale[None, :] + shift[None, :]
        tl.store(out + place, value.to(out.dtype.element_ty), mask=given)


@triton.jit(**UNSPECIALIZED)
def gradient_sums(
    x, grad_out, mean, rstd, sums, positions, parts, tiles,
    C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the sums of the output's gradient, and of its products with the normalized input, for each channel."""
    image, part, first_tile, channel = _program(parts, tiles, C, CHANNEL_BLOCK)
    own = channel < C
    group = image * GROUPS + channel // (C // GROUPS)
    center, scale = tl.load(mean + group, mask=own, other=0.0), tl.load(rstd + group, mask=own, other=0.0)
    x += image * positions * C
    grad_out += image * positions * C
    total, products = tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE), tl.zeros([BLOCK, CHANNEL_BLOCK], DTYPE)
    for tile in range(first_tile, first_tile + tiles):
        place, given = _tile(tile, positions, channel, C, BLOCK)
        grad = tl.load(grad_out + place, mask=given, other=0.0).to(DTYPE)
        value = tl.load(x + place, mask=given, other=0.0).to(DTYPE)
        total += grad
        products += grad * (value - center[None, :]) * scale[None, :]
    sums += (image * parts + part) * (2 * C) + channel
    tl.store(sums, tl.sum(total, 0), mask=own)
    tl.store(sums + C, tl.sum(products, 0), mask=own)


@triton.jit(**UNSPECIALIZED)
def gradient_means(
    weight, sums, means, positions, parts,
    C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, PARTS: tl.constexpr, PER_GROUP_BLOCK: tl.constexpr,
):  # fmt: skip
    """From the sums of `gradient_sums`, weighted, to their means over each group, [N, GROUPS, 2]. Grid: (N * GROUPS,)."""
    _, channel, own, total, products = _group(sums, parts, C, GROUPS, DTYPE, PARTS, PER_GROUP_BLOCK)
    factor = tl.load(weight + channel, mask=own, other=0.0).to(DTYPE)
    count = positions.to(DTYPE) * (C // GROUPS)
    tl.store(means + 2 * tl.program_id(0), tl.sum(total * factor, 0) / count)
    tl.store(means + 2 * tl.program_id(0) + 1, tl.sum(products * factor, 0) / count)


@triton.jit(**UNSPECIALIZED)
def input_gradient(
    x, grad_out, weight, mean, rstd, means, grad_x, positions, parts, tiles,
    C: tl.constexpr, GROUPS: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input, less its parts along the mean and along the normalized input, which norms remove."""
    image, _, first_tile, channel = _program(parts, tiles, C, CHANNEL_BLOCK)
    own = channel < C
    group = image * GROUPS + channel // (C // GROUPS)
    center, scale = tl.load(mean + group, mask=own, other=0.0), tl.load(rstd + group, mask=own, other=0.0)
    factor = tl.load(weight + channel, mask=own, other=0.0).to(DTYPE)
    along_mean = tl.load(means + 2 * group, mask=own, other=0.0)
    along_value = tl.load(means + 2 * group + 1, mask=own, other=0.0)
    x += image * positions * C
    grad_out += image * positions * C
    grad_x += image * positions * C
    for tile in range(first_tile, first_tile + tiles):
        place, given = _tile(tile, positions, channel, C, BLOCK)
        grad = tl.load(grad_out + place, mask=given, other=0.0).to(DTYPE)
        value = (tl.load(x + place, mask=given, other=0.0).to(DTYPE) - center[None, :]) * scale[None, :]
        value = scale[None, :] * (grad * factor[None, :] - along_mean[None, :] - value * along_value[None, :])
        tl.store(grad_x + place, value.to(grad_x.dtype.element_ty), mask=given)
