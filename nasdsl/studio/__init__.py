"""The page on which a text is written, checked, drawn and counted: `nasdsl studio`, and the playground, which needs no server.

``messages`` answers what the page asks, as JSON: in the playground within the browser (Pyodide), in the studio behind
``server``. ``result`` is what the compiler says of a text, ``words`` what may be written, ``text_file`` the file on the disk.
``page/`` is built from ``editors/studio`` (docs/studio.md). Nothing here imports torch, or a package other than lark.
"""
