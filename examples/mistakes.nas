decoder mine {
  input c3, c4, c5

  fpn(width=128, norm=bn) {
    l4 = conv_1x1(c4)
    m4 = sum(l4, dcnv_3x3(c5))
    m3 = sum(c3, conv_3x3(m5))
    output p3 = conv_3x3(m3, width=64), p4 = m4
  }

  head(width=256, norm=gn, share=5) {
    conv_3x3 -> conv_3x3
  }

  predict fcos(centerness=cls)
}
