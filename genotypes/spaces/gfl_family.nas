# Detectors around GFL: a top-down pyramid with or without PANet's path back up, and towers of zero to four layers, plain,
# separable or 1x1. `gfl` is in it. The choices are those of `fcos_family`, with the prediction of Generalized Focal Loss. Made
# for searches of a whole detector, with --size, --width and --budget. 13 decisions, 37,748,736 fillings.
choice smooth = conv_3x3 | sep_3x3 | conv_1x1 | skip
choice path   = keep | climb | climb_max
choice layer  = conv_3x3 | sep_3x3 | conv_1x1 | skip

agg keep(x, finer)      = x
agg climb(x, finer)     = conv_3x3(add(x, down(finer)))
agg climb_max(x, finer) = add(x, down_max(finer))

decoder gfl_family_space {
  input c3, c4, c5

  fpn(width=64, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    n3 = ?smooth(m3)
    n4 = ?path(?smooth(m4), n3)
    n5 = ?path(?smooth(l5), n4)
    output p3 = n3, p4 = n4, p5 = n5
    output p6 = down(p5), p7 = down(p6)
  }

  head(width=64, norm=gn, share=0) {
    cls: ?layer -> ?layer -> ?layer -> ?layer
    box: ?layer -> ?layer -> ?layer -> ?layer
  }

  predict gfl(bins=16)
}
