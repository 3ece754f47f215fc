# NAS-FPN 7 @ 256: the pyramid of seven merging cells that was found, stacked seven times, with the RetinaNet head.
# "NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection" (CVPR 2019, arXiv:1904.07392), Figure 6;
# what the figure leaves open follows the published code: 1x1 convolution and BatchNorm on C3 to C5, P6 and P7 pooled from
# P5, nearest-neighbour resizing, attention of the coarser operand to the finer, inputs that no cell reads (P5, P7) added
# in the cell that puts out their level. One thing differs: the head has no norms, as in RetinaNet's own paper, where the
# code has BatchNorms of each level.
op rcb(x)              = conv(relu(x), k=3)
op shrink(x, stride=2) = pool(x, k=stride, stride=stride, kind=max)

block cells(p3, p4, p5, p6, p7) -> (q3, q4, q5, q6, q7) {
  m1 = rcb(attend(p4, up(p6, p4)))
  m2 = rcb(sum(m1, p4))
  q3 = rcb(sum(p3, up(m2, p3)))
  q4 = rcb(sum(m2, shrink(q3)))
  q5 = rcb(sum(attend(shrink(q3, stride=4), shrink(q4)), p5))
  q7 = rcb(sum(attend(shrink(m2, stride=8), shrink(q5, stride=4)), p7))
  q6 = rcb(attend(shrink(q5), up(q7, p6)))
}

decoder nas_fpn {
  input c3, c4, c5

  fpn(width=256, norm=bn, act=none) {
    a3 = c3
    a4 = c4
    a5 = c5
    a6 = shrink(a5)
    a7 = shrink(a6)
    repeat 7 { a3, a4, a5, a6, a7 = cells(a3, a4, a5, a6, a7) }
    output p3 = a3, p4 = a4, p5 = a5, p6 = a6, p7 = a7
  }

  head(width=256, norm=none, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict retinanet(anchors=9)
}
