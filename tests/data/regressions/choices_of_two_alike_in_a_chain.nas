choice c0 = ?c1 | ?c1
choice c1 = ?c2 | ?c2
choice c2 = ?c3 | ?c3
choice c3 = ?c4 | ?c4
choice c4 = ?c5 | ?c5
choice c5 = ?c6 | ?c6
choice c6 = ?c7 | ?c7
choice c7 = ?c8 | ?c8
choice c8 = ?c9 | ?c9
choice c9 = ?c10 | ?c10
choice c10 = ?c11 | ?c11
choice c11 = ?c12 | ?c12
choice c12 = ?c13 | ?c13
choice c13 = ?c14 | ?c14
choice c14 = ?c15 | ?c15
choice c15 = ?c16 | ?c16
choice c16 = ?c17 | ?c17
choice c17 = ?c18 | ?c18
choice c18 = ?c19 -> ?c19
choice c19 = ?c20 | ?c20
choice c20 = relu | skip
decoder d {
  input c3, c4, c5
  head(width=64, norm=bn) {
    output p3 = ?c0(c3)
  }
  head(width=64, norm=c19) { conv_3x3 }
  predict fcos
}
