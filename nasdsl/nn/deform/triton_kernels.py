"""Triton kernels of the deformable convolution. Only `nasdsl.nn.deform.triton` imports this module.

A program handles `BLOCK` positions of the output and channels of one offset group, and loops over the taps of the kernel.
Channels of a pixel are contiguous, so that what a tap reads, and what it adds to in the backward pass, are four runs of memory.
What depends on the position only (sampling positions, mask) is computed once for all channels.

Arguments of the kernels:

    pixels                          [images, H, W, C], the maps of the chunk
    offset, mask                    as in `nasdsl.nn.deform_conv2d`
    columns, grad_columns           [groups, positions, taps * C / groups]: sampled values and their gradient
    positions, positions_per_image  number of positions in the chunk, and in each of its images
    first_image, first_position     the chunk's first image in `offset`, and first position in each image, row by row
    height, width                   of the maps
    out_width                       of the output
    offset_n, _c, _p                strides of a tensor's images, channels and positions
"""

import torch
import triton
import triton.language as tl

SIZES_AND_STARTS = ("first_image", "first_position", "positions_per_image", "positions", "height", "width", "out_width")
STRIDES = ("offset_n", "offset_c", "offset_p", "mask_n", "mask_c", "mask_p")
GRAD_STRIDES = tuple(f"grad_{name}" for name in STRIDES)
# Arguments whose values must not trigger a compilation: a detector's maps have many sizes.
UNSPECIALIZED = {
    "do_not_specialize": (*SIZES_AND_STARTS, *STRIDES),
    "do_not_specialize_on_alignment": ("offset", "mask"),
}
GRAD_UNSPECIALIZED = {
    "do_not_specialize": (*SIZES_AND_STARTS, *STRIDES, *GRAD_STRIDES),
    "do_not_specialize_on_alignment": ("offset", "mask", "grad_offset", "grad_mask"),
}

CONVOLVE_UNSPECIALIZED = {
    "do_not_specialize": ("positions_per_image", "positions", "height", "width", "out_width", *STRIDES),
    "do_not_specialize_on_alignment": ("offset", "mask"),
}

DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _axis(offset, inside, regular, size, DTYPE: tl.constexpr):
    """Along one axis: the pixel before each position, the distance to it (0..1), and whether it and the next pixel exist."""
    position = tl.load(offset, mask=inside, other=0.0).to(DTYPE) + regular.to(DTYPE)
    # Everything beyond one pixel outside is zero. A NaN position is put there too, with a distance of NaN.
    bounded = tl.minimum(tl.maximum(position, -2.0), size.to(DTYPE))
    before = tl.floor(bounded)
    after = tl.where(position == position, bounded - before, position)
    pixel = before.to(tl.int32)
    return pixel, after, inside & (pixel >= 0) & (pixel < size), inside & (pixel >= -1) & (pixel < size - 1)


@triton.jit
def _sampling_position(offset, offset_c, tap_index, inside, y, x, height, width, DTYPE: tl.constexpr):
    """The sampling position of a tap: the pixel above and to the left of it, its vertical and horizontal distance to that
    pixel, and which of the four pixels exist: itself, right, below, below right."""
    row, down, above, below = _axis(offset + 2 * tap_index * offset_c, inside, y, height, DTYPE)
    column, right, before, after = _axis(offset + (2 * tap_index + 1) * offset_c, inside, x, width, DTYPE)
    return row * width + column, down, right, above & before, above & after, below & before, below & after


