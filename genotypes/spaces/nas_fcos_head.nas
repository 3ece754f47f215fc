# The head space of NAS-FCOS (CVPR 2020, sections 3.2.2 and 3.2.3): six layers and the index from which all levels share
# their weights, on the FPN that its authors found, at the width of the search. 7 decisions, 326,592 fillings.
choice head_op = conv_1x1 | conv_3x3 | sep_3x3 | sep_3x3_d3 | skip | dconv_3x3

decoder nas_fcos_head_space {
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

  head(width=128, norm=gn, share=?(0..6)) {
    ?head_op -> ?head_op -> ?head_op -> ?head_op -> ?head_op -> ?head_op
  }

  predict fcos(centerness=cls)
}
