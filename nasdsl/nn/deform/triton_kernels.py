"""The two kernels of the deformable convolution on a GPU, in Triton. `nasdsl.nn.deform.triton` is all that imports this.

A program takes `PLACES` positions of the result and channels of one offset group, and goes through the taps of the kernel.
Pixels lie with their channels side by side, so that what a tap reads, and what it adds to in the backward pass, are four
runs of memory. Nothing that belongs to a position (where its tap reads, its mask) is computed per channel.

Arguments that both kernels have:

    pixels              [pictures, H, W, C], the maps of the piece
    offset, mask        as in `nasdsl.nn.deform_conv2d`
    columns, pulled     [groups, positions, taps * C / groups]: what the taps read, and the gradient of that
    positions           how many the piece has in all, and
    places              of each picture
    picture, place      its first position: a picture of `offset`, and a position in that, row by row
    height, width       of the maps
    out_width           of the result
    offset_n, _c, _p    strides of a tensor's pictures, channels and positions
"""

import torch
import triton
import triton.language as tl

NUMBERS = ("picture", "place", "places", "positions", "height", "width", "out_width")
STRIDES = ("offset_n", "offset_c", "offset_p", "mask_n", "mask_c", "mask_p")
OF_STRIDES = tuple(f"of_{name}" for name in STRIDES)
# Values that no kernel is compiled anew for: a detector's maps have many sizes.
GENERAL = {
    "do_not_specialize": (*NUMBERS, *STRIDES),
    "do_not_specialize_on_alignment": ("offset", "mask"),
}
OF_GENERAL = {
    "do_not_specialize": (*NUMBERS, *STRIDES, *OF_STRIDES),
    "do_not_specialize_on_alignment": ("offset", "mask", "of_offset", "of_mask"),
}

FLOATS = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _axis(offset, inside, place, size, PRECISE: tl.constexpr):
    """Along one axis: the pixel before each position, how far after it that is (0..1), and whether it and the next exist."""
    position = tl.load(offset, mask=inside, other=0.0).to(PRECISE) + place.to(PRECISE)
    # Beyond one pixel outside there is nothing else. What is no number is there too, at a distance that is no number.
    bounded = tl.minimum(tl.maximum(position, -2.0), size.to(PRECISE))
    before = tl.floor(bounded)
    after = tl.where(position == position, bounded - before, position)
    pixel = before.to(tl.int32)
    return pixel, after, inside & (pixel >= 0) & (pixel < size), inside & (pixel >= -1) & (pixel < size - 1)


@triton.jit
def _reads(offset, offset_c, at, inside, y, x, height, width, PRECISE: tl.constexpr):
    """Where a tap reads: the pixel above and to the left of the position, how far below and to the right of it that is,
    and which of the four pixels exist: the one itself, right, below, below and right."""
    row, down, above, below = _axis(offset + 2 * at * offset_c, inside, y, height, PRECISE)
    column, right, before, after = _axis(offset + (2 * at + 1) * offset_c, inside, x, width, PRECISE)
    return row * width + column, down, right, above & before, above & after, below & before, below & after


