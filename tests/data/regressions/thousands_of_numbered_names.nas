decoder d {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    let a = ?(1..500)
    x0 = c3
    repeat t in 1..a * 20 { x[t] = conv_3x3(x[t-1]) }
    output p3 = x0
  }
  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }
  predict fcos
}
