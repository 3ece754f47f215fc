"""Decoders of which diagrams are drawn, and what is read from the drawings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.backends.cost import CostTable, cost
from nasdsl.ir import Graph

ROOT = Path(__file__).parents[1]
POOLED = """decoder pooled {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    g = mul(c3, sigmoid(global_pool(c3, kind=max)))
    pooled = global_pool(c5, kind=avg)
    m = mul(c4, sigmoid(pooled))
    output p3 = g, p4 = m, p5 = c5
  }
  head(width=64, norm=gn, share=2) { conv_3x3 -> conv_3x3 -> conv_3x3 }
  predict fcos(centerness=cls)
}
"""

BIFPN = """agg fuse2(x, y)    = conv(weighted_add(x, y), k=3)
agg fuse3(x, y, z) = conv(weighted_add(x, y, z), k=3)
block bifpn(p3, p4, p5) -> (q3, q4, q5) {
  m4 = fuse2(p4, p5)
  q3 = fuse2(p3, m4)
  q4 = fuse3(p4, m4, resize(q3, to=p4))
  q5 = fuse2(p5, resize(q4, to=p5))
}
decoder bifpn3 {
  input c3, c4, c5
  fpn(width=64, norm=bn) {
    a3, a4, a5 = bifpn(c3, c4, c5)
    repeat 2 { a3, a4, a5 = bifpn(a3, a4, a5) }
    output p3 = a3, p4 = a4, p5 = a5
    output p6 = down(p5), p7 = down(relu(p6))
  }
  head(width=64, norm=gn, share=0) {
    cls: sep_3x3 -> sep_3x3
    box: sep_3x3 -> sep_3x3 -> sep_3x3
  }
  predict fcos(centerness=box)
}
"""

TRUNK = """decoder trunk {
  input c3, c4
  fpn(width=64, norm=bn) {
    shared refine(x) = conv_3x3(x)
    output p3 = refine(c3), p4 = refine(sum(c3, c4))
  }
  head(width=64, norm=bn, norms=level) {
    both: conv_3x3 * 2
    cls: sep_3x3
    box: conv_3x3 * 2
  }
  predict fcos(centerness=box)
}
"""

TEXTS = {path.stem: path.read_text() for path in sorted((ROOT / "genotypes").glob("*.nas"))}
TEXTS |= {"pooled": POOLED, "bifpn": BIFPN, "trunk": TRUNK}
LARGE = {"asff", "bfp", "carafe_fpn", "dyhead", "nas_fpn", "rtdetr", "sepc", "yolox"}
"""Whose diagrams are large, or have nothing in them that the others have not: among the long tests."""


def blocks(count: int) -> str:
    """A decoder of so many blocks, each on the one before and on an input or a block somewhat further back."""
    lines = []
    for t in range(1, count + 1):
        before = f"x{t - 1}" if t > 1 else "c4"
        other = f"x{t - 5}" if t % 3 and t > 5 else f"c{3 + t % 3}"
        lines.append(f"    x{t} = psum(sep_3x3({before}), skip({other}))")
    body = "\n".join(lines)
    return (
        f"decoder deep {{\n  input c3, c4, c5\n  fpn(width=32, norm=bn) {{\n{body}\n"
        f"    output p3 = x{count}, p5 = c5\n    merge dangling into p3\n  }}\n"
        "  head(width=32, norm=gn, share=0) { conv_3x3 }\n  predict fcos(centerness=cls)\n}\n"
    )


@cache
def lowered(text: str, name: str = "<text>") -> tuple[Graph, CostTable]:
    graph = nasdsl.loads(text, name=name).lower(backbone("resnet50").out_channels)
    return graph, cost(graph, (800, 1088), 80)


def statements(dot: str) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Boxes and arrows of a DOT text with their attributes; a reference is the box that it stands for."""
    nodes, edges = {}, {}
    reference = r" \(row \d+\)$"
    for line in dot.splitlines():
        if found := re.match(r'\s*"([^"]*)" -> "([^"]*)" \[(.*)\];$', line):
            ends = re.sub(reference, "", found[1]), found[2]
            assert ends not in edges, "two arrows between the same boxes"
            edges[ends] = found[3]
        elif found := re.match(r'\s*"([^"]*)" \[(.*)\];$', line):
            assert found[1] not in nodes, "a box drawn twice"
            if not re.search(reference, found[1]):
                nodes[found[1]] = found[2]
    return nodes, edges