@triton.jit
def _image_and_position(first_image, first_position, positions_per_image, positions, BLOCK: tl.constexpr):
    """For each position of a program: its index in the chunk, whether it exists, its image's index in the chunk and in
    `offset`, and its index in the image."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    image = (index // positions_per_image).to(tl.int64)
    return index.to(tl.int64), index < positions, image, first_image + image, first_position + index % positions_per_image


@triton.jit
def _column_index(index, tap, channel, positions, C: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr):
    """The index of [position, channel] of a tap in `columns`."""
    if GROUPS == 1:
        return ((index * TAPS + tap) * C)[:, None] + channel[None, :]
    row = (channel // (C // GROUPS)).to(tl.int64)[None, :] * positions + index[:, None]
    return (row * TAPS + tap) * (C // GROUPS) + (channel % (C // GROUPS))[None, :]


@triton.jit(**UNSPECIALIZED)
def gather(
    pixels, offset, mask, columns,
    first_image, first_position, positions_per_image, positions, height, width, out_width,
    offset_n, offset_c, offset_p, mask_n, mask_c, mask_p,
    C: tl.constexpr, OFFSET_GROUPS: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    MASKED: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write `columns`. Grid: (positions / BLOCK, offset groups * channels per offset group / CHANNEL_BLOCK)."""
    PER_OFFSET_GROUP: tl.constexpr = C // OFFSET_GROUPS
    CHANNEL_BLOCKS: tl.constexpr = (PER_OFFSET_GROUP + CHANNEL_BLOCK - 1) // CHANNEL_BLOCK
    index, inside, image, n, p = _image_and_position(first_image, first_position, positions_per_image, positions, BLOCK)
    y, x = p // out_width * STRIDE_Y - PADDING_Y, p % out_width * STRIDE_X - PADDING_X
    group = tl.program_id(1) // CHANNEL_BLOCKS
    channel_in_group = tl.program_id(1) % CHANNEL_BLOCKS * CHANNEL_BLOCK + tl.arange(0, CHANNEL_BLOCK)
    channel, own = group * PER_OFFSET_GROUP + channel_in_group, (channel_in_group < PER_OFFSET_GROUP)[None, :]
    offset += n * offset_n + p.to(tl.int64) * offset_p
    mask += n * mask_n + p.to(tl.int64) * mask_p
    for tap in range(TAPS):
        tap_index = (group * TAPS + tap).to(tl.int64)
        tap_y, tap_x = y + tap // KERNEL_WIDTH * DILATION_Y, x + tap % KERNEL_WIDTH * DILATION_X
        cell, down, right, has_a, has_b, has_c, has_d = _sampling_position(
            offset, offset_c, tap_index, inside, tap_y, tap_x, height, width, DTYPE
        )
        scale = tl.full([BLOCK], 1.0, DTYPE)
        if MASKED:
            scale = tl.load(mask + tap_index * mask_c, mask=inside, other=0.0).to(DTYPE)
        above = pixels + ((image * height * width + cell) * C)[:, None] + channel[None, :]
        below = above + width * C
        a = tl.load(above, mask=has_a[:, None] & own, other=0.0).to(DTYPE)
        b = tl.load(above + C, mask=has_b[:, None] & own, other=0.0).to(DTYPE)
        c = tl.load(below, mask=has_c[:, None] & own, other=0.0).to(DTYPE)
        d = tl.load(below + C, mask=has_d[:, None] & own, other=0.0).to(DTYPE)
        weight_below = scale * down
        weight_above = scale - weight_below
        value = a * (weight_above - weight_above * right)[:, None] + b * (weight_above * right)[:, None]
        value += c * (weight_below - weight_below * right)[:, None] + d * (weight_below * right)[:, None]
        target = columns + _column_index(index, tap, channel, positions, C, GROUPS, TAPS)
        tl.store(target, value.to(columns.dtype.element_ty), mask=inside[:, None] & own)


