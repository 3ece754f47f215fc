# PAFPN, the pyramid of PANet, with the FCOS head: a second, bottom-up path on top of a plain feature pyramid.
# "Path Aggregation Network for Instance Segmentation" (CVPR 2018, arXiv:1803.01534), section 3.1 and Figure 1b. There the
# path starts at P2 and a two-stage head follows; here it starts at P3, P6 and P7 are made as FCOS makes them, and the head
# is that of `fcos`. Both convolutions of a step of the path have a ReLU, as the paper says; toolboxes often leave them out.
agg climb(x, finer) = conv(add(x, conv(finer, k=3, stride=2, act=relu)), k=3, act=relu)

decoder panet {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    n3 = conv_3x3(m3)
    n4 = climb(conv_3x3(m4), n3)
    n5 = climb(conv_3x3(l5), n4)
    output p3 = n3, p4 = n4, p5 = n5
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
