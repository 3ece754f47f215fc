"""The small decoder that the examples of the catalogue vary."""

from __future__ import annotations

from textwrap import indent


def decoder(
    body: str = "output p3 = conv_3x3(c3)",
    *,
    before: str = "",
    inputs: str = "input c3, c4",
    fpn: str = "width=64, norm=bn",
    head: str = "width=64, norm=gn",
    layers: str = "conv_3x3 -> conv_3x3",
    predict: str = "predict fcos(centerness=cls)",
) -> str:
    """A decoder's text, right but for what is put into it."""
    return (
        (before + "\n\n" if before else "")
        + "decoder d {\n"
        + (f"  {inputs}\n" if inputs else "")
        + f"  fpn({fpn}) {{\n{indent(body, '    ')}\n  }}\n"
        + f"  head({head}) {{ {layers} }}\n"
        + (f"  {predict}\n" if predict else "")
        + "}"
    )
