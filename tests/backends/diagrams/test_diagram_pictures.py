"""Pictures and pages, as each format."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from diagram_texts import POOLED, TEXTS, lowered

from nasdsl.backends.cost import CostTable
from nasdsl.backends.diagrams import rendering
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.ir import Graph


def test_each_layer_of_a_repeated_step_is_one() -> None:
    head = "head(width=64, norm=gn) { conv(k=3, groups=2 * 4) * 3 -> conv_1x1 * 1 }"
    text = re.sub(r"head\(.*?\}", head, POOLED, count=1)
    tower = diagram(*lowered(text)).towers[0]
    assert [box.text for box in tower.layers] == ["conv(k=3, groups=2 * 4)"] * 3 + ["conv_1x1"]


def test_svg_is_xml_and_names_everything(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    root = ElementTree.fromstring(rendering.render(graph, table, "svg", fold=False))
    printed = [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]
    drawn = diagram(graph, table)
    for name in {box.name for box in drawn.boxes} | {lane.label for lane in drawn.lanes} | {graph.name}:
        assert name in printed, name
    ids = {e.get("id") for e in root.iter()}
    assert {f"box{i}" for i in range(len(list(drawn.boxes)))} <= ids


def test_files_by_suffix(tmp_path: Path) -> None:
    graph, table = lowered(TEXTS["fcos"])
    begins = {"svg": b"<?xml", "png": b"\x89PNG\r\n", "pdf": b"%PDF", "dot": b"digraph", "mmd": b"flowchart", "html": b"<!DOC"}
    assert set(begins) == set(rendering.FORMATS)
    for suffix, begin in begins.items():
        path = tmp_path / f"fcos.{suffix.upper() if suffix == 'png' else suffix}"
        rendering.write(graph, table, path)
        assert path.read_bytes().startswith(begin), suffix
    for wrong in ("fcos.gif", "fcos"):
        with pytest.raises(ValueError, match="svg, png, pdf, dot, mmd, html"):
            rendering.write(graph, table, tmp_path / wrong)
    with pytest.raises(ValueError, match="'jpg'"):
        rendering.render(graph, table, "jpg")


def test_page_stands_alone(decoder: tuple[Graph, CostTable]) -> None:
    graph, table = decoder
    page = rendering.render(graph, table, "html").decode()
    without_text = re.sub(r"<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert not re.search(r"https?:|//\w|\bsrc=|\bhref=|url\(|@import|<link|xlink:", without_text)
    found = re.search(r"const places = (\{.*?\}), views = (\[.*\]), rowsOf", page)
    assert found is not None
    places, views = json.loads(found[1]), json.loads(found[2])
    for line in {line for lines in places.values() for line in lines}:
        assert f'id="{line}"' in page, line
    for row in places:
        assert f'data-box="{row}"' in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    for view in views:
        assert sorted(row for rows in view["boxes"].values() for row in rows) == sorted(places)
        assert set(view["opens"]) <= set(view["boxes"]) <= set(ids)
        assert all(0 < target < len(views) for target in view["opens"].values())
    opened = {target for view in views for target in view["opens"].values()}
    assert opened == set(range(1, len(views) - 1))  # the last one has everything open
    assert "prefers-color-scheme: dark" in page
    assert f"{table.decoder.macs:,}" in page
