# A pyramid that sends the details of C3 around the levels above it; with the primitives of this folder's package.
op smooth(x) = learned_up(down_max(x))

decoder banded {
  input c3, c4, c5

  fpn(width=32, norm=bn) {
    low, detail = bands(c3, gain=1.5)
    m4 = sum(conv_3x3(low), learned_up(c5, k=5))
    m3 = add(learned_up(m4), detail)
    output p3 = conv_3x3(m3), p4 = conv_3x3(sum(m4, c4)), p5 = conv_3x3(c5)
  }

  head(width=32, norm=gn) { conv_3x3 -> smooth }

  predict fcos(centerness=cls)
}
