"""nasdsl: a language, a compiler and a search for the decoders of object detectors.

Importing this package does not import torch; `Decoder.build` and what lies behind it do.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nasdsl.decoder import Decoder, load, loads
from nasdsl.diagnostics import Diagnostic, DiagnosticError
from nasdsl.imports.nas_fcos import from_nas_fcos
from nasdsl.ir import MissingFeature
from nasdsl.semantics.files import UnreadableFile

try:
    __version__ = version("nasdsl")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "Decoder",
    "Diagnostic",
    "DiagnosticError",
    "MissingFeature",
    "UnreadableFile",
    "__version__",
    "from_nas_fcos",
    "load",
    "loads",
]
