block b0(x) -> (y) { y = skip(x) }
block b1(x) -> (y) { a = b0(x) y = b0(a) }
block b2(x) -> (y) { a = b1(x) y = b1(a) }
block b3(x) -> (y) { a = b2(x) y = b2(a) }
block b4(x) -> (y) { a = b3(x) y = b3(a) }
block b5(x) -> (y) { a = b4(x) y = b4(a) }
block b6(x) -> (y) { a = b5(x) y = b5(a) }
block b7(x) -> (y) { a = b6(x) y = b6(a) }
block b8(x) -> (y) { a = b7(x) y = b7(a) }
block b9(x) -> (y) { a = b8(x) y = b8(a) }
block b10(x) -> (y) { a = b9(x) y = b9(a) }
block b11(x) -> (y) { a = b10(x) y = b10(a) }
block b12(x) -> (y) { a = b11(x) y = b11(a) }
block b13(x) -> (y) { a = b12(x) y = b12(a) }
block b14(x) -> (y) { a = b13(x) y = b13(a) }
decoder d {
  input c3
  fpn(width=64, norm=bn) {
    x = c3
    repeat 20 { x = b14(x) }
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
