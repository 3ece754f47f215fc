# A weighted bidirectional pyramid layer, used three times.
agg fuse2(x, y)    = conv(weighted_add(x, y), k=3)
agg fuse3(x, y, z) = conv(weighted_add(x, y, z), k=3)

block bifpn(p3, p4, p5) -> (q3, q4, q5) {
  m4 = fuse2(p4, p5)
  q3 = fuse2(p3, m4)
  q4 = fuse3(p4, m4, resize(q3, to=p4))
  q5 = fuse2(p5, resize(q4, to=p5))
}

decoder bifpn3 {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    a3, a4, a5 = bifpn(c3, c4, c5)
    repeat 2 { a3, a4, a5 = bifpn(a3, a4, a5) }
    output p3 = a3, p4 = a4, p5 = a5
    output p6 = down(p5), p7 = down(relu(p6))
  }
  head(width=64, norm=gn, share=0) {
    cls: sep_3x3 -> sep_3x3
    box: sep_3x3 -> sep_3x3 -> sep_3x3
  }
  predict fcos(centerness=box)
}
