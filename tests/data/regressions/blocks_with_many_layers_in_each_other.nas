block b0(x, n=2) -> (y) { y = skip(x) repeat n { y = relu(y) } }
block b1(x, n=2) -> (y) { y = b0(x, n=n + n) }
block b2(x, n=2) -> (y) { y = b1(x, n=n + n) }
block b3(x, n=2) -> (y) { y = b2(x, n=n + n) }
block b4(x, n=2) -> (y) { y = b3(x, n=n + n) }
block b5(x, n=2) -> (y) { y = b4(x, n=n + n) }
block b6(x, n=2) -> (y) { y = b5(x, n=n + n) }
block b7(x, n=2) -> (y) { y = b6(x, n=n + n) }
block b8(x, n=2) -> (y) { y = b7(x, n=n + n) }
block b9(x, n=2) -> (y) { y = b8(x, n=n + n) }
block b10(x, n=2) -> (y) { y = b9(x, n=n + n) }
block b11(x, n=2) -> (y) { y = b10(x, n=n + n) }
block b12(x, n=2) -> (y) { y = b11(x, n=n + n) }
block b13(x, n=2) -> (y) { y = b12(x, n=n + n) }
block b14(x) -> (y) { y = b13(x) }
block b15(x) -> (y) { y = b14(x) }
block b16(x) -> (y) { y = b15(x) }
block b17(x) -> (y) { y = b16(x) }
block b18(x) -> (y) { y = b17(x) }
block b19(x) -> (y) { y = b18(x) }
block b20(x) -> (y) { y = b19(x) }
block b21(x) -> (y) { y = b20(x) }
block b22(x) -> (y) { y = b21(x) }
block b23(x) -> (y) { y = b22(x) }
block b24(x) -> (y) { y = b23(x) }
block b25(x) -> (y) { y = b24(x) }
block b26(x) -> (y) { y = b25(x) }
block b27(x) -> (y) { y = b26(x) }
block b28(x) -> (y) { y = b27(x) }
block b29(x) -> (y) { y = b28(x) }
block b30(x) -> (y) { y = b29(x) }
block b31(x) -> (y) { y = b30(x) }
block b32(x) -> (y) { y = b31(x) }
block b33(x) -> (y) { y = b32(x) }
block b34(x) -> (y) { y = b33(x) }
block b35(x) -> (y) { y = b34(x) }
block b36(x) -> (y) { y = b35(x) }
block b37(x) -> (y) { y = b36(x) }
block b38(x) -> (y) { y = b37(x) }
block b39(x) -> (y) { y = b38(x) }
decoder d {
  input c3
  fpn(width=64, norm=bn) {
    x = b39(c3)
    output p3 = x
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
