# The vocabulary: every op and aggregation that a decoder can use without defining it, in the language itself.
#
# In a body, `width`, `norm` and `act` are those of the section (fpn or head) that uses the op. Parameters with a value
# are attributes that a call may set: conv_3x3(x, width=128). The primitives behind these are conv, deform_conv, norm,
# scale, add, mul, max, weighted_add, concat, split, resize, pool, global_pool and the activations.

# ---------------------------------------------------------------------------------------------- unary operations

op skip(x) = x
op conv_1x1(x, width=width, norm=norm, act=act, bias=auto) = conv(x, k=1, width=width, norm=norm, act=act, bias=bias)
op conv_3x3(x, width=width, norm=norm, act=act, bias=auto) = conv(x, k=3, width=width, norm=norm, act=act, bias=bias)

# Separable convolutions: depthwise, then 1x1, no norm between (NAS-FCOS, Table 1, as its published code has them).
op sep_3x3(x, bias=auto) = conv(conv(x, k=3, groups=width, norm=none, act=none, bias=false), k=1, bias=bias)
op sep_5x5(x, bias=auto) = conv(conv(x, k=5, groups=width, norm=none, act=none, bias=false), k=1, bias=bias)
op sep_3x3_d3(x)         = conv(conv(x, k=3, dilation=3, groups=width, norm=none, act=none, bias=false), k=1)
op sep_5x5_d6(x)         = conv(conv(x, k=5, dilation=6, groups=width, norm=none, act=none, bias=false), k=1)

# Modulated deformable convolution (DCNv2, arXiv:1811.11168) with two offset groups.
op dconv_3x3(x, width=width) = deform_conv(x, k=3, offset_groups=2, width=width)

# One level up: a plain strided convolution (P6 and P7 of RetinaNet and FCOS), or max pooling (BiFPN, NAS-FPN); stride=4
# goes two levels up, stride=8 three. `up` goes down the pyramid again, to finer maps.
op down(x, width=width)  = conv(x, k=3, stride=2, width=width, norm=none, act=none)
op down_max(x, stride=2) = pool(x, k=stride + 1, stride=stride, kind=max)
op up(x, to)             = resize(x, to=to, mode=nearest)

# ------------------------------------------------------------------------------------------------- aggregations

agg sum(x, y)  = add(x, y)
agg psum(x, y) = add(scale(x), scale(y))

# The published decoder's concatenation is grouped: one 1x1 filter over two channels for each output channel.
agg cat(x, y) = conv(relu(norm(concat(x, y))), k=1, groups=width, norm=none, act=none, bias=false)

# Global-pooling attention (NAS-FPN, arXiv:1904.07392, figure 6): y plus x, whose channels are weighted by y.
agg attend(x, y) = add(y, mul(x, sigmoid(global_pool(y, kind=max))))
