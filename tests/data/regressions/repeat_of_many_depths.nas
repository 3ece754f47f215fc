decoder d {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    let a = ?(1..200)
    let b = ?(32)
    x = c3
    repeat a * b { x = relu(x) }
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }
  predict fcos(centerness=cls)
}
