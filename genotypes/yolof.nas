# YOLOF: one level instead of a pyramid, with dilated convolutions that see objects of all sizes.
# "You Only Look One-level Feature" (CVPR 2021, arXiv:2103.09460), section 4 and Figure 9: a projection of C5 to 512
# channels, four residual blocks of dilation 2, 4, 6 and 8 with a quarter of the width inside, and towers of two layers for
# classes and four for boxes, on five anchors.
#
# One thing is simplified: YOLOF also predicts an objectness of each anchor and multiplies the class scores by it, which has no
# word here. It is a 3x3 convolution to five channels: 23,045 parameters, 0.02 G multiply-accumulates.
op dilated(x, dilation=2)  = conv_1x1(conv(conv_1x1(x, width=width / 4), k=3, dilation=dilation, width=width / 4))
op residual(x, dilation=2) = add(x, dilated(x, dilation=dilation))

decoder yolof {
  input c5

  fpn(width=512, norm=bn, act=relu, adapter=none) {
    x0 = conv_3x3(conv_1x1(c5, act=none, bias=true), act=none, bias=true)
    repeat t in 1..4 { x[t] = residual(x[t-1], dilation=2 * t) }
    output p5 = x4
  }

  head(width=512, norm=bn) {
    cls: conv_3x3(bias=true) * 2
    box: conv_3x3(bias=true) * 4
  }

  predict retinanet(anchors=5)
}
