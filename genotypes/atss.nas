# ATSS: the feature pyramid and towers of FCOS with centerness beside the boxes, trained with adaptive sample selection.
# "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection" (CVPR 2020,
# arXiv:1912.02424). P6 is made from P5, and each convolution of the towers has a bias and a GroupNorm, as the published code
# has it.
decoder atss {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn) {
    conv_3x3(bias=true) * 4
  }

  predict atss
}
