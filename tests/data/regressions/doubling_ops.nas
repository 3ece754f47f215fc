op f0(x) = f1(f1(x))
op f1(x) = f2(f2(x))
op f2(x) = f3(f3(x))
op f3(x) = f4(f4(x))
op f4(x) = f5(f5(x))
op f5(x) = f6(f6(x))
op f6(x) = f7(f7(x))
op f7(x) = f8(f8(x))
op f8(x) = f9(f9(x))
op f9(x) = f10(f10(x))
op f10(x) = f11(f11(x))
op f11(x) = f12(f12(x))
op f12(x) = f13(f13(x))
op f13(x) = f14(f14(x))
op f14(x) = relu(x)
decoder d {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    output p3 = f0(c3)
  }
  head(width=64, norm=gn) { conv_3x3 }
  predict fcos
}