@triton.jit
def _position(picture, place, places, positions, PLACES: tl.constexpr):
    """Of each position of a program: its number in the piece, whether there is one, its picture's number in the piece and in
    `offset`, and its number in that."""
    index = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    of_piece = (index // places).to(tl.int64)
    return index.to(tl.int64), index < positions, of_piece, picture + of_piece, place + index % places


@triton.jit
def _column(index, tap, channel, positions, C: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr):
    """Where [position, channel] of a tap is in `columns`."""
    if GROUPS == 1:
        return ((index * TAPS + tap) * C)[:, None] + channel[None, :]
    row = (channel // (C // GROUPS)).to(tl.int64)[None, :] * positions + index[:, None]
    return (row * TAPS + tap) * (C // GROUPS) + (channel % (C // GROUPS))[None, :]


@triton.jit(**GENERAL)
def gather(
    pixels, offset, mask, columns,
    picture, place, places, positions, height, width, out_width,
    offset_n, offset_c, offset_p, mask_n, mask_c, mask_p,
    C: tl.constexpr, OFFSET_GROUPS: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    MASKED: tl.constexpr, PRECISE: tl.constexpr, PLACES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write `columns`. Programs: (positions / PLACES, offset groups * channels of one / CHANNELS)."""
    PER_OFFSET: tl.constexpr = C // OFFSET_GROUPS
    BLOCKS: tl.constexpr = (PER_OFFSET + CHANNELS - 1) // CHANNELS
    index, inside, of_piece, n, p = _position(picture, place, places, positions, PLACES)
    y, x = p // out_width * STRIDE_Y - PADDING_Y, p % out_width * STRIDE_X - PADDING_X
    group = tl.program_id(1) // BLOCKS
    of_group = tl.program_id(1) % BLOCKS * CHANNELS + tl.arange(0, CHANNELS)
    channel, own = group * PER_OFFSET + of_group, (of_group < PER_OFFSET)[None, :]
    offset += n * offset_n + p.to(tl.int64) * offset_p
    mask += n * mask_n + p.to(tl.int64) * mask_p
    for tap in range(TAPS):
        at = (group * TAPS + tap).to(tl.int64)
        tap_y, tap_x = y + tap // KERNEL_WIDTH * DILATION_Y, x + tap % KERNEL_WIDTH * DILATION_X
        cell, down, right, has_a, has_b, has_c, has_d = _reads(
            offset, offset_c, at, inside, tap_y, tap_x, height, width, PRECISE
        )
        scale = tl.full([PLACES], 1.0, PRECISE)
        if MASKED:
            scale = tl.load(mask + at * mask_c, mask=inside, other=0.0).to(PRECISE)
        above = pixels + ((of_piece * height * width + cell) * C)[:, None] + channel[None, :]
        below = above + width * C
        a = tl.load(above, mask=has_a[:, None] & own, other=0.0).to(PRECISE)
        b = tl.load(above + C, mask=has_b[:, None] & own, other=0.0).to(PRECISE)
        c = tl.load(below, mask=has_c[:, None] & own, other=0.0).to(PRECISE)
        d = tl.load(below + C, mask=has_d[:, None] & own, other=0.0).to(PRECISE)
        of_below = scale * down
        of_above = scale - of_below
        taken = a * (of_above - of_above * right)[:, None] + b * (of_above * right)[:, None]
        taken += c * (of_below - of_below * right)[:, None] + d * (of_below * right)[:, None]
        to = columns + _column(index, tap, channel, positions, C, GROUPS, TAPS)
        tl.store(to, taken.to(columns.dtype.element_ty), mask=inside[:, None] & own)


@triton.jit(**OF_GENERAL)
def scatter(
    pixels, offset, mask, pulled, columns, of_pixels, of_offset, of_mask,
    picture, place, places, positions, height, width, out_width,
    offset_n, offset_c, offset_p, mask_n, mask_c, mask_p,
    of_offset_n, of_offset_c, of_offset_p, of_mask_n, of_mask_c, of_mask_p,
    C: tl.constexpr, OFFSET_GROUPS: tl.constexpr, GROUPS: tl.constexpr, TAPS: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr, PADDING_Y: tl.constexpr, PADDING_X: tl.constexpr,
    DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    MASKED: tl.constexpr, PRECISE: tl.constexpr, PLACES: tl.constexpr, CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr, PIXELS: tl.constexpr, OFFSETS: tl.constexpr, MASKS: tl.constexpr,
):  # fmt: skip
    """What `pulled` gives. Programs: (positions / PLACES, offset groups).

    COLUMNS: `columns` is written as by `gather`, as all that it takes is read anyway.
    PIXELS: the gradient of `pixels` is added to `of_pixels`, [N, H, W, C], in no order that is fixed.
    OFFSETS, MASKS: `of_offset` and `of_mask` are written, as what they belong to but for the strides.
    """
    PER_OFFSET: tl.constexpr = C // OFFSET_GROUPS
    index, inside, of_piece, n, p = _position(picture, place, places, positions, PLACES)
    y, x = p // out_width * STRIDE_Y - PADDING_Y, p % out_width * STRIDE_X - PADDING_X
    group = tl.program_id(1)
    offset += n * offset_n + p.to(tl.int64) * offset_p
    mask += n * mask_n + p.to(tl.int64) * mask_p
    of_offset += n * of_offset_n + p.to(tl.int64) * of_offset_p
    of_mask += n * of_mask_n + p.to(tl.int64) * of_mask_p
    for tap in range(TAPS):
        at = (group * TAPS + tap).to(tl.int64)
        tap_y, tap_x = y + tap // KERNEL_WIDTH * DILATION_Y, x + tap % KERNEL_WIDTH * DILATION_X
        cell, down, right, has_a, has_b, has_c, has_d = _reads(
            offset, offset_c, at, inside, tap_y, tap_x, height, width, PRECISE
        )
        scale = tl.full([PLACES], 1.0, PRECISE)
        if MASKED:
            scale = tl.load(mask + at * mask_c, mask=inside, other=0.0).to(PRECISE)
        of_y, of_x, of_scale = tl.zeros([PLACES], PRECISE), tl.zeros([PLACES], PRECISE), tl.zeros([PLACES], PRECISE)
        for start in range(0, PER_OFFSET, CHANNELS):
            of_group = start + tl.arange(0, CHANNELS)
            channel, own = group * PER_OFFSET + of_group, (of_group < PER_OFFSET)[None, :]
            to = _column(index, tap, channel, positions, C, GROUPS, TAPS)
            pull = tl.load(pulled + to, mask=inside[:, None] & own, other=0.0).to(PRECISE)
            above = ((of_piece * height * width + cell) * C)[:, None] + channel[None, :]
            below = above + width * C
            if COLUMNS or OFFSETS or MASKS:
                a = tl.load(pixels + above, mask=has_a[:, None] & own, other=0.0).to(PRECISE)
                b = tl.load(pixels + above + C, mask=has_b[:, None] & own, other=0.0).to(PRECISE)
                c = tl.load(pixels + below, mask=has_c[:, None] & own, other=0.0).to(PRECISE)
                d = tl.load(pixels + below + C, mask=has_d[:, None] & own, other=0.0).to(PRECISE)
                along_above, along_below = b - a, d - c
                at_above = a + right[:, None] * along_above
                across = c + right[:, None] * along_below - at_above
                taken = at_above + down[:, None] * across
                if OFFSETS:
                    of_y += tl.sum(pull * across, 1)
                    of_x += tl.sum(pull * (along_above + down[:, None] * (along_below - along_above)), 1)
                if MASKS:
                    of_scale += tl.sum(pull * taken, 1)
                if COLUMNS:
                    tl.store(columns + to, (taken * scale[:, None]).to(columns.dtype.element_ty), mask=inside[:, None] & own)
            if PIXELS:
                for_below = scale * down
                for_above = scale - for_below
                for_b, for_d = for_above * right, for_below * right
                # Relaxed: nothing else is ordered by these, and the strict kind makes every other access wait.
                tl.atomic_add(of_pixels + above, pull * (for_above - for_b)[:, None], has_a[:, None] & own, sem="relaxed")
                tl.atomic_add(of_pixels + above + C, pull * for_b[:, None], has_b[:, None] & own, sem="relaxed")
                tl.atomic_add(of_pixels + below, pull * (for_below - for_d)[:, None], has_c[:, None] & own, sem="relaxed")
                tl.atomic_add(of_pixels + below + C, pull * for_d[:, None], has_d[:, None] & own, sem="relaxed")
        if OFFSETS:
            to_y, to_x = of_offset + 2 * at * of_offset_c, of_offset + (2 * at + 1) * of_offset_c
            tl.store(to_y, (of_y * scale).to(of_offset.dtype.element_ty), mask=inside)
            tl.store(to_x, (of_x * scale).to(of_offset.dtype.element_ty), mask=inside)
        if MASKS:
            tl.store(of_mask + at * of_mask_c, of_scale.to(of_mask.dtype.element_ty), mask=inside)
