# SEPC on RetinaNet: four pyramid convolutions, whose three kernels go over all levels and reach one level up and down.
# "Scale-Equalizing Pyramid Convolution for Object Detection" (CVPR 2020, arXiv:2005.03101), section 3, without deformable
# kernels and with integrated BatchNorm: four layers that both towers share, then one for classes and one for boxes.
#
# Integrated BatchNorm takes the statistics of all levels together. Here the norm is one set of weights and running statistics
# for all levels, so that evaluation is the same; while training, each level is normalized by its own mean and variance.
block pyramid_conv(x3, x4, x5, x6, x7) -> (y3, y4, y5, y6, y7) {
  shared own(x) = conv(x, k=3)
  shared finer(x) = conv(x, k=3, stride=2)
  shared coarse(x) = conv(x, k=3)
  shared close(x) = relu(norm(x, norm=bn))
  y3 = close(add(own(x3), resize(coarse(x4), to=x3, mode=aligned)))
  y4 = close(add(own(x4), finer(x3), resize(coarse(x5), to=x4, mode=aligned)))
  y5 = close(add(own(x5), finer(x4), resize(coarse(x6), to=x5, mode=aligned)))
  y6 = close(add(own(x6), finer(x5), resize(coarse(x7), to=x6, mode=aligned)))
  y7 = close(add(own(x7), finer(x6)))
}

decoder sepc {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, up(l5, l4))
    m3 = add(l3, up(m4, l3))
    a3 = conv_3x3(m3)
    a4 = conv_3x3(m4)
    a5 = conv_3x3(l5)
    a6 = down(c5)
    a7 = down(relu(a6))
    repeat 4 { a3, a4, a5, a6, a7 = pyramid_conv(a3, a4, a5, a6, a7) }
    output p3 = a3, p4 = a4, p5 = a5, p6 = a6, p7 = a7
  }

  head(width=256, norm=bn) {
    conv_3x3(bias=true)
  }

  predict retinanet(anchors=9)
}
