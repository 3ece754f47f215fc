# FCOS with a plain feature pyramid: the FPN-FCOS rows of Table 2 of NAS-FCOS (CVPR 2020).
# "FCOS: Fully Convolutional One-Stage Object Detection" (ICCV 2019, arXiv:1904.01355), first version: centerness on the
# class tower. The published head's convolutions have a bias in front of their GroupNorm; the figures count it.
decoder fcos {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
