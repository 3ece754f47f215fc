decoder d {
  input c3, c4, c5
  fpn(width=256, norm=none) {
    l3 = conv_1x1(c3)
    m3 = resize(l3, to=norm, mode=nearest)
    output p3 = conv_3x3(m3)
  }
  head(width=256) { conv_3x3 }
  predict fcos
}
