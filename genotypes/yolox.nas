# YOLOX-S: a path down the pyramid and one up, of cross-stage partial blocks, and a decoupled head that each level has of its own.
# "YOLOX: Exceeding YOLO Series in 2021" (arXiv:2107.08430), section 2 and Figure 2. The pyramid is that of YOLOv5, which the
# paper takes over: the paths of PANet (arXiv:1803.01534) with CSP blocks (arXiv:1911.11929).
#
# Its backbone ends in SPP and gives 128, 256 and 512 channels. YOLOX-M, L and X have widths of 192, 256 and 320,
# and n = 2, 3 and 4.
#
# YOLOX predicts classes, four numbers of the box, and objectness from the tower of the box. `fcos` predicts maps of the same
# sizes and is in its place, which simplifies three things: locations are assigned by FCOS's ranges of sizes and not by SimOTA,
# the third map learns how central a location is and not whether there is an object, and a box is decoded from the distances
# of its sides and not from center, width and height. In figures, that is the factor of each level that `fcos` learns: 3
# parameters more, and no multiply-accumulate.
op shrink(x, width=width)     = conv(x, k=3, stride=2)
op bottleneck(x, width=width) = conv_3x3(conv_1x1(x))

# One half of the channels goes through bottlenecks in a row, the other around them.
block csp(x, width=width, n=1) -> (y) {
  a = conv_1x1(x, width=width / 2)
  b = conv_1x1(x, width=width / 2)
  repeat n { a = bottleneck(a, width=width / 2) }
  y = conv_1x1(concat(a, b))
}

decoder yolox {
  input c3, c4, c5
  let n = 1  # bottlenecks of each block

  # The width is that of P3; P4 has twice as many channels, P5 four times.
  fpn(width=128, norm=bn, act=silu, adapter=none) {
    l5 = conv_1x1(c5, width=2 * width)
    m4 = csp(concat(up(l5, c4), c4), width=2 * width, n=n)
    l4 = conv_1x1(m4)
    n3 = csp(concat(up(l4, c3), c3), n=n)
    n4 = csp(concat(shrink(n3), l4), width=2 * width, n=n)
    n5 = csp(concat(shrink(n4, width=2 * width), l5), width=4 * width, n=n)
    output p3 = n3, p4 = n4, p5 = n5
  }

  # Levels share nothing: each is brought to the width of the head, then there are two layers for classes and two for boxes.
  head(width=128, norm=bn, act=silu, share=3) {
    both: conv_1x1
    cls: conv_3x3 * 2
    box: conv_3x3 * 2
  }

  predict fcos(centerness=box, kernel=1, share=false)
}
