# NAS-FCOS @128: the decoder of Figures 3 and 4 of "NAS-FCOS: Fast Neural Architecture Search for Object Detection"
# (CVPR 2020, arXiv:1906.04423), the light one of Table 2 (37.9 AP on ResNet-50).
decoder nas_fcos_128 {
  input c2, c3, c4, c5

  fpn(width=128, norm=bn) {
    x1 = cat(dconv_3x3(c5), dconv_3x3(c5))
    x2 = cat(dconv_3x3(c5), dconv_3x3(c5))
    x3 = cat(dconv_3x3(x1), skip(c5))
    x4 = cat(dconv_3x3(c3), skip(c5))
    x5 = cat(dconv_3x3(x2), dconv_3x3(c5))
    x6 = cat(dconv_3x3(x1), dconv_3x3(x4))
    x7 = cat(dconv_3x3(x4), dconv_3x3(c4))
    output p5 = x5, p4 = x6, p3 = x7
    merge dangling into p3, p4, p5
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=128, norm=gn, share=0) {
    dconv_3x3 -> conv_3x3 -> dconv_3x3 -> conv_1x1 -> skip -> skip
  }

  predict fcos(centerness=cls)
}
