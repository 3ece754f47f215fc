# NAS-FCOS, the decoder of Figures 3 and 4, width 256.
decoder nas_fcos {
  input c2, c3, c4, c5

  fpn(width=256, norm=bn) {
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

  head(width=256, norm=gn, share=0) {
    dconv_3x3 -> conv_3x3 -> dconv_3x3 -> conv_1x1 -> skip -> skip
  }

  predict fcos(centerness=cls)
}
