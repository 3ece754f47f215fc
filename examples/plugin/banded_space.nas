# Which way details take, and how maps grow: eight decoders.
decoder banded_space {
  input c3, c4, c5

  fpn(width=32, norm=bn) {
    low, detail = bands(?(c3 | conv_3x3(c3)), gain=1.5)
    m4 = sum(conv_3x3(low), ?(learned_up | resize(to=4, mode=nearest))(c5))
    m3 = add(?(learned_up | resize(to=3, mode=nearest))(m4), detail)
    output p3 = m3, p4 = sum(m4, c4), p5 = c5
  }

  head(width=32, norm=gn) { conv_3x3 }

  predict fcos(centerness=cls)
}
