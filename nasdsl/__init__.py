"""nasdsl: a language and a compiler for the decoders of object detectors.

Importing this package imports nothing else: a public name imports what it needs when it is first used, and torch is imported
by `Decoder.build` and the names of detectors only.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasdsl import search
    from nasdsl.decoder import Decoder, load, loads
    from nasdsl.detection.backbones import FeatureExtractor
    from nasdsl.detection.detections import Detections
    from nasdsl.detection.detector import Detector
    from nasdsl.detection.factory import detector, load_detector
    from nasdsl.detection.inference import for_inference
    from nasdsl.diagnostics import Diagnostic, DiagnosticError
    from nasdsl.export import export_detector
    from nasdsl.importers.nas_fcos import from_nas_fcos
    from nasdsl.ir import MissingFeature
    from nasdsl.semantics.files import UnreadableFile
    from nasdsl.spaces import Space, SpaceError, load_space, loads_space

_MODULES = {
    "Decoder": "nasdsl.decoder",
    "Detections": "nasdsl.detection.detections",
    "Detector": "nasdsl.detection.detector",
    "Diagnostic": "nasdsl.diagnostics",
    "DiagnosticError": "nasdsl.diagnostics",
    "FeatureExtractor": "nasdsl.detection.backbones",
    "MissingFeature": "nasdsl.ir",
    "Space": "nasdsl.spaces",
    "SpaceError": "nasdsl.spaces",
    "UnreadableFile": "nasdsl.semantics.files",
    "detector": "nasdsl.detection.factory",
    "export_detector": "nasdsl.export",
    "for_inference": "nasdsl.detection.inference",
    "from_nas_fcos": "nasdsl.importers.nas_fcos",
    "load": "nasdsl.decoder",
    "load_detector": "nasdsl.detection.factory",
    "load_space": "nasdsl.spaces",
    "loads": "nasdsl.decoder",
    "loads_space": "nasdsl.spaces",
}

__all__ = [
    "Decoder",
    "Detections",
    "Detector",
    "Diagnostic",
    "DiagnosticError",
    "FeatureExtractor",
    "MissingFeature",
    "Space",
    "SpaceError",
    "UnreadableFile",
    "__version__",
    "detector",
    "export_detector",
    "for_inference",
    "from_nas_fcos",
    "load",
    "load_detector",
    "load_space",
    "loads",
    "loads_space",
    "search",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("nasdsl")
        except PackageNotFoundError:  # a source tree that is not installed
            return "0+unknown"
    if name == "search":  # a callable package
        return import_module("nasdsl.search")
    if name not in _MODULES:
        raise AttributeError(f"module 'nasdsl' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def _in_notebook() -> None:
    """Let a running IPython show decoders, spaces and trials; see `nasdsl.notebook`."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None:
        import_module("nasdsl.notebook").register(shell)


_in_notebook()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
