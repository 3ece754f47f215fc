"""Graph to picture: SVG, PNG, PDF, DOT, Mermaid, a page, and the difference of two decoders.

diagram: what is drawn; layout: where; captions: the words in it; dot, mermaid, page, diff: the forms; draw: Graphviz.
"""

from nasdsl.backends.diagrams.rendering import FORMATS, TIMEOUT, RenderError, render, render_diff, write

__all__ = ["FORMATS", "TIMEOUT", "RenderError", "render", "render_diff", "write"]
