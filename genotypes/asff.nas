# ASFF on RetinaNet: each of P3 to P5 is a mean of all three, with weights for each position that the network predicts.
# "Learning Spatial Fusion for Single-Shot Object Detection" (arXiv:1911.09516), section 3; what the paper leaves open
# follows the published code: 16 channels of each level for the weights, BatchNorm behind the convolutions of the fusion.
#
# The paper's main detector is YOLOv3, whose levels have 1024, 512 and 256 channels, and each fusion ends in a 3x3 convolution
# there. Here is its variant for RetinaNet: all levels have 256 channels, so that the 1x1 convolutions that bring widths
# together in front of the upsampling have nothing to do, and the head is RetinaNet's. ReLU is in the place of LeakyReLU.
op halve(x)   = conv(x, k=3, stride=2, norm=bn, act=relu)
op squeeze(x) = conv_1x1(x, width=16, norm=bn, act=relu)

block fuse(x, y, z) -> (fused) {
  weights = conv_1x1(concat(squeeze(x), squeeze(y), squeeze(z)), width=3)
  fused = weighted_add(x, y, z, by=weights)
}

decoder asff {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    n3 = conv_3x3(m3)
    n4 = conv_3x3(m4)
    n5 = conv_3x3(l5)
    h45 = halve(n4)
    h35 = halve(down_max(n3))
    f5 = fuse(n5, h45, h35)
    u54 = up(n5, n4)
    h34 = halve(n3)
    f4 = fuse(u54, n4, h34)
    u53 = up(n5, n3)
    u43 = up(n4, n3)
    f3 = fuse(u53, u43, n3)
    output p3 = f3, p4 = f4, p5 = f5
    output p6 = down(c5), p7 = down(relu(p6))
  }

  head(width=256, norm=none, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict retinanet(anchors=9)
}
