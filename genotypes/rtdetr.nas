# RT-DETR's hybrid encoder with the FCOS head: attention on the coarsest level, convolutions between levels.
# "DETRs Beat YOLOs on Real-time Object Detection" (CVPR 2024, arXiv:2304.08069), section 4.2 and Figures 4 and 5: AIFI, one
# layer of a transformer's encoder on C5 with 8 heads and 1,024 channels in its feed-forward part; CCFF, a path down and one
# up, whose fusions have three RepVGG blocks each.
#
# Two things are simplified. RepVGG blocks (arXiv:2101.03697) stand here in the form that they have for inference, one 3x3
# convolution with bias: while training, each also has a 1x1 convolution, and both a BatchNorm (67,328 parameters a block, 12
# blocks). And the transformer decoder with its queries is none of this language; the head of `fcos` is in its place, on P3 to
# P5.
op attend_all(x)   = norm(add(x, attention(x, heads=8)), norm=ln)
op feed_forward(x) = conv_1x1(conv_1x1(x, width=width * 4, norm=none, act=gelu), norm=none, act=none)
op encode(x)       = norm(add(x, feed_forward(x)), norm=ln)
op project(x)      = conv_1x1(x, act=none)
op shrink(x)       = conv(x, k=3, stride=2)

block fuse(x, y) -> (fused) {
  both = concat(up(x, y), y)
  a = conv_1x1(both)
  repeat 3 { a = conv_3x3(a, norm=none) }
  fused = add(a, conv_1x1(both))
}

decoder rtdetr {
  input c3, c4, c5

  fpn(width=256, norm=bn, act=silu, adapter=none) {
    f5 = encode(attend_all(project(c5)))
    f4 = project(c4)
    f3 = project(c3)
    l5 = conv_1x1(f5)
    l4 = conv_1x1(fuse(l5, f4))
    n3 = fuse(l4, f3)
    n4 = fuse(shrink(n3), l4)
    n5 = fuse(shrink(n4), l5)
    output p3 = n3, p4 = n4, p5 = n5
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
