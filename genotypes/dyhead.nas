# DyHead on ATSS: six blocks behind the pyramid, in which each map is weighted by scale, by position and by task.
# "Dynamic Head: Unifying Object Detection Heads with Attentions" (CVPR 2021, arXiv:2106.08322), section 3, as the published
# code has it: at each level, deformable convolutions of the map, of the finer and of the coarser one, all with the offsets and
# the mask that the map itself predicts; the mean of the three, each weighted by one factor; and the larger of two lines, whose
# slopes and heights follow from the mean of the map. All levels share the weights of a block. Predictions are those of
# `atss`, of 1x1, without towers.
#
# Two things differ, and neither changes parameters or multiply-accumulates. The coarser map has a quarter of the positions, and
# published code takes as many of the offsets, in the order of memory (microsoft/DynamicHead, issue 25) or from the upper left
# corner (open-mmlab/mmdetection, pull request 11150): those of other places. Here all of them are resized. And boxes are
# sides, as those of `atss`, where that code moves and scales one anchor.
block dynamic_relu(x) -> (y) {
  hidden = conv(global_pool(x, kind=avg), k=1, width=width / 4, act=relu)
  s1, t1, s2, t2 = split(add(conv(hidden, k=1, width=width * 4, act=hardsigmoid), -0.5), parts=4)
  y = max(add(mul(x, add(mul(s1, 2), 1)), t1), add(mul(x, s2, 2), t2))
}

block shrunk(x, offsets) -> (y) {
  o = resize(offsets, to=x)
  y = norm(deform_conv(x, offset=o), norm=gn16)
}

block dynamic(x3, x4, x5, x6, x7) -> (y3, y4, y5, y6, y7) {
  shared offsets(x) = conv(x, k=3, width=3 * 9)
  shared own(x, o) = norm(deform_conv(x, offset=o), norm=gn16)
  shared finer(x, o) = norm(deform_conv(x, offset=o, stride=2), norm=gn16)
  shared coarser(x, o) = shrunk(x, o)
  shared scaled(x) = mul(x, hardsigmoid(relu(conv(global_pool(x, kind=avg), k=1, width=1))))
  shared task(x) = dynamic_relu(x)
  repeat t in 3..7 {
    o[t] = offsets(x[t])
    m[t] = scaled(own(x[t], o[t]))
  }
  repeat t in 4..7 { l[t] = scaled(finer(x[t-1], o[t])) }
  repeat t in 3..6 { h[t] = scaled(resize(coarser(x[t+1], o[t]), to=x[t], mode=aligned)) }
  y3 = task(mul(add(m3, h3), 0.5))
  repeat t in 4..6 { y[t] = task(mul(add(m[t], l[t], h[t]), 1.0 / 3)) }
  y7 = task(mul(add(m7, l7), 0.5))
}

decoder dyhead {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    a5 = conv_3x3(l5)
    a4 = conv_3x3(m4)
    a3 = conv_3x3(m3)
    a6 = down(a5)
    a7 = down(relu(a6))
    repeat 6 { a3, a4, a5, a6, a7 = dynamic(a3, a4, a5, a6, a7) }  # nas: allow NAS906 (as published: no scale is left out)
    output p3 = a3, p4 = a4, p5 = a5, p6 = a6, p7 = a7
  }

  head(width=256) {
    skip
  }

  predict atss(kernel=1)
}
