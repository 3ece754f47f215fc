# YOLOv8n: a path down the pyramid and one up, of blocks that keep what each of their layers gives, and a head without anchors
# that each level has of its own.
# It has no paper: this follows its authors' model file (https://docs.ultralytics.com/models/yolov8) and the parameters that
# their summary prints for each layer. The parts have papers: C2f aggregates layers as ELAN does (arXiv:2211.04800), sides are
# distributions (arXiv:2006.04388), locations are assigned as in TOOD (arXiv:2108.07755).
#
# Its backbone ends in SPPF and gives 64, 128 and 256 channels. YOLOv8s has a width of 128, also in the tower of the classes; the
# larger ones have more repeats and a narrower P5. The network is the published one. Its losses are not: CIoU and cross-entropy
# there, GIoU and focal loss here.
op shrink(x, width=width) = conv(x, k=3, stride=2)
op pair(x, width=width)   = conv_3x3(conv_3x3(x))

# Half of the channels goes through pairs of convolutions, in a row; both halves and what each pair gives are read at the end.
block c2f(x, width=width, n=1) -> (y) {
  a, b = split(conv_1x1(x))
  z = concat(a, b)
  repeat n {
    b = pair(b, width=width / 2)
    z = concat(z, b)
  }
  y = conv_1x1(z)
}

decoder yolov8 {
  input c3, c4, c5

  # The width is that of P3; P4 has twice as many channels, P5 four times.
  fpn(width=64, norm=bn, act=silu, adapter=none) {
    m4 = c2f(concat(up(c5, c4), c4), width=2 * width)
    n3 = c2f(concat(up(m4, c3), c3))
    n4 = c2f(concat(shrink(n3), m4), width=2 * width)
    n5 = c2f(concat(shrink(n4, width=2 * width), c5), width=4 * width)
    output p3 = n3, p4 = n4, p5 = n5
  }

  # Levels share nothing. The tower of the classes is as wide as COCO has classes, that of the boxes as their distributions.
  head(width=64, norm=bn, act=silu, share=2) {
    cls: conv_3x3(width=80) * 2
    box: conv_3x3(width=64) * 2
  }

  predict tal(bins=15, kernel=1, share=false)
}
