"""Diagrams of decoders as inline SVG."""

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
class Diagram:
    """A diagram, or the reason why there is none.

    Attributes:
        svg: an HTML element; empty if there is no diagram.
        problem: the reason in one line; empty if there is a diagram.
        width: natural width in pixels.
    """

    svg: str
    problem: str
    width: int = 0


def draw_diagrams(texts: Sequence[str], prefix: str, start: Mapping[str, Any]) -> list[Diagram]:
    """Draw decoders, with the costs that the search has counted.

    Args:
        texts: of the decoders.
        prefix: of every id; must be unique in the page.
        start: first record of the journal, with backbone, size and classes.
    """
    # Threads, because each diagram is drawn by a process of Graphviz.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda item: _draw(item[1], f"{prefix}{item[0]}-", start), enumerate(texts)))


def _draw(text: str, prefix: str, start: Mapping[str, Any]) -> Diagram:
    try:
        decoder = loads(text)
        known = find_backbone(decoder.backbone or str(start.get("backbone", "resnet50")))
        size = decoder.size or tuple(start.get("size") or (800, 1088))
        graph = decoder.lower(known.out_channels)
        svg = render(graph, cost(graph, (int(size[0]), int(size[1])), int(start.get("classes", 80)), known), "svg").decode()
    except (DiagnosticError, MissingFeature, UnknownBackbone, RenderError) as error:
        return Diagram("", " ".join(str(error).split())[:300])
    return inline(svg, prefix)


def inline(svg: str, prefix: str) -> Diagram:
    """Convert an SVG file to an HTML element: ids get a prefix, namespaces are removed, tooltips become ``<title>``."""
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
    for parent in root.iter():  # Graphviz's own titles are node names and would hide the tooltips
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
    return Diagram(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True), "", width)


def _links(root: ElementTree.Element) -> Iterator[ElementTree.Element]:
    yield from [element for element in root.iter() if element.tag == "a"]
