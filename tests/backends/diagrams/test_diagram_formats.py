"""How diagrams are written: DOT and Mermaid."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest
from diagram_texts import POOLED, ROOT, TEXTS, blocks, lowered

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.dot import emit_dot, quote
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.diagrams.mermaid import emit_mermaid
from nasdsl.ir import Graph

GOLDEN = ROOT / "tests" / "goldens" / "nas_fcos.dot"


def test_dot_is_the_golden() -> None:
    dot = emit_dot(*lowered(TEXTS["nas_fcos"], "nas_fcos.nas"))
    if os.environ.get("NASDSL_UPDATE_GOLDENS"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(dot)
    assert dot == GOLDEN.read_text(), "the diagram has changed; if it should, run with NASDSL_UPDATE_GOLDENS=1"


def test_dot_and_mermaid_need_neither_graphviz_nor_torch_nor_networkx() -> None:
    code = (
        "import sys, nasdsl\n"
        "from nasdsl.backbones import backbone\nfrom nasdsl.backends.cost import cost\n"
        "from nasdsl.backends.diagrams import rendering\n"
        "g = nasdsl.load(sys.argv[1]).lower(backbone('resnet50').out_channels)\n"
        "t = cost(g, (800, 1088), 80)\n"
        "assert rendering.render(g, t, 'dot') and rendering.render(g, t, 'mmd')\n"
        "print([m for m in ('torch', 'networkx', 'graphviz', 'pygraphviz') if m in sys.modules])\n"
    )
    path = ROOT / "genotypes" / "nas_fcos.nas"
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.long
def test_thousands_of_blocks_take_seconds() -> None:
    graph, table = lowered(blocks(3_000))
    start = time.perf_counter()
    dot = emit_dot(graph, table)
    assert time.perf_counter() - start < 20  # 2 s; the bound is for machines under load
    assert "x3000" in dot


def test_quote_survives_what_a_name_can_hold() -> None:
    assert quote('a"b\\n<&>\n\x00c') == '"a\\"b\\\\\\\\n<&amp;>\\nc"'


NASTY = 'C:\\new "a" <b> &amp; $HTML$ é\n.nas'


def test_sources_of_any_name_and_text_come_through() -> None:
    text = POOLED.replace("g = mul(c3,", 'g = mul(c3, # "quoted" <b>&lt; \\N & ]]> -->\n')
    graph, table = lowered(text, NASTY)
    svg = rendering.render(graph, table, "svg").decode()
    tips = {e.get("{http://www.w3.org/1999/xlink}title") for e in ElementTree.fromstring(svg).iter()}
    tip = next(tip for tip in tips if tip and '"quoted" <b>' in tip)
    assert tip.startswith('C:\\new "a" <b> &amp; $HTML$ é')
    assert "\\N & ]]> -->" in tip
    page = rendering.render(graph, table, "html").decode()
    assert "&quot;quoted&quot; &lt;b&gt;&amp;lt; \\N &amp; ]]&gt; --&gt;" in page
    assert "mul(c3, sigmoid(global_pool" in emit_mermaid(graph, table)


def test_mermaid_has_the_same_boxes_and_arrows(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    text = emit_mermaid(graph, table)
    drawn = diagram(graph, table)
    boxes = list(drawn.boxes)
    assert [int(i) for i in re.findall(r"^ +n(\d+)[\[(]", text, re.MULTILINE)] == list(range(len(boxes)))
    head = sum(len(tower.arrows) + len(tower.entries) for tower in drawn.towers)
    assert len(re.findall(r"^ +\w+ (?:-->|-\.->)", text, re.MULTILINE)) == len(drawn.arrows) + head
    assert text.count("-.->") == sum(a.kind == "merge" for a in drawn.arrows)
    assert text.count("subgraph") == text.count("\n  end") == len(drawn.lanes) + 1
    for line in text.splitlines():
        if '"' in line:
            assert re.fullmatch(r'[^"]*("[^"]*"[^"]*)+', line)
