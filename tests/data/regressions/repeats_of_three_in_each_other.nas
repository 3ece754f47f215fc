decoder d {
  input c3
  fpn(width=64, norm=bn) {
    x = skip(c3)
    repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { repeat 3 { x = relu(x) } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } } 
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