@triton.jit(**GRAD_UNSPECIALIZED)
def scatter(
    pixels, offset, mask, grad_columns, columns, grad_pixels, grad_offset, grad_mask,
    first_image, first_position, positions_per_image, positions, height, width, out_width,
    offset_n, offset_c, offset_p, mask_n, mask_c, mask_p,
    grad_offset_n, grad_offset_c, grad_offset_p, grad_mask_n, grad_mask_c, grad_mask_p,
    C: tl.constexpr, OFFSET_GROUPS: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    MASKED: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    COLUMNS: tl.constexpr, GRAD_PIXELS: tl.constexpr, GRAD_OFFSET: tl.constexpr, GRAD_MASK: tl.constexpr,
):  # fmt: skip
    """Gradients from `grad_columns`. Grid: (positions / BLOCK, offset groups).

    COLUMNS: write `columns` as `gather` does; its inputs are read anyway.
    GRAD_PIXELS: add the gradient of `pixels` to `grad_pixels`, [N, H, W, C], in an order that is not deterministic.
    GRAD_OFFSET, GRAD_MASK: write `grad_offset` and `grad_mask`, of the shapes of `offset` and `mask`, with their own strides.
    """
    PER_OFFSET_GROUP: tl.constexpr = C // OFFSET_GROUPS
    index, inside, image, n, p = _image_and_position(first_image, first_position, positions_per_image, positions, BLOCK)
    y, x = p // out_width * STRIDE_Y - PADDING_Y, p % out_width * STRIDE_X - PADDING_X
    group = tl.program_id(1)
    offset += n * offset_n + p.to(tl.int64) * offset_p
    mask += n * mask_n + p.to(tl.int64) * mask_p
    grad_offset += n * grad_offset_n + p.to(tl.int64) * grad_offset_p
    grad_mask += n * grad_mask_n + p.to(tl.int64) * grad_mask_p
    for tap in range(TAPS):
        tap_index = (group * TAPS + tap).to(tl.int64)
        tap_y, tap_x = y + tap // KERNEL_WIDTH * DILATION_Y, x + tap % KERNEL_WIDTH * DILATION_X
        cell, down, right, has_a, has_b, has_c, has_d = _sampling_position(
            offset, offset_c, tap_index, inside, tap_y, tap_x, height, width, DTYPE
        )
        scale = tl.full([BLOCK], 1.0, DTYPE)
        if MASKED:
            scale = tl.load(mask + tap_index * mask_c, mask=inside, other=0.0).to(DTYPE)
        grad_y, grad_x, grad_scale = tl.zeros([BLOCK], DTYPE), tl.zeros([BLOCK], DTYPE), tl.zeros([BLOCK], DTYPE)
        for start in range(0, PER_OFFSET_GROUP, CHANNEL_BLOCK):
            channel_in_group = start + tl.arange(0, CHANNEL_BLOCK)
            channel, own = group * PER_OFFSET_GROUP + channel_in_group, (channel_in_group < PER_OFFSET_GROUP)[None, :]
            target = _column_index(index, tap, channel, positions, C, GROUPS, TAPS)
            grad = tl.load(grad_columns + target, mask=inside[:, None] & own, other=0.0).to(DTYPE)
            above = ((image * height * width + cell) * C)[:, None] + channel[None, :]
            below = above + width * C
            if COLUMNS or GRAD_OFFSET or GRAD_MASK:
                a = tl.load(pixels + above, mask=has_a[:, None] & own, other=0.0).to(DTYPE)
                b = tl.load(pixels + above + C, mask=has_b[:, None] & own, other=0.0).to(DTYPE)
                c = tl.load(pixels + below, mask=has_c[:, None] & own, other=0.0).to(DTYPE)
                d = tl.load(pixels + below + C, mask=has_d[:, None] & own, other=0.0).to(DTYPE)
                along_above, along_below = b - a, d - c
                at_above = a + right[:, None] * along_above
                slope_y = c + right[:, None] * along_below - at_above
                value = at_above + down[:, None] * slope_y
                if GRAD_OFFSET:
                    grad_y += tl.sum(grad * slope_y, 1)
                    grad_x += tl.sum(grad * (along_above + down[:, None] * (along_below - along_above)), 1)
                if GRAD_MASK:
                    grad_scale += tl.sum(grad * value, 1)
                if COLUMNS:
                    tl.store(
                        columns + target, (value * scale[:, None]).to(columns.dtype.element_ty), mask=inside[:, None] & own
                    )
            if GRAD_PIXELS:
                weight_below = scale * down
                weight_above = scale - weight_below
                weight_b, weight_d = weight_above * right, weight_below * right
                # Relaxed: no other access depends on their order, and stricter semantics would make every access wait.
                tl.atomic_add(
                    grad_pixels + above, grad * (weight_above - weight_b)[:, None], has_a[:, None] & own, sem="relaxed"
                )
                tl.atomic_add(grad_pixels + above + C, grad * weight_b[:, None], has_b[:, None] & own, sem="relaxed")
                tl.atomic_add(
                    grad_pixels + below, grad * (weight_below - weight_d)[:, None], has_c[:, None] & own, sem="relaxed"
                )
                tl.atomic_add(grad_pixels + below + C, grad * weight_d[:, None], has_d[:, None] & own, sem="relaxed")
        if GRAD_OFFSET:
            target_y, target_x = grad_offset + 2 * tap_index * grad_offset_c, grad_offset + (2 * tap_index + 1) * grad_offset_c
            tl.store(target_y, (grad_y * scale).to(grad_offset.dtype.element_ty), mask=inside)
            tl.store(target_x, (grad_x * scale).to(grad_offset.dtype.element_ty), mask=inside)
        if GRAD_MASK:
            tl.store(grad_mask + tap_index * grad_mask_c, grad_scale.to(grad_mask.dtype.element_ty), mask=inside)


