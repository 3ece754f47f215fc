decoder quality {
  input c3, c4, c5

  fpn(width=32, norm=bn) {
    m4 = sum(c4, c5)
    output p3 = conv_3x3(sum(c3, m4)), p4 = conv_3x3(m4), p5 = conv_3x3(c5)
  }

  head(width=32, norm=gn) { conv_3x3 }

  predict quality_fcos(boxes=exp, kernel=1)
}
