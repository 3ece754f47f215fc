# HRFPN with the FCOS head: all features at the finest level, side by side, pooled into a pyramid.
# "High-Resolution Representations for Labeling Pixels and Regions" (arXiv:1904.04514), section 3, HRNetV2p: bilinear
# upsampling to stride 4, concatenation, a 1x1 convolution, average pooling; a convolution of stride 2 on each level makes
# P3 to P7 of them for FCOS, as the published code has it.
#
# It belongs behind HRNet, whose W32 has 32, 64, 128 and 256 channels, 480 in all. A ResNet-50 has 3,840: nearly all of the
# pyramid's cost is the 1x1 convolution that reads them.
op level(x, stride=2) = conv(pool(x, k=stride, stride=stride, kind=avg), k=3, stride=2)

decoder hrfpn {
  input c2, c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    x = conv_1x1(concat(c2, c3, c4, c5))
    output p3 = conv(x, k=3, stride=2)
    output p4 = level(x, stride=2), p5 = level(x, stride=4), p6 = level(x, stride=8), p7 = level(x, stride=16)
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
