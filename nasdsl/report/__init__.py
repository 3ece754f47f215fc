"""Reports for people: tables on the terminal, HTML and Markdown pages.

Modules: `tables` (on the terminal), `zoo` (docs/zoo.md); `search` and `training` make HTML pages with charts, from `charts`
(Vega-Lite), `themes` (colours), `reading` (their files), `formatting` (numbers as text), `html` (templates, one
self-contained file) and `chart_files` (charts as SVG and PNG).
"""
