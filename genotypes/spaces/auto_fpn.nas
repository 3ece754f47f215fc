# The fusion space of Auto-FPN: twice, each of four levels becomes a sum over all of them, with an operation on each way.
# "Auto-FPN: Automatic Network Architecture Adaptation for Object Detection Beyond Classification" (ICCV 2019), at the width of
# a search. 32 decisions, 7,958,661,109,946,400,884,391,936 fillings.
#
# Its other half, the search for the head of a two-stage detector, has no counterpart here. Levels are P3 to P6 instead of P2 to
# P5, and P7 is made of P6.
choice op = skip | sep_3x3 | sep_5x5 | dilated_3x3 | dilated_5x5 | none

op dilated_3x3(x)      = conv(x, k=3, dilation=2)
op dilated_5x5(x)      = conv(x, k=5, dilation=2)
op shrink(x, stride=2) = pool(x, k=stride, stride=stride, kind=max)

block fuse(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  y3 = add(?op(x3), ?op(up(x4, x3)), ?op(up(x5, x3)), ?op(up(x6, x3)))
  y4 = add(?op(shrink(x3)), ?op(x4), ?op(up(x5, x4)), ?op(up(x6, x4)))
  y5 = add(?op(shrink(x3, stride=4)), ?op(shrink(x4)), ?op(x5), ?op(up(x6, x5)))
  y6 = add(?op(shrink(x3, stride=8)), ?op(shrink(x4, stride=4)), ?op(shrink(x5)), ?op(x6))
}

decoder auto_fpn_space {
  input c3, c4, c5

  fpn(width=64, norm=bn) {
    a3, a4, a5, a6 = fuse(c3, c4, c5, down(c5))
    b3, b4, b5, b6 = fuse(a3, a4, a5, a6)
    output p3 = b3, p4 = b4, p5 = b5, p6 = b6, p7 = down(relu(b6))
  }

  head(width=64, norm=gn) {
    conv_3x3 * 4
  }

  predict fcos
}
