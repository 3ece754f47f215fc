"""Malformed texts with one or a few mistakes; their messages are in ``tests/goldens/diagnostics.txt``."""

from __future__ import annotations

from textwrap import dedent


def decoder(fpn: str = "output p3 = conv_3x3(c3)", *, before: str = "", head: str = "conv_3x3 -> conv_3x3") -> str:
    """A decoder with these statements in its fpn and this chain in its head."""
    lines = "\n".join(f"    {line}".rstrip() for line in dedent(fpn).strip().splitlines())
    return (
        (dedent(before).strip() + "\n\n" if before else "")
        + f"decoder d {{\n  input c3, c4, c5\n  fpn(width=64, norm=bn) {{\n{lines}\n  }}\n"
        + f"  head(width=64, norm=gn) {{ {head} }}\n  predict fcos(centerness=cls)\n}}\n"
    )


GOOD = decoder()

MALFORMED: dict[str, str] = {
    # ------------------------------------------------------------------------------------------ one sign wrong
    "missing ) in a call": decoder("x1 = conv_3x3(c3\noutput p3 = x1"),
    "missing ) before another statement on the line": decoder("x1 = conv_3x3(c3 output p3 = x1"),
    "missing ( in a call": decoder("x1 = conv_3x3 c3)\noutput p3 = x1"),
    "missing , between operands": decoder("output p3 = sum(c3 c4)"),
    "missing , between inputs": GOOD.replace("c3, c4, c5", "c3 c4, c5"),
    "missing , between outputs": decoder("output p3 = conv_3x3(c3) p4 = conv_3x3(c4)"),
    "missing , between settings": GOOD.replace("width=64, norm=bn", "width=64 norm=bn"),
    "missing -> in a chain": decoder(head="conv_3x3 conv_3x3"),
    "missing into": decoder("x1 = skip(c4)\noutput p3 = conv_3x3(c3)\nmerge dangling p3"),
    "missing dangling": decoder("x1 = skip(c4)\noutput p3 = conv_3x3(c3)\nmerge into p3"),
    "missing = in an assignment": decoder("x1 conv_3x3(c3)\noutput p3 = x1"),
    "missing } of the fpn": GOOD.replace("  }\n  head", "  head"),
    "missing } of the decoder": GOOD.rstrip().removesuffix("}"),
    "missing { of the decoder": GOOD.replace("decoder d {", "decoder d"),
    "missing { of the fpn": GOOD.replace("norm=bn) {", "norm=bn)"),
    "missing name of the decoder": GOOD.replace("decoder d {", "decoder {"),
    "missing operand": decoder("output p3 = sum(c3, )"),
    "missing value": decoder("x1 = \noutput p3 = x1"),
    "one ) too many": decoder("output p3 = conv_3x3(c3))"),
    "one } too many": GOOD + "}\n",
    "a comma at the end of a list": decoder("output p3 = conv_3x3(c3),"),
    "wrong bracket": decoder("output p3 = conv_3x3(c3]"),
    "square brackets for a call": decoder("output p3 = conv_3x3[c3]"),
    "colon for =": decoder("x1: conv_3x3(c3)\noutput p3 = x1"),
    "comparison for =": decoder("x1 == conv_3x3(c3)\noutput p3 = x1"),
    "arrow of another language": decoder(head="conv_3x3 => conv_3x3"),
    "arithmetic on features": decoder("x1 = c3 + c4\noutput p3 = x1"),
    "a string where an op stands": decoder('x1 = "conv_3x3"(c3)\noutput p3 = x1'),
    "// for a comment": decoder("// the finest level\noutput p3 = conv_3x3(c3)"),
    # ---------------------------------------------------------------------------------------- words wrong
    "misspelt output": decoder("ouput p3 = conv_3x3(c3)\noutput p4 = conv_3x3(c4)"),
    "misspelt merge": decoder("x1 = skip(c4)\noutput p3 = conv_3x3(c3)\nmrege dangling into p3"),
    "misspelt dangling": decoder("x1 = skip(c4)\noutput p3 = conv_3x3(c3)\nmerge danglin into p3"),
    "misspelt decoder": GOOD.replace("decoder", "decodr"),
    "misspelt input": GOOD.replace("input", "imput"),
    "misspelt fpn": GOOD.replace("fpn(", "fnp("),
    "misspelt head": GOOD.replace("head(", "haed("),
    "misspelt predict": GOOD.replace("predict", "predcit"),
    "misspelt repeat": decoder("x = skip(c3)\nrepaet 3 { x = conv_3x3(x) }\noutput p3 = x"),
    "misspelt block": decoder("a = f(c3)\noutput p3 = a", before="blok f(x) -> (y) { y = conv_3x3(x) }"),
    "misspelt op": decoder("output p3 = f(c3)", before="opp f(x) = conv_3x3(x)"),
    "upper-case keyword": decoder("OUTPUT p3 = conv_3x3(c3)"),
    "reserved word as a value": decoder("merge = conv_3x3(c3)\noutput p3 = merge"),
    "reserved word as an op": decoder("output p3 = head(c3)", before="op head(x) = conv_3x3(x)"),
    "reserved word as a parameter": decoder("output p3 = f(c3)", before="op f(input) = conv_3x3(input)"),
    "reserved word as the decoder's name": GOOD.replace("decoder d", "decoder fpn"),
    # -------------------------------------------------------------------------------------------- predictions
    "a prediction that ends in no convolution": GOOD.replace("fcos(centerness=cls)", "gfl(conv=relu)"),
    "a prediction of an unknown op": GOOD.replace("fcos(centerness=cls)", "gfl(conv=sep3x3)"),
    "a prediction that is an aggregation": GOOD.replace("fcos(centerness=cls)", "tal(conv=sum)"),
    "a prediction that changes the level": GOOD.replace("fcos(centerness=cls)", "tal(conv=up)"),
    "a strided prediction": GOOD.replace("fcos(centerness=cls)", "tal(conv=down)"),
    "a prediction in groups": "op mine(x) = conv(x, k=1, groups=2)\n" + GOOD.replace("fcos(centerness=cls)", "fcos(conv=mine)"),
    "a prediction that shares its weights": "block mine(x) -> (y) { shared f(x) = conv_1x1(x) y = f(f(x)) }\n"
    + GOOD.replace("fcos(centerness=cls)", "fcos(conv=mine)"),
    "a prediction behind a norm": "op mine(x) = conv_1x1(x, norm=bn)\n"
    + GOOD.replace("fcos(centerness=cls)", "fcos(conv=mine)"),
    "a kernel beside an op": GOOD.replace("fcos(centerness=cls)", "atss(conv=sep_3x3, kernel=1)"),
    "an even kernel of a prediction": GOOD.replace("fcos(centerness=cls)", "atss(kernel=2)"),
    "bins of another kind": GOOD.replace("fcos(centerness=cls)", "fcos(bins=16)"),
    "no bins": GOOD.replace("fcos(centerness=cls)", "gfl(bins=0)"),
    "a share that is a number": GOOD.replace("fcos(centerness=cls)", "gfl(share=0)"),
    "misspelt gfl": GOOD.replace("fcos(centerness=cls)", "glf(bins=16)"),
    "an op behind towers of two widths": decoder(head="cls: conv_3x3 box: conv_3x3 -> conv_3x3(width=32)").replace(
        "fcos(centerness=cls)", "gfl(conv=sep_3x3)"
    ),
    # --------------------------------------------------------------------------------------- the detector
    "an empty detector": GOOD.replace("c5\n", "c5\n  detector()\n", 1),
    "a detector without brackets": GOOD.replace("c5\n", "c5\n  detector size=240x320\n", 1),
    "misspelt detector": GOOD.replace("c5\n", "c5\n  detecter(size=240x320)\n", 1),
    "a detector that is not closed": GOOD.replace("c5\n", "c5\n  detector(size=240x320\n", 1),
    "two detectors": GOOD.replace("c5\n", "c5\n  detector(size=240x320)\n  detector(backbone=tiny)\n", 1),
    "a detector in the fpn": decoder("detector(size=240x320)\noutput p3 = conv_3x3(c3)"),
    "an unknown attribute of a detector": GOOD.replace("c5\n", "c5\n  detector(siez=240x320)\n", 1),
    "a size that is a number": GOOD.replace("c5\n", "c5\n  detector(size=240)\n", 1),
    "a size of nothing": GOOD.replace("c5\n", "c5\n  detector(size=0x320)\n", 1),
    "a size beyond all images": GOOD.replace("c5\n", "c5\n  detector(size=240x320000)\n", 1),
    "arithmetic on a size": GOOD.replace("c5\n", "c5\n  detector(size=240x320 * 2)\n", 1),
    "a backbone that is a number": GOOD.replace("c5\n", "c5\n  detector(backbone=50)\n", 1),
    "a misspelt backbone": GOOD.replace("c5\n", "c5\n  detector(backbone=mobilenetv2)\n", 1),
    "a misspelt backbone with a dot": GOOD.replace("c5\n", 'c5\n  detector(backbone="resnet50_v1.6")\n', 1),
    "a dot outside of quotes": GOOD.replace("c5\n", "c5\n  detector(backbone=resnet50_v1.5)\n", 1),
    "a string that does not end in a detector": GOOD.replace("c5\n", 'c5\n  detector(backbone="tiny)\n', 1),
    "an input that the backbone lacks": GOOD.replace("c5\n", "c5, c6\n  detector(backbone=tiny)\n", 1),
    "an alternative that lacks an input": GOOD.replace("c5\n", "c5, c6\n  detector(backbone=?(tiny | resnet50))\n", 1),
    "a size as an attribute of an op": decoder("output p3 = conv(c3, k=3x3)"),
    "a word in quotes": GOOD.replace("norm=bn", 'norm="bn"'),
    "a size for a value": decoder("output p3 = ?(c3 | 240x320)"),
    "arithmetic for a value": decoder("output p3 = ?(c3 | 2 * 3)"),
    "a hole as the number of a name": decoder("x3 = c3\noutput p3 = relu(x[?(3 | 4)])"),
    "a hole as a default": decoder("output p3 = f(c3)", before="op f(x, k=?(1 | 3) + 2) = conv(x, k=k)"),
    "a value of a turn that may not be there": decoder("repeat ?(0..2) { x = relu(c3) }\noutput p3 = x"),
    "a fraction of turns": decoder("let d = ?(1..3)\nx = c3\nrepeat d / 2 { x = relu(x) }\noutput p3 = x"),
    "fewer turns than none": decoder("let d = ?(1..3)\nx = c3\nrepeat d - 2 { x = relu(x) }\noutput p3 = x"),
    "too many numbers of turns": decoder(
        "let a = ?(1..200)\nlet b = ?(1..200)\nx = c3\nrepeat a * b { x = relu(x) }\noutput p3 = x"
    ),
    "turns that depend on too much": decoder(
        "x = c3\n" + "repeat ?(0..1) + ?(0..1) { " * 7 + "x = relu(x)" + " }" * 7 + "\noutput p3 = x"
    ),
    "a chain outside of a head": decoder("output p3 = ?(sep_3x3 -> relu | relu)(c3)"),
    "a number in a chain": decoder(head="conv_3x3 -> ?(sep_3x3 -> 3 | relu)"),
    "no layer": decoder(head="conv_3x3 * 0"),
    "an unknown tower beside a trunk": decoder(head="both: conv_3x3 stem: conv_3x3 cls: conv_3x3"),
    "two trunks": decoder(head="both: conv_3x3 cls: conv_3x3 both: conv_3x3"),
    "share beyond trunk and towers": decoder(head="both: conv_3x3 * 2 box: conv_3x3").replace("norm=gn", "norm=gn, share=4"),
    "an unknown word for norms": GOOD.replace("norm=gn", "norm=gn, norms=levels"),
    "a word of layers": decoder(head="conv_3x3 * relu"),
    "share beyond every depth": decoder(head="conv_3x3 * ?(1..3)").replace("norm=gn", "norm=gn, share=4"),
    # ---------------------------------------------------------------------------------------- shared ops
    "calls of a shared op that do not fit": decoder(
        "shared refine(x) = conv_3x3(x)\nx1 = conv_1x1(c4, width=32)\noutput p3 = refine(c3), p4 = refine(x1), p5 = refine(c5)"
    ),
    "calls of a shared op in a block that do not fit": decoder(
        "output p3 = mine(c3)", before="block mine(x) -> (y) { shared f(a, b) = concat(a, sep_3x3(b)) y = f(x, f(x, x)) }"
    ),
    "an attribute of a shared op": decoder("shared refine(x, k=3) = conv(x, k=k)\noutput p3 = refine(c3)"),
    "an attribute in a call of a shared op": decoder("shared refine(x) = conv_3x3(x)\noutput p3 = refine(c3, width=32)"),
    "a shared op without an operand": decoder("shared refine(x) = conv_3x3(x)\noutput p3 = refine(c3), p4 = refine()"),
    "a mistake in a shared op": decoder("shared refine(x) = conv_3x3(x, kk=3)\noutput p3 = refine(c3), p4 = refine(c4)"),
    "an unknown op in a shared op": decoder("shared refine(x) = conv_3x(x)\noutput p3 = refine(c3), p4 = refine(c4)"),
    "a value of the fpn in a shared op": decoder("x1 = c4\nshared refine(x) = sum(x, x1)\noutput p3 = refine(c3), p4 = x1"),
    "a shared op that calls itself": decoder("shared refine(x) = refine(conv_3x3(x))\noutput p3 = refine(c3)"),
    "a shared op above its statement": decoder("x1 = refine(c3)\nshared refine(x) = conv_3x3(x)\noutput p3 = refine(x1)"),
    "two shared ops of one name": decoder(
        "shared refine(x) = conv_3x3(x)\nshared refine(x) = sep_3x3(x)\noutput p3 = refine(c3)"
    ),
    "two parameters of one name of a shared op": decoder("shared refine(x, x) = conv_3x3(x)\noutput p3 = refine(c3, c4)"),
    "a shared op of a turn behind it": decoder("x = c3\nrepeat 2 { shared f(x) = conv_3x3(x); x = f(x) }\noutput p3 = f(x)"),
    "a misspelt shared op": decoder("shared refine(x) = conv_3x3(x)\noutput p3 = refine(c3), p4 = refin(c4)"),
    "misspelt shared": decoder("shraed refine(x) = conv_3x3(x)\noutput p3 = refine(c3)"),
    "a shared op without operands": decoder("shared refine = conv_3x3\noutput p3 = refine(c3)"),
    "shared outside of a body": decoder("output p3 = refine(c3)", before="shared refine(x) = conv_3x3(x)"),
    "several results of a shared op for one value": decoder(
        "shared f(x, y) = two(x, y)\noutput p3 = f(c3, c4)", before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }"
    ),
    "too few names for the results of a shared op": decoder(
        "shared f(x, y) = two(x, y)\na, b, c = f(c3, c4)\noutput p3 = a",
        before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }",
    ),
    # ------------------------------------------------------------------------------------ several at once
    "three syntax errors": decoder(
        """\
        x1 = conv_3x3(c3
        x2 = sum(x1 c4)
        x3 = = conv_3x3(x2)
        output p3 = x3
        """
    ),
    "syntax errors and others": decoder(
        """\
        x1 = conv_3x3(c3
        x2 = dcnv_3x3(c4)
        output p3 = sum(x1, x2, c5), p4 = x9
        """
    ),
    "syntax errors far apart": decoder("output p3 = f(c3", before="op f(x) conv_3x3(x)", head="conv_3x3 -> -> conv_3x3"),
    "a statement that makes no sense": decoder("x1 = conv_3x3(c3)\n= ) ( x1 , , ;\noutput p3 = sum(x1, c4)"),
    "prose": "Please make me a decoder with three levels, thanks.\n",
    "another language": "import torch\n\nclass Fpn(torch.nn.Module):\n    def __init__(self):\n        self.lateral = None\n",
    "genotype of another program": "[[3, 3, 4, 4, 1], [2, 2, 1, 0, 1]]\n",
    # ------------------------------------------------------------------------------------- characters
    "characters of no meaning": decoder("x1 = conv_3x3(c3) $ @\noutput p3 = x1!"),
    "single quotes": "use 'ops.nas'\n\n" + GOOD,
    "string that does not end": 'use "ops.nas\n\n' + GOOD,
    "typographic quotes and arrow": decoder(head="conv_3x3 → conv_3x3").replace("decoder d", "use “ops.nas”\ndecoder d"),
    "NUL and bytes of no text": decoder("x1 = conv\x00_3x3(c3)\n\ufffd\ufffd\ufffd\noutput p3 = x1"),
    "bad numbers": decoder("x1 = conv(c3, k=3x, width=1e3)\noutput p3 = conv(x1, k=3, width=64, groups=" + "9" * 30 + ")"),
    "tabs and long lines": decoder("\tx1 = sum(conv_3x3(c3),\t\tcnv_3x3(c4))\noutput p3 = x1  # " + "long " * 60),
    "mistake at the end of a long line": decoder("output p3 = " + "skip(" * 40 + "c9" + ")" * 40),
    # ---------------------------------------------------------------------------------------- names
    "misspelt op in a call": decoder("output p3 = dconv3x3(c3)"),
    "op of no likeness": decoder("output p3 = transformer(c3)"),
    "misspelt value": decoder("lateral3 = conv_3x3(c3)\noutput p3 = conv_3x3(latreal3)"),
    "forward reference": decoder("x1 = add(c3, x2)\nx2 = conv_3x3(c4)\noutput p3 = x1"),
    "forward reference in resize": decoder("x1 = resize(c3, to=x2)\nx2 = conv_3x3(c4)\noutput p3 = sum(x1, x2)"),
    "value read in its own statement": decoder("x1 = sum(x1, c3)\noutput p3 = x1"),
    "bound twice": decoder("x1 = conv_3x3(c3)\nx1 = conv_3x3(c4)\noutput p3 = x1"),
    "an input bound again": decoder("c3 = conv_3x3(c3)\noutput p3 = c3"),
    "output twice": decoder("output p3 = conv_3x3(c3)\noutput p3 = conv_3x3(c4)"),
    "unknown input": GOOD.replace("input c3, c4, c5", "input c3, c8, feature, C4"),
    "input not declared": decoder("output p3 = conv_3x3(c2)"),
    "unknown detector": GOOD.replace("fcos", "fcoss"),
    "attributes of a prediction": GOOD.replace("centerness=cls", "centreness=cls, boxes=rleu"),
    "attribute of another prediction": GOOD.replace("fcos(centerness=cls)", "retinanet(boxes=relu)"),
    "defined twice": decoder("output p3 = f(c3)", before="op f(x) = conv_3x3(x)\nagg f(x, y) = sum(x, y)"),
    "a value called like an op": decoder("x1 = c3(c4)\noutput p3 = x1"),
    "an op named like a value": decoder("output p3 = sum(c3, conv_3x3)"),
    # -------------------------------------------------------------------------------- operands, attributes
    "widths differ": decoder("x1 = conv_1x1(c3, width=32)\noutput p3 = sum(x1, c4)"),
    "widths differ inside an op": decoder("output p3 = f(c3)", before="op f(x) = add(conv_1x1(x, width=32), x)"),
    "widths differ in a merge": decoder("x1 = conv_3x3(c4, width=32)\noutput p3 = conv_3x3(c3)\nmerge dangling into p3"),
    "head wider than the fpn": GOOD.replace("head(width=64", "head(width=128"),
    "head wider than the narrowest level": decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=32)").replace(
        "norm=gn", "norm=gn, share=1"
    ),
    "levels of different widths that share a layer": decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)").replace(
        "norm=gn) { conv_3x3", "share=1, norm=gn) { conv_1x1(width=in)"
    ),
    "levels of different widths that share predictions": decoder(
        "output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)", head="conv_1x1(width=in)"
    ).replace("norm=gn", "norm=gn, share=1"),
    "a layer that does not fit one of the levels": decoder(
        "output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=96)", head="conv(k=3, groups=64)"
    ).replace("norm=gn", "norm=gn, share=1"),
    "levels of different widths": decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)"),
    "wrong number of operands": decoder("output p3 = cat(c3, c4, c5)"),
    "no operand": decoder("output p3 = sum()"),
    "operand to a setting": decoder("output p3 = conv(c3, 3)"),
    "unknown attribute": decoder("output p3 = conv_3x3(c3, witdh=64)"),
    "unknown attribute of the fpn": GOOD.replace("norm=bn", "nrom=bn"),
    "unknown word": GOOD.replace("norm=bn", "norm=batchnorm"),
    "misspelt word": decoder("output p3 = resize(c4, to=c3, mode=nearst)"),
    "bad values": decoder("x1 = conv(c3, k=2)\nx2 = conv(x1, k=3, stride=3)\noutput p3 = conv(x2, k=3, groups=0, width=64)"),
    "number where a word stands": GOOD.replace("norm=bn", "norm=3"),
    "fraction where a whole number stands": GOOD.replace("fpn(width=64", "fpn(width=64.5"),
    "no width": GOOD.replace("fpn(width=64, norm=bn)", "fpn(norm=bn)"),
    "attribute twice": decoder("output p3 = conv(c3, k=3, k=5)"),
    "groups": decoder("output p3 = conv(c3, k=3, groups=48)"),
    "group norm": GOOD.replace("64", "48"),
    "attribute through an op": decoder("output p3 = conv_3x3(c3, norm=batch)"),
    "groups through an op": decoder("output p3 = f(c3, g=7)", before="op f(x, g=1) = conv(x, k=3, groups=g)"),
    "division with remainder": decoder("output p3 = conv(c3, k=3, groups=width/3)"),
    "a pooled value as an output": decoder("g = global_pool(c3, kind=max)\noutput p3 = g"),
    "block results": decoder("a, b = f(c3)\noutput p3 = sum(a, b)", before="block f(x) -> (y) { y = conv_3x3(x) }"),
    "block in an expression": decoder(
        "output p3 = conv_3x3(f(c3))", before="block f(x) -> (y, z) { y = conv_3x3(x); z = skip(y) }"
    ),
    "a reference for two names": decoder("a, b = c3\noutput p3 = sum(a, b)"),
    "parts that do not divide the channels": decoder("a, b, c = split(c3, parts=3)\noutput p3 = conv_1x1(concat(a, b, c))"),
    "more names than parts": decoder("a, b, c = split(c3)\noutput p3 = conv_1x1(concat(a, b, c))"),
    "parts where one value stands": decoder("output p3 = conv_1x1(split(c3))"),
    "one part": decoder("a = split(c3, parts=1)\noutput p3 = a"),
    "a hole as the number of parts": decoder("a, b = split(c3, parts=?(2 | 4))\noutput p3 = conv_1x1(concat(a, b))"),
    # ------------------------------------------------------------------------------- bodies, repeats, rounds
    "unknown op in a body never called": decoder(before="op f(x) = dcnv_3x3(x)"),
    "wrong arity in a body never called": decoder(before="op f(x, y) = cat(x)"),
    "unknown value in a body": decoder("output p3 = f(c3)", before="op f(x) = sum(x, y)"),
    "recursion": decoder("output p3 = f(c3)", before="op f(x) = g(x)\nop g(x) = f(conv_3x3(x))"),
    "block without its result": decoder("a = f(c3)\noutput p3 = a", before="block f(x) -> (y) { z = conv_3x3(x) }"),
    "output in a block": decoder("a = f(c3)\noutput p3 = a", before="block f(x) -> (y) { y = conv_3x3(x) output p4 = y }"),
    "one mistake in a repeat": decoder("x = skip(c3)\nrepeat 7 { x = dcnv_3x3(sum(x, nothing)) }\noutput p3 = x"),
    "one width mistake in a repeat": decoder("x = skip(c3)\nrepeat 7 { y = sum(conv_1x1(x, width=32), c4) }\noutput p3 = x"),
    "numbered names": decoder("repeat t in 1..3 { x[t] = conv_3x3(x[t-1]) }\noutput p3 = x3"),
    "index of no number": decoder("x[k] = conv_3x3(c3)\nx[0-1] = conv_3x3(c4)\noutput p3 = c3"),
    "repeat without an end": decoder("x = skip(c3)\nrepeat 1000000000 { x = conv_3x3(x) }\noutput p3 = x"),
    "repeat of no rounds": decoder("x = skip(c3)\nrepeat t in 5..2 { x = conv_3x3(x) }\noutput p3 = x"),
    # ---------------------------------------------------------------------------------------- structure
    "nothing": "# only a comment\n",
    "no output": decoder("x1 = conv_3x3(c3)"),
    "output of no level": decoder("output p13 = conv_3x3(c3), top = conv_3x3(c4), p3 = conv_3x3(c3)"),
    "no parts": "decoder d { }\n",
    "no head": GOOD.replace("  head(width=64, norm=gn) { conv_3x3 -> conv_3x3 }\n", ""),
    "two heads": GOOD.replace("  predict", "  head(width=64) { skip }\n  predict"),
    "two decoders": GOOD + "\n" + GOOD.replace("decoder d", "decoder e"),
    "share beyond the layers": GOOD.replace("norm=gn)", "norm=gn, share=3)"),
    "towers": decoder(head="cls: conv_3x3 cls: skip ctr: conv_3x3"),
    "head with a strided layer": decoder(head="conv_3x3 -> down"),
    "head with an aggregation": decoder(head="conv_3x3 -> sum"),
    "requirements": GOOD.replace("  fpn", "  require flops <= 120G at 800x1088\n  fpn"),
    "file that is not there": 'use "ops.nas"\n\n' + GOOD,
    "path out of the folder": 'use "../ops.nas"\n\n' + GOOD,
    "section of no file": GOOD.replace(
        "fpn(width=64, norm=bn) {\n    output p3 = conv_3x3(c3)\n  }", 'fpn(width=64) from "best.nas"'
    ),
    # ------------------------------------------------------------------------------ names of other programs
    "an activation under another name": GOOD.replace("norm=bn", "norm=bn, act=swish"),
    "an activation that is none of these": GOOD.replace("norm=bn", "norm=bn, act=elu"),
    "an op under another name": decoder("output p3 = swish(c3)"),
    "softmax is not max": decoder("output p3 = softmax(c3)"),
    "upsampling by a factor": decoder("output p3 = upsample(c4, 2)"),
    "a difference is no sum": decoder("output p3 = sub(c3, c4)"),
    "a mean": decoder("output p3 = mean(c3, c4)"),
    "a kernel that no op has": decoder("output p3 = sep_7x7(conv_5x5(dconv_5x5(c3)))"),
    "a depthwise convolution is not deformable": decoder("output p3 = dwconv_3x3(c3)"),
    "a number in a sum": decoder("output p3 = sum(c3, 1)"),
    "a number for a sum or a product": decoder("output p3 = ?(add | mul)(c3, 2)"),
    "nothing but numbers in a sum": decoder("output p3 = add(2, 3)"),
    "a hole of values and terms": decoder("output p3 = add(c3, ?(c4 | 0.5))"),
    "a GroupNorm under another name": decoder("output p3 = conv_3x3(c3, norm=gn32)"),
    "a GroupNorm of other groups": decoder("output p3 = conv_3x3(c3, width=40, norm=gn16)"),
    "a GroupNorm that is none of these": decoder("output p3 = norm(c3, norm=gn5)"),
    "corners of maps": decoder("output p3 = resize(c4, to=c3, align_corners=true)"),
    "an attribute beside a number": decoder("output p3 = add(c3, 1, bias=2)"),
    "a number in a maximum": decoder("output p3 = max(c3, 0)"),
    "nothing but numbers in a product": decoder("output p3 = mul(2, 3)"),
    "a word as a factor of an op": decoder("output p3 = f(c3, s=relu)", before="op f(x, s=0.1) = add(x, mul(x, s))"),
    "a hole of values and numbers": decoder("output p3 = mul(c3, ?(c4 | 0.5))"),
    "arithmetic among operands": decoder("output p3 = relu(c3 + c4)"),
    "an operand in brackets": decoder("output p3 = relu((c3))"),
    "weights that are not one for each operand": decoder("output p3 = weighted_add(c3, c4, by=c5)"),
    "weights where no other operand is": decoder("output p3 = weighted_add(c3, by=c5)"),
    "weights of a call that is not known": decoder("output p3 = ?(add | weighted_add(by=c5))(c3, c4)"),
    "a call among names of weights": decoder("output p3 = weighted_add(c3, c4, by=?(c5 | relu(c5)))"),
    "arithmetic for weights": decoder("output p3 = weighted_add(c3, c4, by=c5 + 1)"),
    "a group for each channel that comes in": decoder("x = conv_1x1(c3, width=96)\noutput p3 = conv(x, k=3, groups=in)"),
    "the operand's width where none is taken": decoder("output p3 = conv(c3, k=in)"),
    "arithmetic on the operand's width": decoder("output p3 = conv(c3, k=3, width=in * 2)"),
    "a section of the operand's width": GOOD.replace("fpn(width=64", "fpn(width=in"),
    "a string as an operand": decoder('output p3 = relu("c3")'),
    "one channel and two widths": decoder("a = conv(c3, k=1, width=1)\nb = conv(c3, k=1, width=32)\noutput p3 = add(a, b, c3)"),
    "one channel that dangles": decoder("a = conv(c3, k=1, width=1)\noutput p3 = conv_3x3(c3)\nmerge dangling into p3"),
    "an alternative that nothing defines": decoder("output p3 = ?op(c3)", before="choice op = conv_3x3 | nonee"),
    "attributes of PyTorch": decoder("output p3 = conv(c3, kernel_size=3, s=1, padding=1, out_channels=64)"),
    "a stride where the op has none": decoder("output p3 = up(conv_3x3(c3, stride=2), c3)"),
    "a further operand of a sum": decoder("output p3 = sum(c3, c4, c5)"),
    "an operand that is missing": decoder("output p3 = up(c4)"),
    "an operand of a block that is missing": decoder(
        "a = f(c3)\noutput p3 = a", before="block f(x, other) -> (y) { y = sum(x, other) }"
    ),
    "an attribute that a block does not have": decoder(
        "a = f(c3, m=3)\noutput p3 = a", before="block f(x, n=2) -> (y) { y = x repeat n { y = conv_3x3(y) } }"
    ),
    "a count of a block that is no number": decoder(
        "a = f(c3, n=1.5)\noutput p3 = a", before="block f(x, n=2) -> (y) { y = x repeat n { y = conv_3x3(y) } }"
    ),
    "a block's default with a hole": decoder(
        "a = f(c3)\noutput p3 = a", before="block f(x, n=?(1..2)) -> (y) { y = x repeat n { y = conv_3x3(y) } }"
    ),
    # ------------------------------------------------------------------------- finer maps, attention
    "a transposed convolution with gaps": decoder("output p3 = up_conv(c4, stride=4)"),
    "a transposed convolution of stride 1": decoder("output p3 = up_conv(c4, stride=1)"),
    "groups of a transposed convolution": decoder("output p3 = up_conv(carafe(c3, factor=8), groups=3)"),
    "below level 0": decoder("output p3 = pixel_shuffle(carafe(c3, factor=8))"),
    "a finer map in a head": decoder(head="conv_3x3 -> carafe"),
    "a finer map behind a coarser one in a head": decoder(head="f", before="op f(x) = carafe(carafe(down(x)), k=3)"),
    "channels that do not shuffle": decoder("output p3 = pixel_shuffle(conv_1x1(c4, width=30))"),
    "a finer map of one position": decoder("output p3 = mul(c3, carafe(global_pool(c4, kind=avg)))"),
    "attention of one position": decoder("output p3 = mul(c3, attention(global_pool(c4, kind=avg)))"),
    "heads that do not divide": decoder("output p3 = attention(c4, heads=12)"),
    "a position that does not fit": decoder("output p3 = attention(c3, heads=2, position=sin)"),
    "four parts of a position": decoder("output p3 = conv_1x1(attention(conv_1x1(c4, width=50), heads=2))"),
    "finer maps of other programs": decoder("output p3 = deconv(pixelshuffle(mhsa(c4, num_heads=4), upscale_factor=2))"),
    "attributes of attention": decoder("output p3 = attention(c3, num_heads=4)"),
    "offsets of too few channels": decoder("output p3 = deform_conv(c3, offset=c4)"),
    "offsets of another level": decoder("o = conv(c4, k=3, width=18)\noutput p3 = deform_conv(c3, offset=o)"),
    "offsets of one position": decoder(
        "o = conv_1x1(global_pool(c3, kind=avg), width=27, norm=none)\noutput p3 = deform_conv(c3, offset=o)"
    ),
    "offsets as a second operand": decoder("o = conv(c3, k=3, width=27)\noutput p3 = deform_conv(c3, o)"),
    "offsets that nothing binds": decoder("output p3 = deform_conv(c3, offset=ofset)"),
    "offsets as a call": decoder("output p3 = deform_conv(c3, offset=conv(c3, k=3, width=27))"),
    "offsets in a choice": decoder("o = conv(c3, k=3, width=27)\noutput p3 = ?(deform_conv(offset=o) | conv_3x3)(c3)"),
    "a LayerNorm under another name": GOOD.replace("norm=bn", "norm=layer_norm"),
    "nothing left of a value": decoder("x = sum(none(c3), none(c4))\noutput p3 = x, p4 = relu(none)"),
    "nothing to tell a level": decoder("output p3 = up(c4, none)"),
    "an attribute of nothing": decoder("output p3 = sum(c3, none(c4, k=3))"),
    "none as a layer": decoder(head="?(conv_3x3 | none) -> none"),
    "a choice that nothing draws from": decoder(
        "output p3 = c3", before="choice op = conv_3x3 | nonee | conv(kk=3) | conv(k=2) | ?nothing"
    ),
    "a weight of no sample": decoder("output p3 = ?op(c3)", before="choice op = conv_3x3 : 3 | skip : 0"),
    "a weight that is a word": decoder("output p3 = ?op(c3)", before="choice op = conv_3x3 : often | skip"),
    "requirements of calls": GOOD.replace(
        "c5\n", "c5\n  require count(nothing) <= 2\n  require count <= 2\n  require macs(skip) <= 2\n", 1
    ),
    "a broken requirement of calls": decoder("x = c3\nrepeat 3 { x = dconv_3x3(x) }\noutput p4 = c4").replace(
        "c5\n", "c5\n  require count(dconv_3x3) <= 2\n", 1
    ),
    "requirements of a latency": GOOD.replace(
        "c5\n",
        "c5\n  require latency <= 15\n  require latency >= 15ms\n  require latency <= 15ms on onnxrutime\n"
        "  require macs <= 15ms on torch\n  require params <= 2M on torch at 64x64\n",
        1,
    ),
    "a time of no unit": GOOD.replace("c5\n", "c5\n  require latency <= 15msec\n", 1),
    "operands that do not differ": decoder("x = sum(conv(c3, k=3), conv(c3, k=3)) distinct\noutput p3 = x"),
    "distinct of one operand": decoder("x = relu(c3) distinct\noutput p3 = x"),
    "distinct in a head": decoder(head="?(conv(k=3) distinct | skip)"),
    "distinct where no call is": decoder("x = c3 distinct\noutput p3 = x"),
    # ------------------------------------------------------------------ one mistake, where there were several
    "a call as an attribute of an output": decoder("output p3 = conv(c3, k=3, groups=width(c4), norm=bn)"),
    "a call as an attribute of a block": decoder("x = conv(c3, k=3, groups=2 * min(4, 8), norm=bn)\noutput p3 = x"),
    "output by name": decoder("p3 = conv_3x3(c3)\noutput p3"),
    "output of a value of its name": decoder("p3 = conv_3x3(c3)\noutput p3 = p3"),
    "repeat in a head": decoder(head="repeat 4 { conv_3x3 }"),
    "an operator among alternatives": decoder("output p3 = ?op(c3)", before="choice op = conv_3x3 * 0.3 | skip"),
    "an operator among parameters": decoder("output p3 = f(c3, c4)", before="agg f(*xs) = add(xs)"),
    "an operator in a head": decoder(head="conv_3x3 + conv_3x3"),
    "a name numbered by a hole": decoder(
        "x0 = c3\nlet d = ?(0..2)\nrepeat t in 1..4 { x[t] = conv_3x3(x[t-1]) }\noutput p3 = x[d]"
    ),
    "a fraction that does not come out whole": decoder("output p3 = conv_3x3(c3, width=0.3 * 64)"),
    # ---------------------------------------------------------------------------------------- warnings
    "not depthwise for a raw feature": decoder("output p3 = sep_3x3(c5)").replace("norm=bn", "norm=bn, adapter=none"),
    "not depthwise": decoder("x = conv_1x1(c3, width=256)\noutput p3 = sep_3x3(x)"),
    "a default of the section": decoder(
        "output p3 = squeeze(c3, width=128)",
        before="op squeeze(x, width=width, inner=width / 2) = conv_3x3(conv_1x1(x, width=inner), width=width)",
    ),
    "a gate with norm and activation": decoder("output p3 = mul(c3, sigmoid(conv_1x1(c4)))"),
    "an output of another level": decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c3), p5 = conv_3x3(c5), p2 = conv_3x3(c4)"),
    "a value nothing reads": decoder("x1 = conv_3x3(c4)\noutput p3 = conv_3x3(c3)"),
}
