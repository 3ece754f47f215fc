"""Files and folders that are named on the command line: decoders, runs, output files."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.output import echo_err, is_main_process, print_diagnostics
from nasdsl.cli.training_plan import recorded_split

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.detection.detector import Detector
    from nasdsl.detection.inference import InferenceDetector
    from nasdsl.detection.precision import Precision

DECODER_FILES = ("decoder.nas", "best.nas")
"""Where the folder of a training and that of a search keep their decoder."""

SPACE_FILES = ("space.nas",)
"""Where the folder of a search keeps its search space."""


def find_nas_file(file: str, in_folder: tuple[str, ...] = DECODER_FILES) -> str:
    """Path of the file that a FILE or SPACE argument names.

    Args:
        file: a path, ``-`` for standard input, ``zoo:NAME``, or the folder of a run.
        in_folder: names of the files to look for in a folder; the first one that exists is taken.

    Raises:
        UnreadableFile: a folder that has none of these files, or a name that the zoo does not have.
    """
    from nasdsl.semantics.files import UnreadableFile, zoo_file

    if file.startswith("zoo:"):
        return os.fspath(zoo_file(file))
    if not os.path.isdir(file):
        return file
    for name in in_folder:
        path = os.path.join(file, name)
        if os.path.isfile(path):
            if is_main_process():
                echo_err(f"reading {path}")
            return path
    from nasdsl.diagnostics import printable

    what = "a search" if in_folder == SPACE_FILES else "a training or search"
    raise UnreadableFile(
        f"{printable(file)}: a directory without {' or '.join(in_folder)}; expected a .nas file or the folder of {what}"
    )


def load_decoder(file: str) -> Decoder:
    """Load the decoder of a FILE argument and print its warnings; exit if it does not check or cannot be read."""
    from nasdsl.decoder import load
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile

    try:
        decoder = load(find_nas_file(file))
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        fail(str(error))
    if decoder.architecture.warnings:
        print_diagnostics(decoder.architecture.warnings)
    return decoder


def load_detector_for_inference(
    run: Path, device: str | None, precision: Precision | None = None, *, graphs: bool = True
) -> InferenceDetector:
    """Load the detector of a training run, optimized for inference; see `load_trained_detector` and `for_inference`."""
    from nasdsl.detection.inference import for_inference

    return for_inference(load_trained_detector(run, device), precision, graphs=graphs)


def load_trained_detector(run: Path, device: str | None) -> Detector:
    """Load the detector of a training run.

    Args:
        run: folder of the run, or its ``model.pt``.
        device: where to put it; None takes a GPU if there is one.
    """
    from nasdsl.detection.factory import load_detector

    if (run / "full").is_dir() and not (run / "model.pt").exists():
        trained = sorted(path.parent.name for path in run.glob("full/*/model.pt"))
        fail(
            f"{run} is the folder of a search; its trained detectors are in {run / 'full'}: {', '.join(trained) or 'none yet'}"
        )
    return load_detector(run, device=device or "auto")


def dataset_options(
    detector: Detector | None, run: Path, share: float | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Options of `open_dataset` that give the dataset the labels of a run, and the split that the run was trained with.

    Args:
        detector: of the run. None takes the classes from its configuration, if it has one.
        run: folder of the run, or a file in it.
        share, seed: of --split-share and --split-seed, instead of those of the run.
    """
    from nasdsl.training.run import Run

    classes = detector.classes if detector is not None else Run(run if run.is_dir() else run.parent).classes
    recorded = recorded_split(run) or {}
    return {
        "classes": classes,
        "split_share": recorded.get("split_share") if share is None else share,
        "split_seed": recorded.get("split_seed") if seed is None else seed,
    }


def write_file(path: str, data: bytes, *, quiet: bool = False) -> None:
    """Write a file of -o, as a whole or not at all; a pipe or device is written as it is."""
    from nasdsl.files import write_bytes

    target = Path(os.path.realpath(path))  # a link is followed
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
        else:
            write_bytes(target, data)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")
    if not quiet:
        echo_err(f"wrote {path}")
