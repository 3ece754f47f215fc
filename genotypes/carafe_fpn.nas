# CARAFE-FPN with the FCOS head: a feature pyramid whose upsampling is content-aware reassembly.
# "CARAFE: Content-Aware ReAssembly of FEatures" (ICCV 2019, arXiv:1905.02188), section 4.1: each nearest-neighbour
# interpolation of the top-down path becomes a CARAFE of k_up = 5, k_encoder = 3 and 64 compressed channels.
#
# The paper's pyramid starts at P2 and a two-stage head follows. Here it starts at P3, and all but the upsampling is that of
# `fcos`: 148,296 parameters more, which are two CARAFEs of 74 K, as the paper counts them.
decoder carafe_fpn {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, carafe(l5))
    m3 = add(l3, carafe(m4))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
