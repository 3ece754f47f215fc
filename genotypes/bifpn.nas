# BiFPN of EfficientDet-D0: three weighted bidirectional layers of width 64, with its separable head.
# "EfficientDet: Scalable and Efficient Object Detection" (CVPR 2020, arXiv:1911.09070), section 3 and Figure 2d; what the
# paper leaves open follows the published code: fusion, then swish, separable convolution and BatchNorm; P6 and P7 pooled
# from C5; in the first layer each use of C4 and C5 has a projection of its own; biases also in front of norms.
#
# Two things differ from the published head, which `efficientdet_d0` has: there each level has BatchNorms of its own, here
# GroupNorm needs no statistics a level. And the last convolutions are ordinary, not separable.
op lateral(x) = conv_1x1(x, bias=true)
op refine(x)  = sep_3x3(silu(x), bias=true)

# One layer: down the pyramid, then up again. The levels between meet their own input (r4, r5, p6) on the way up once more.
block bifpn(p3, p4, p5, p6, p7, r4, r5) -> (q3, q4, q5, q6, q7) {
  t6 = refine(weighted_add(p6, up(p7, p6)))
  t5 = refine(weighted_add(p5, up(t6, p5)))
  t4 = refine(weighted_add(p4, up(t5, p4)))
  q3 = refine(weighted_add(p3, up(t4, p3)))
  q4 = refine(weighted_add(r4, t4, down_max(q3)))
  q5 = refine(weighted_add(r5, t5, down_max(q4)))
  q6 = refine(weighted_add(p6, t6, down_max(q5)))
  q7 = refine(weighted_add(p7, down_max(q6)))
}

decoder bifpn {
  input c3, c4, c5

  fpn(width=64, norm=bn, act=none, adapter=none) {
    l3 = lateral(c3)
    l4 = lateral(c4)
    l5 = lateral(c5)
    l6 = down_max(lateral(c5))
    l7 = down_max(l6)
    r4 = lateral(c4)
    r5 = lateral(c5)
    a3, a4, a5, a6, a7 = bifpn(l3, l4, l5, l6, l7, r4, r5)
    repeat 2 { a3, a4, a5, a6, a7 = bifpn(a3, a4, a5, a6, a7, a4, a5) }
    output p3 = a3, p4 = a4, p5 = a5, p6 = a6, p7 = a7
  }

  head(width=64, norm=gn, act=silu, share=0) {
    sep_3x3(bias=true) -> sep_3x3(bias=true) -> sep_3x3(bias=true)
  }

  predict retinanet(anchors=9)
}
