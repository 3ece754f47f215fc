# DeformFPN-FCOS, the control of section 4.3.3 of NAS-FCOS (CVPR 2020): FCOS whose FPN has deformable 3x3 convolutions in
# place of the plain ones, each twice, so that it costs about what NAS-FCOS does (38.4 AP on ResNet-50).
#
# Never published as code. Read here as: every 3x3 convolution of the pyramid (outputs P3 to P5; P6 and P7 stay strided
# convolutions) becomes two deformable ones with the published decoder's two offset groups.
op deform_twice(x) = dconv_3x3(dconv_3x3(x))

decoder deform_fpn_fcos {
  input c3, c4, c5

  fpn(width=256, norm=none, act=none, adapter=none) {
    l3 = conv_1x1(c3)
    l4 = conv_1x1(c4)
    l5 = conv_1x1(c5)
    m4 = add(l4, resize(l5, to=l4, mode=nearest))
    m3 = add(l3, resize(m4, to=l3, mode=nearest))
    output p5 = deform_twice(l5), p4 = deform_twice(m4), p3 = deform_twice(m3)
    output p6 = down(p5), p7 = down(relu(p6))
  }

  head(width=256, norm=gn, share=0) {
    conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true) -> conv_3x3(bias=true)
  }

  predict fcos(centerness=cls)
}
