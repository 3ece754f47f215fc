# NAS-FCOS @256 with the original FPN of FCOS and the searched head: the row "h only" of Table 4 (38.7 AP on ResNet-50).
# "NAS-FCOS: Fast Neural Architecture Search for Object Detection" (CVPR 2020, arXiv:1906.04423); the head is Figure 4,
# for which section 4.2 gives the AP of this row.
decoder nas_fcos_head_only {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p5 = conv_3x3(l5), p4 = conv_3x3(m4), p3 = conv_3x3(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    dconv_3x3 -> conv_3x3 -> dconv_3x3 -> conv_1x1 -> skip -> skip
  }

  predict fcos(centerness=cls)
}
