# GFL: scores that tell how good a box is, and its sides as distributions over 17 distances.
# "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object Detection" (NeurIPS 2020,
# arXiv:2006.04388), on the pyramid and the towers of `atss`; the towers' convolutions have no bias in front of their
# GroupNorm, and P7 is made without a ReLU, as the published code has it. One thing differs: that code also learns a factor for
# the distributions of each level, five parameters in all.
decoder gfl {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(p6)
  }

  head(width=256, norm=gn) {
    conv_3x3 * 4
  }

  predict gfl(bins=16)
}
