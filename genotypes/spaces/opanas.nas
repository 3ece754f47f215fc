# The space of OPANAS: six pyramids of four levels, each a sum over all before it along one of six information paths.
# "OPANAS: One-Shot Path Aggregation Network Architecture Search for Object Detection" (CVPR 2021, arXiv:2103.04507), section 3,
# at the width of a search: top-down, bottom-up, fusing-splitting, scale-equalizing, skip, none. 15 decisions,
# 470,184,984,576 fillings.
#
# `none` gives zeros, as in the published code, so that every filling is a decoder. Two things differ: the convolutions of the
# paths are plain, where that code has deformable ones on all levels but the finest (put `deform_conv(x)` into `op node`), and
# the two of a fusing-splitting path have weights of their own.
choice path = top_down | bottom_up | fuse_split | equalize | keep | nothing

op node(x)             = conv_3x3(x)
op shrink(x, stride=2) = pool(x, k=stride, stride=stride, kind=max)

block top_down(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  y6 = node(x6)
  y5 = node(add(x5, up(y6, x5)))
  y4 = node(add(x4, up(y5, x4)))
  y3 = node(add(x3, up(y4, x3)))
}

block bottom_up(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  y3 = node(x3)
  y4 = node(add(x4, shrink(y3)))
  y5 = node(add(x5, shrink(y4)))
  y6 = node(add(x6, shrink(y5)))
}

block fuse_split(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  fine = add(x4, shrink(x3))
  coarse = add(x5, up(x6, x5))
  y4 = node(concat(fine, up(coarse, fine)))
  y5 = node(concat(shrink(fine), coarse))
  y3 = up(y4, x3)
  y6 = shrink(y5)
}

# The pyramid convolution of SEPC (arXiv:2005.03101): three kernels for all levels.
block equalize(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  shared own(x) = node(x)
  shared finer(x) = conv(x, k=3, stride=2)
  shared coarser(x) = node(x)
  y3 = relu(add(own(x3), up(coarser(x4), x3)))
  y4 = relu(add(own(x4), finer(x3), up(coarser(x5), x4)))
  y5 = relu(add(own(x5), finer(x4), up(coarser(x6), x5)))
  y6 = relu(add(own(x6), finer(x5)))
}

block keep(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  y3 = skip(x3)
  y4 = skip(x4)
  y5 = skip(x5)
  y6 = skip(x6)
}

block nothing(x3, x4, x5, x6) -> (y3, y4, y5, y6) {
  y3 = mul(x3, 0)
  y4 = mul(x4, 0)
  y5 = mul(x5, 0)
  y6 = mul(x6, 0)
}

decoder opanas_space {
  input c3, c4, c5

  fpn(width=64, norm=none, act=none, adapter=none) {
    # Level k of pyramid t is n[10 * t + k]. Pyramid 0 is made of the backbone, and the mean of its coarsest level is added to it.
    n3 = conv_1x1(c3)
    n4 = conv_1x1(c4)
    n5 = conv_1x1(c5)
    l6 = down(n5)
    n6 = add(l6, global_pool(conv_1x1(l6), kind=avg))
    n13, n14, n15, n16 = ?path(n3, n4, n5, n6)
    s3 = n13
    s4 = n14
    s5 = n15
    s6 = n16
    repeat t in 2..5 {
      a3, a4, a5, a6 = ?path(n3, n4, n5, n6)
      repeat j in 1..t-1 {
        b3, b4, b5, b6 = ?path(n[10*j+3], n[10*j+4], n[10*j+5], n[10*j+6])
        a3 = add(a3, b3)
        a4 = add(a4, b4)
        a5 = add(a5, b5)
        a6 = add(a6, b6)
      }
      n[10*t+3] = skip(a3)
      n[10*t+4] = skip(a4)
      n[10*t+5] = skip(a5)
      n[10*t+6] = skip(a6)
      s3 = add(s3, n[10*t+3])
      s4 = add(s4, n[10*t+4])
      s5 = add(s5, n[10*t+5])
      s6 = add(s6, n[10*t+6])
    }
    output p3 = s3, p4 = s4, p5 = s5, p6 = s6, p7 = down(s6)
  }

  head(width=64, norm=none) {
    conv_3x3 * 4
  }

  predict retinanet(anchors=9)
}
