# BFP, the balanced feature pyramid of Libra R-CNN, on RetinaNet: gathered at P4, averaged, refined, and given back.
# "Libra R-CNN: Towards Balanced Learning for Object Detection" (CVPR 2019, arXiv:1904.02701), section 3.2: the refinement is
# the embedded Gaussian non-local block (arXiv:1711.07971) of full width, which is attention with one head and a residual sum;
# levels and P6 from C5 follow the published code for RetinaNet.
#
# Two things differ. Attention divides the products by the square root of the width, here 16: weights of the queries 16 times as
# large give the same. And max pooling of a map with an odd side has windows side by side, the code's has overlapping ones.
op shrink(x, stride=2) = pool(x, k=stride, stride=stride, kind=max)

decoder bfp {
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
    n6 = down(c5)
    n7 = down(relu(n6))
    mean = mul(add(shrink(n3), n4, up(n5, n4), up(n6, n4), up(n7, n4)), 0.2)
    refined = add(mean, attention(mean, heads=1, position=none))
    output p3 = add(n3, up(refined, n3)), p4 = add(n4, refined), p5 = add(n5, shrink(refined))
    output p6 = add(n6, shrink(refined, stride=4)), p7 = add(n7, shrink(refined, stride=8))
  }

  head(width=256, norm=none, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict retinanet(anchors=9)
}
