"""Diagrams of decoders as elements of a page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

from nasdsl.backbones import UnknownBackbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import cost
from nasdsl.backends.diagrams import RenderError, render
from nasdsl.decoder import loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir import MissingFeature

_XLINK: Final = "{http://www.w3.org/1999/xlink}"
_DROPPED: Final = ("font-family", "width", "height", "{http://www.w3.org/XML/1998/namespace}space")


@dataclass(frozen=True)
class Drawn:
    """A diagram, or why there is none.

    Attributes:
        svg: an element of HTML; empty where there is none.
        problem: one line; empty where there is a diagram.
        width: in pixels, at which its print is as large as it was meant.
    """

    svg: str
    problem: str
    width: int = 0


def draw_all(texts: Sequence[str], prefix: str, start: Mapping[str, Any]) -> list[Drawn]:
    """The diagram of each decoder, costs in it as the search counted them.

    Args:
        texts: decoders, in any layout.
        prefix: begins every id; unique in the page.
        start: the journal's first record: backbone, size and classes.
    """
    # Graphviz runs in a process of its own for each.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda item: _draw(item[1], f"{prefix}{item[0]}-", start), enumerate(texts)))


def _draw(text: str, prefix: str, start: Mapping[str, Any]) -> Drawn:
    try:
        known = find_backbone(str(start.get("backbone", "resnet50")))
        size = tuple(start.get("size") or (800, 1088))
        graph = loads(text).lower(known.out_channels)
        svg = render(graph, cost(graph, (int(size[0]), int(size[1])), int(start.get("classes", 80)), known), "svg").decode()
    except (DiagnosticError, MissingFeature, UnknownBackbone, RenderError) as error:
        return Drawn("", " ".join(str(error).split())[:300])
    return inline(svg, prefix)


def inline(svg: str, prefix: str) -> Drawn:
    """An SVG file as an element of a page among others: ids with a prefix, no namespaces, tooltips as ``<title>``."""
    root = ElementTree.fromstring(svg)
    ids = {element.get("id") for element in root.iter()} - {None}
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
        for name in _DROPPED:
            element.attrib.pop(name, None)
        for name, value in list(element.attrib.items()):
            if name == "id" or (name.endswith("href") and value[1:] in ids and value.startswith("#")):
                element.set(name, value.replace("#", f"#{prefix}") if value.startswith("#") else prefix + value)
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    for parent in root.iter():  # Graphviz's own titles are ids of the graph and would hide the tooltips
        for title in [child for child in parent if child.tag == "title"]:
            parent.remove(title)
    for link in _links(root):
        tooltip = link.attrib.pop(f"{_XLINK}title", None)
        if tooltip:
            title = ElementTree.Element("title")
            title.text = tooltip
            link.insert(0, title)
        link.tag = "g"
    width = round(float(root.get("viewBox", "0 0 0 0").split()[2]))
    root.set("role", "img")
    root.set("class", "diagram")
    return Drawn(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True), "", width)


def _links(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    yield from [element for element in root.iter() if element.tag == "a"]
