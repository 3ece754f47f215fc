# FCOS with a plain feature pyramid: the FPN-FCOS rows of Table 2.
decoder fcos {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict fcos(centerness=cls)
}
