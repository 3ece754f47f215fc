"""Importer of model files in the list form ``[from, repeats, module, args]``: their head as `.nas` text.

``model_file`` reads a file with the place of everything in it, ``modules`` has what each module does to channels and levels,
``network`` follows the layers and finds every mistake, ``text`` writes the decoder.
"""

from nasdsl.importers.yolo.text import yolo_text

__all__ = ["yolo_text"]
