choice op = conv_3x3 | sep_3x3 | skip

decoder deep_space {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    x = c5
    repeat ?(1..4) { x = ?op(x) }
    let d = ?(0..2)
    y = c4
    repeat t in 1..d { y = conv_3x3(y) }
    output p5 = x, p4 = y, p3 = c3
  }
  head(width=64, norm=gn) { conv_3x3 * ?(1..4) -> ?(sep_3x3 -> sep_3x3 | skip) }
  predict fcos
}
