"""Files and folders named on the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.output import report, say

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.detection.detector import Detector


def path_of(file: str) -> str:
    """The path that a FILE argument means."""
    if not file.startswith("zoo:"):
        return file
    from nasdsl import resources

    folder = resources.folder("genotypes")
    known = {p.stem: p for p in sorted(folder.rglob("*.nas"))}
    if file[4:] not in known:
        fail(f"the zoo has no {file[4:]!r}; it has {', '.join(known)}")
    return os.fspath(known[file[4:]])


def load_decoder(file: str) -> Decoder:
    from nasdsl.decoder import load
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile

    try:
        decoder = load(path_of(file))
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        fail(str(error))
    if decoder.architecture.warnings:
        report(decoder.architecture.warnings)
    return decoder


def load_run(run: Path, device: str | None) -> Detector:
    """The detector of a training, made for inference."""
    from nasdsl.detection.inference import for_inference
    from nasdsl.detection.making import load_detector

    return for_inference(load_detector(run, device=device or "auto"))


def classes_of(detector: Detector, spec: str) -> dict[str, Any]:
    """The detector's classes decide which object has which label; those of `shapes` never change."""
    return {} if spec.startswith("shapes") else {"classes": detector.classes}


def write(path: str, data: bytes, *, quiet: bool = False) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        say(f"wrote {path}")
