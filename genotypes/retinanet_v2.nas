# RetinaNet as torchvision's second version has it: P6 made from C5, and GroupNorm in the head.
# "Focal Loss for Dense Object Detection" (ICCV 2017, arXiv:1708.02002) with the changes of "Bridging the Gap Between
# Anchor-based and Anchor-free Detection via Adaptive Training Sample Selection" (CVPR 2020, arXiv:1912.02424), which
# torchvision names. `--weights` reads torchvision's file of it.
decoder retinanet_v2 {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(c5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict retinanet(anchors=9)
}
