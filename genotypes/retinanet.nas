# RetinaNet with a plain feature pyramid: the FPN-RetinaNet rows of Table 2 of NAS-FCOS (CVPR 2020).
# "Focal Loss for Dense Object Detection" (ICCV 2017, arXiv:1708.02002), with P6 made from P5, as those rows have it (the
# paper makes it from C5), nine anchors a location, and no norm in the head.
decoder retinanet {
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

  head(width=256, norm=none, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict retinanet(anchors=9)
}
