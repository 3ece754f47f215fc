# TOOD: one trunk for both tasks, from whose six layers each task takes its own share, and task-aligned assignment.
# "TOOD: Task-aligned One-stage Object Detection" (ICCV 2021, arXiv:2108.07755), section 3.1: the features of all layers side by
# side, weighted layer by layer by an attention that their global mean decides (32 channels within, as in the published code),
# brought back to 256 channels. The pyramid is that of `gfl`.
#
# Three things differ. Sides are distributions over 17 distances, where TOOD has one number: 147,520 parameters more. The map
# that corrects the scores (98,945 parameters) and the one that moves the boxes (102,984) have no word here; they are 3.7 G
# multiply-accumulates at 800x1088. And TOOD learns a factor for the sides of each level.
block interact(x) -> (layers) {
  f0 = skip(x)
  repeat t in 1..6 { f[t] = conv_3x3(f[t-1]) }
  layers = concat(f1, f2, f3, f4, f5, f6)
}

block decompose(layers) -> (features) {
  hidden = conv(global_pool(layers, kind=avg), k=1, width=width / 8, norm=none, act=relu)
  s1, s2, s3, s4, s5, s6 = split(conv(hidden, k=1, width=6, norm=none, act=sigmoid), parts=6)
  f1, f2, f3, f4, f5, f6 = split(layers, parts=6)
  weighted = concat(mul(f1, s1), mul(f2, s2), mul(f3, s3), mul(f4, s4), mul(f5, s5), mul(f6, s6))
  features = conv_1x1(weighted)
}

decoder tood {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(p6)
  }

  head(width=256, norm=gn) {
    both: interact
    cls: decompose
    box: decompose
  }

  predict tal(bins=16)
}
