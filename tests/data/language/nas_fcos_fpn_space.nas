# The FPN space of the paper: 7 basic blocks, Table 1's operations.
choice op  = sep_3x3 | sep_3x3_d3 | sep_5x5_d6 | skip | dconv_3x3
choice agg = psum | cat

decoder nas_fcos_fpn_space {
  input c2, c3, c4, c5
  require macs <= 120G at 800x1088
  fpn(width=64, norm=bn) {
    repeat t in 1..7 { x[t] = ?agg(?op(?pool), ?op(?pool)) }
    output p5 = x5, p4 = x6, p3 = x7
    merge dangling into p3, p4, p5
    output p6 = down(p5), p7 = down(relu(p6))
  }
  head(width=64, norm=gn, share=0) { conv_3x3 -> conv_3x3 -> conv_3x3 -> conv_3x3 }
  predict fcos(centerness=cls)
}
