# The head space: six layers and the index from which the weights are shared, on a fixed FPN.
choice head_op = conv_1x1 | conv_3x3 | sep_3x3 | sep_3x3_d3 | skip | dconv_3x3

decoder nas_fcos_head_space {
  input c2, c3, c4, c5
  fpn(width=128) from "best_fpn.nas"
  head(width=128, norm=gn, share=?(0..6)) {
    ?head_op -> ?head_op -> ?head_op -> ?head_op -> ?head_op -> ?head_op
  }
  predict fcos(centerness=cls)
}
