decoder d {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    let a = ?(1..200)
    x = c3
    repeat a * 24 { x = sum(x, ?(c3 | c4)) }
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }
  predict fcos
}