@triton.jit(**CONVOLVE_UNSPECIALIZED)
def convolve(
    pixels, offset, mask, kernels, bias, out,
    positions_per_image, positions, height, width, out_width,
    offset_n, offset_c, offset_p, mask_n, mask_c, mask_p,
    C: tl.constexpr, OFFSET_GROUPS: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    MASKED: tl.constexpr, DTYPE: tl.constexpr, BLOCK: tl.constexpr, CHANNEL_BLOCK: tl.constexpr,
    OUT: tl.constexpr, OUT_BLOCK: tl.constexpr, RUN: tl.constexpr,
    BIASED: tl.constexpr, CHANNELS_LAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write `out`, the whole convolution, without columns. Grid: (positions / BLOCK, groups * outputs per group / OUT_BLOCK).

    kernels: [OUT, TAPS * C / GROUPS], of the type of the factors of the product.
    out: [N, H', W', OUT] if CHANNELS_LAST, else [N, OUT, H', W'].
    RUN: number of adjacent channels that share their group and offset group.
    PRECISION: of the products of float32.
    """
    PER_GROUP: tl.constexpr = C // GROUPS
    OUT_PER_GROUP: tl.constexpr = OUT // GROUPS
    OUT_BLOCKS: tl.constexpr = (OUT_PER_GROUP + OUT_BLOCK - 1) // OUT_BLOCK
    index, inside, image, n, p = _image_and_position(0, 0, positions_per_image, positions, BLOCK)
    y, x = p // out_width * STRIDE_Y - PADDING_Y, p % out_width * STRIDE_X - PADDING_X
    group = tl.program_id(1) // OUT_BLOCKS
    output = tl.program_id(1) % OUT_BLOCKS * OUT_BLOCK + tl.arange(0, OUT_BLOCK)
    is_output = output < OUT_PER_GROUP
    output += group * OUT_PER_GROUP
    offset += n * offset_n + p.to(tl.int64) * offset_p
    mask += n * mask_n + p.to(tl.int64) * mask_p
    total = tl.zeros([BLOCK, OUT_BLOCK], DTYPE)
    for run in range(PER_GROUP // RUN):
        first = group * PER_GROUP + run * RUN
        offset_group = first // (C // OFFSET_GROUPS)
        for tap in range(TAPS):
            tap_index = (offset_group * TAPS + tap).to(tl.int64)
            tap_y, tap_x = y + tap // KERNEL_WIDTH * DILATION_Y, x + tap % KERNEL_WIDTH * DILATION_X
            cell, down, right, has_a, has_b, has_c, has_d = _sampling_position(
                offset, offset_c, tap_index, inside, tap_y, tap_x, height, width, DTYPE
            )
            scale = tl.full([BLOCK], 1.0, DTYPE)
            if MASKED:
                scale = tl.load(mask + tap_index * mask_c, mask=inside, other=0.0).to(DTYPE)
            weight_below = scale * down
            weight_above = scale - weight_below
            weight_b, weight_d = weight_above * right, weight_below * right
            pixel = (image * height * width + cell) * C + first
            for start in range(0, RUN, CHANNEL_BLOCK):
                channel = start + tl.arange(0, CHANNEL_BLOCK)
                own = (channel < RUN)[None, :]
                above = pixels + pixel[:, None] + channel[None, :]
                below = above + width * C
                a = tl.load(above, mask=has_a[:, None] & own, other=0.0).to(DTYPE)
                b = tl.load(above + C, mask=has_b[:, None] & own, other=0.0).to(DTYPE)
                c = tl.load(below, mask=has_c[:, None] & own, other=0.0).to(DTYPE)
                d = tl.load(below + C, mask=has_d[:, None] & own, other=0.0).to(DTYPE)
                value = a * (weight_above - weight_b)[:, None] + b * weight_b[:, None]
                value += c * (weight_below - weight_d)[:, None] + d * weight_d[:, None]
                place = (output * (TAPS * PER_GROUP) + tap * PER_GROUP + run * RUN)[:, None] + channel[None, :]
                factor = tl.load(kernels + place, mask=is_output[:, None] & own, other=0.0)
                total = tl.dot(value.to(factor.dtype), tl.trans(factor), total, input_precision=PRECISION)
    if BIASED:
        total += tl.load(bias + output, mask=is_output, other=0.0).to(DTYPE)[None, :]
    if CHANNELS_LAST:
        target = (index * OUT)[:, None] + output[None, :]
    else:
        target = (n * OUT * positions_per_image + p)[:, None] + (output.to(tl.int64) * positions_per_image)[None, :]
    tl.store(out + target, total.to(out.dtype.element_ty), mask=inside[:, None] & is_output[None, :])
