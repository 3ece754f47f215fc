# NAS-FCOS @128-256: the decoder of Figures 3 and 4 of "NAS-FCOS: Fast Neural Architecture Search for Object Detection"
# (CVPR 2020, arXiv:1906.04423) with an FPN of width 128 and a head of width 256 (39.1 AP on ResNet-50, Table 2).
#
# It was never published as code. Here the features are widened where they are put out, by a grouped 1x1 convolution that
# makes two channels of each: it costs next to nothing, as the printed figures want it (they hold to the last digit for
# `op widen(x) = concat(x, x)`, which has no weights at all; a full 1x1 convolution costs 0.6 G more).
op widen(x) = conv(x, k=1, width=256, groups=width, norm=none, act=none, bias=false)

decoder nas_fcos_128_256 {
  input c2, c3, c4, c5

  fpn(width=128, norm=bn) {
    x1 = cat(dconv_3x3(c5), dconv_3x3(c5))
    x2 = cat(dconv_3x3(c5), dconv_3x3(c5))
    x3 = cat(dconv_3x3(x1), skip(c5))
    x4 = cat(dconv_3x3(c3), skip(c5))
    x5 = cat(dconv_3x3(x2), dconv_3x3(c5))
    x6 = cat(dconv_3x3(x1), dconv_3x3(x4))
    x7 = cat(dconv_3x3(x4), dconv_3x3(c4))
    merge dangling into x5, x6, x7
    output p5 = widen(x5), p4 = widen(resize(x6, to=c4)), p3 = widen(x7)
    output p6 = down(p5, width=256), p7 = down(relu(p6), width=256)
  }

  head(width=256, norm=gn, share=0) {
    dconv_3x3 -> conv_3x3 -> dconv_3x3 -> conv_1x1 -> skip -> skip
  }

  predict fcos(centerness=cls)
}
