# The FPN space of NAS-FCOS (CVPR 2020, section 3.2.1): 7 basic blocks over the operations of Table 1, with the original
# head, at the width of the search. 35 decisions,
# 285,768,000,000,000,000,000,000 fillings.
choice op  = sep_3x3 | sep_3x3_d3 | sep_5x5_d6 | skip | dconv_3x3
choice agg = psum | cat

decoder nas_fcos_fpn_space {
  input c2, c3, c4, c5

  fpn(width=64, norm=bn) {
    repeat t in 1..7 { x[t] = ?agg(?op(?pool), ?op(?pool)) }
    output p5 = x5, p4 = x6, p3 = x7
    merge dangling into p3, p4, p5
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=64, norm=gn, share=0) {
    conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3
  }

  predict fcos(centerness=cls)
}
