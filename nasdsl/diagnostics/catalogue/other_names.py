"""What names of PyTorch and of papers are called here, for messages about names that nothing defines.

A suggestion must not change what is computed: a name of the same function is a suggestion, a name of another function is
never taken for a misspelling, however alike the letters are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from nasdsl.diagnostics.diagnostic import did_you_mean


class Advice(NamedTuple):
    """What to say of a name that nothing defines.

    Attributes:
        help: the help line; empty where there is nothing to say.
        fix: the name to put in its place; None unless it means the same, or the name is a misspelling of it.
    """

    help: str
    fix: str | None


SAME_OPS: Final[Mapping[str, str]] = {
    "swish": "silu", "hswish": "hardswish", "hsigmoid": "hardsigmoid", "lrelu": "leaky_relu", "identity": "skip",
    "noop": "skip", "multiply": "mul", "product": "mul", "maximum": "max", "concatenate": "concat",
    "deformconv2d": "deform_conv",
}  # fmt: skip
"""Ops that are the same under another name; keys in lower case, without `_`."""

_UPSAMPLING: Final = (
    "`up(x, y)` brings x to the resolution of y, the nearest value each; `resize(x, to=y)` also with `mode=bilinear`"
)
_TRANSPOSED: Final = (
    "`up_conv(x)` is a transposed convolution, one level down; `conv_3x3(up(x, y))` brings x to the resolution of y"
)
_ATTENTION: Final = "`attention(x, heads=8)` is self-attention over all positions of a map"
_POOLING: Final = "`pool(x, k=3, stride=2, kind=max)` or `kind=avg`; `down_max(x)` is the one between two levels"
_GLOBAL: Final = "`global_pool(x, kind=avg)` or `kind=max`"
_NORM: Final = "`norm(x, norm=bn)`, `norm=gn` or `norm=ln`"
_DEPTHWISE: Final = "`conv(x, k=3, groups=in, width=in)` is depthwise, whatever comes in; `sep_3x3` adds the 1x1"
_DIFFERENCE: Final = "`add(x, mul(y, -1))` subtracts y from x; `sum` is the opposite"
_ACTIVATION: Final = "it is a function of its own and none of the activations here; a package can add it"
_OTHER: Final = "it is another function than those here; a package can add it as a primitive"
_ALTERNATIVE: Final = "`skip` hands on its operand; `none` leaves it out of a sum or a concatenation"

OTHER_OPS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("upsample", "upsampling", "interpolate", "unpool", "upscale"), _UPSAMPLING),
    **dict.fromkeys(("maxpool", "avgpool", "averagepool", "maxpool2d", "avgpool2d", "pooling"), _POOLING),
    **dict.fromkeys(("gap", "gmp", "globalavgpool", "globalmaxpool", "adaptiveavgpool", "adaptivemaxpool"), _GLOBAL),
    **dict.fromkeys(("bn", "gn", "ln", "batchnorm", "groupnorm", "layernorm", "batchnorm2d"), _NORM),
    **dict.fromkeys(("depthwise", "dwconv", "dwconv3x3", "depthwiseconv", "depthwiseconv3x3"), _DEPTHWISE),
    **dict.fromkeys(("sub", "subtract", "minus", "diff", "difference"), _DIFFERENCE),
    **dict.fromkeys(
        "elu selu celu prelu rrelu mish softplus softsign hardtanh logsigmoid glu squareplus".split(),
        _ACTIVATION,
    ),
    **dict.fromkeys("softmax logsoftmax min minimum div divide instancenorm dropout".split(), _OTHER),
    **dict.fromkeys(
        ("mean", "avg", "average"), "`weighted_add(x, y)` begins as a mean of its operands, and learns their weights"
    ),
    **dict.fromkeys(("deconv", "convtranspose", "transposedconv", "transposeconv", "upconvolution"), _TRANSPOSED),
    **dict.fromkeys(("selfattention", "mhsa", "mha", "multiheadattention", "aifi"), _ATTENTION),
    **dict.fromkeys(("depthtospace", "subpixel"), "`pixel_shuffle(x)` makes one channel of 2x2 pixels out of four channels"),
    "downsample": "`down(x)` is a convolution of stride 2, `down_max(x)` max pooling: each goes one level up",
    "dconv": "`dconv_3x3` is a deformable convolution; a dilated one is `conv(x, k=3, dilation=2)`",
    "zero": _ALTERNATIVE,
}  # fmt: skip
"""Ops that are not here, or under a name that means something else too; keys as those of `SAME_OPS`."""

_GROUP_NORM: Final = re.compile(r"gn\d+")
_KERNEL: Final = re.compile(r"(conv|sep|dconv)_?(\d{1,2})x(\d{1,2})")

SAME_WORDS: Final[Mapping[str, str]] = {
    **SAME_OPS,
    "batchnorm": "bn", "batch": "bn", "groupnorm": "gn", "group": "gn", "layernorm": "ln",
    "layernorm2d": "ln", "gn32": "gn", "identity": "none", "linear": "none", "off": "none",
    "no": "none", "average": "avg", "mean": "avg", "maximum": "max", "neighbor": "nearest", "neighbour": "nearest",
}  # fmt: skip
"""Values of attributes that are the same under another name."""

OTHER_WORDS: Final = frozenset(
    "elu selu celu prelu rrelu mish softplus softsign softmax hardtanh logsigmoid in instancenorm "
    "syncbn bicubic area trilinear min sum".split()
)
"""Values that are no misspelling of one that is taken."""

SAME_ATTRIBUTES: Final[Mapping[str, tuple[str, ...]]] = {
    "stride": ("s", "strides"),
    "k": ("kernel", "kernelsize", "ksize", "ks", "size", "window"),
    "width": ("outchannels", "channels", "outchannel", "out", "cout", "filters", "features", "planes", "dim"),
    "dilation": ("d", "rate", "atrous"),
    "groups": ("g", "group"),
    "act": ("activation", "nonlinearity", "actlayer", "actcfg"),
    "norm": ("normlayer", "normalization", "normcfg", "bn"),
    "bias": ("usebias",),
    "factor": ("scalefactor", "upscalefactor", "upscale", "scale", "stride"),
    "heads": ("numheads", "nheads", "nhead", "head"),
    "compressed": ("compressedchannels", "mid", "midchannels", "inner"),
    "encoder_k": ("encoderkernel", "encoderkernelsize", "kenc"),
    "kind": ("type", "pooltype"),
    "mode": ("interpolation", "method"),
}
"""Attributes under the names of other programs."""

OTHER_ATTRIBUTES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("padding", "pad", "p"), "leave it out: padding is always (k - 1) / 2 times the dilation, which keeps the resolution"
    ),
    "paddingmode": "leave it out: padding is zeros",
    **dict.fromkeys(("inchannels", "cin", "inplanes"), "leave it out: the operand says how many channels come in"),
    **dict.fromkeys(("scalefactor", "factor", "scale"), "the size is that of a level: `to=y`, for a value y, or `to=3`"),
    "inplace": "leave it out",
    "aligncorners": "`mode=aligned` is bilinear with `align_corners=True`, `mode=bilinear` without",
}
"""Attributes that nothing here has."""


def _folded(name: str) -> str:
    return name.lower().replace("_", "")


def advice_on_op(name: str, known: Iterable[str]) -> Advice:
    """What to say of the name of an op that nothing defines; `known` are the names that can be called."""
    known = list(known)
    folded = _folded(name)
    exact = next((k for k in known if _folded(k) == folded), None)
    if exact is not None:
        return Advice(f"did you mean `{exact}`?", exact)
    same = SAME_OPS.get(folded)
    if same is not None:
        return Advice(f"did you mean `{same}`? It is the same under another name", same)
    other = OTHER_OPS.get(folded) or OTHER_OPS.get(folded.removesuffix("2d"))
    if other is not None:
        return Advice(other, None)
    kernel = _KERNEL.fullmatch(name)
    if kernel is not None:
        return Advice(_help_for_kernel(kernel[1], int(kernel[2]), int(kernel[3])), None)
    guess = did_you_mean(name, known)
    if guess is not None:
        return Advice(f"did you mean `{guess}`?", guess)
    if did_you_mean(name, ["none"]) is not None:
        return Advice(_ALTERNATIVE, None)
    return Advice(f"define it: `op {name}(x) = …`", None)


def _help_for_kernel(kind: str, height: int, width: int) -> str:
    if height != width or height % 2 == 0:
        return "kernels are square, and odd, so that padding can keep the resolution"
    if kind == "conv":
        return f"`conv(x, k={height})` has another kernel"
    if kind == "dconv":
        return f"`deform_conv(x, k={height}, offset_groups=2)` has another kernel"
    depthwise = f"conv(x, k={height}, groups=width, norm=none, act=none, bias=false)"
    return f"define it: `op sep_{height}x{height}(x) = conv({depthwise}, k=1)`"


def advice_on_word(word: str, words: Iterable[str]) -> Advice:
    """What to say of a value that an attribute does not take; `words` are those that it takes."""
    words = list(words)
    folded = _folded(word)
    same = SAME_WORDS.get(folded)
    if same is not None and same in words:
        return Advice(f"did you mean `{same}`? It is the same under another name", same)
    if folded in OTHER_WORDS or _GROUP_NORM.fullmatch(folded):
        return Advice("", None)
    guess = did_you_mean(word, words)
    return Advice(f"did you mean `{guess}`?" if guess else "", guess)


def same_attribute(name: str, known: Iterable[str]) -> str | None:
    """The attribute among `known` that another program calls `name`."""
    folded = _folded(name)
    return next((k for k in known if folded in SAME_ATTRIBUTES.get(k, ()) or folded == _folded(k)), None)


def advice_on_attribute(name: str, known: Iterable[str]) -> Advice:
    """What to say of an attribute that is not known; `known` are those that are."""
    known = list(known)
    same = same_attribute(name, known)
    if same is not None:
        return Advice(f"did you mean `{same}`?", same)
    other = OTHER_ATTRIBUTES.get(_folded(name))
    if other is not None:
        return Advice(other, None)
    guess = did_you_mean(name, known)
    return Advice(f"did you mean `{guess}`?" if guess else "", guess)
