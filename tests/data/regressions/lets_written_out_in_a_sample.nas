block a0(x) -> (y) { let d0 = ?(0..3) let d1 = d0 + d0 let d2 = d1 + 1 let d3 = d2 + d0 let d4 = d3 + 1 let d5 = d4 + d0 let d6 = d5 + d5 let d7 = d6 + d6 let d8 = d7 + d7 let d9 = d8 + 1 let d10 = d9 + d0 let d11 = d10 + d10 let d12 = d11 + 1 let d13 = d12 + d0 y = x repeat d13 { y = norm(y) } }
op a1(x) = a0(x)
decoder d {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    x = c3 repeat 2 { x = a1(x) }
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
