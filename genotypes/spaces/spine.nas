# Scale-permuted decoders after SpineNet: blocks in a row, each at a level that is decided, of any two values before it.
# "SpineNet: Learning Scale-Permuted Backbone for Recognition and Localization" (CVPR 2020, arXiv:1912.05027), section 3: levels,
# cross-scale connections and kinds of blocks are decisions; the last five blocks put out P3 to P7, and what nothing reads
# joins them. 35 decisions, 3,446,736,714,989,568,000,000,000 fillings.
#
# There a whole backbone is made of such blocks, each with the width of its level. Here they follow a backbone, with one width,
# and resampling is nearest-neighbour interpolation without convolutions.
choice unit = bottleneck | residual

op bottleneck(x) = relu(add(x, conv_1x1(conv_3x3(conv_1x1(x, width=width / 4), width=width / 4), act=none)))
op residual(x)   = relu(add(x, conv_3x3(conv_3x3(x), act=none)))

decoder spine_space {
  input c2, c3, c4, c5

  fpn(width=64, norm=bn) {
    repeat t in 1..5 {
      let level = ?(2..6)
      x[t] = ?unit(add(resize(?pool, to=level, mode=nearest), resize(?pool, to=level, mode=nearest)))
    }
    repeat level in 3..7 {
      y[level] = ?unit(add(resize(?pool, to=level, mode=nearest), resize(?pool, to=level, mode=nearest)))
    }
    output p3 = y3, p4 = y4, p5 = y5, p6 = y6, p7 = y7
    merge dangling into p3, p4, p5, p6, p7
  }

  head(width=64, norm=gn) {
    conv_3x3 * 4
  }

  predict fcos
}
