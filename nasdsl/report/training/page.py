"""The report of a training as one self-contained HTML file."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from nasdsl.backbones import UnknownBackbone
from nasdsl.backends.cost import CostTable
from nasdsl.decoder import Decoder, loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.files import write_bytes
from nasdsl.ir import MissingFeature
from nasdsl.report import formatting
from nasdsl.report.html import chart_values, render_page
from nasdsl.report.reading import ReportError
from nasdsl.report.training.charts import evaluation_charts, training_charts
from nasdsl.report.training.data import (
    Training,
    average_precision,
    classes_of,
    number_of,
    read_training,
)
from nasdsl.report.training.sheet import COUNT, FALSE, LEFT_OUT, MISSED, RIGHT, SheetEntry, worst_images
from nasdsl.report.training.validation import FALLBACK, Validation, make_validation

if TYPE_CHECKING:
    from nasdsl.data import Dataset

FILES: Final[Mapping[str, str]] = {
    "model.pt": "the detector",
    "best.pt": "the detector at its best evaluation",
    "results.json": "detections of the last evaluation, as COCO results",
    "metrics.json": "the last evaluation",
    "log.jsonl": "losses, speed and evaluations over time",
    "decoder.nas": "the decoder's text",
    "config.json": "recipe, detector, data, command and versions",
    "checkpoint.pt": "to resume",
}
"""Files of a run to which the page links, and what they are."""
CONFUSIONS: Final = 10
"""Largest number of confused pairs of classes to list."""


def write_report(run: str | Path, dataset: Dataset | None, output: str | Path) -> None:
    """Write the page about a training, atomically.

    Args:
        run: its folder.
        dataset: the validation data; None: the page has no boxes and images.
        output: the file; links to the run's files are relative to it.

    Raises:
        ReportError: the folder is no training.
        OSError: the file cannot be written.
    """
    training, output = read_training(run), Path(output)
    validation, problem = None, ""
    if dataset is not None and training.metrics is not None:
        try:
            validation = make_validation(training, dataset)
        except ReportError as error:
            problem = str(error)
    html = page(training, validation, problem, folder=output.parent).encode()
    write_bytes(output, html)


def page(
    training: Training,
    validation: Validation | None = None,
    problem: str = "",
    *,
    top: int = COUNT,
    folder: str | Path | None = None,
    now: float | None = None,
) -> str:
    """The report of a training as HTML.

    Args:
        training: from `read_training`.
        validation: the last evaluation with its boxes and images; None: the page is without what needs them.
        problem: why there is none.
        top: number of images with most errors.
        folder: of the page, for links to the run's files; None: that of the run.
        now: Unix time of the report; None: the current time.
    """
    over_time = [chart_values(chart) for chart in training_charts(training)]
    evaluation = [chart_values(chart) for chart in evaluation_charts(training, validation)]
    decoder, table = _decoder(training)
    sheet = [_sheet_values(entry) for entry in worst_images(validation, top)] if validation is not None else []
    return render_page(
        "training.html.jinja",
        has_charts=bool(over_time or evaluation),
        now=now,
        title=training.name,
        summary=list(_summary(training, decoder)),
        unfinished=_unfinished(training),
        tiles=list(_tiles(training, validation, table)),
        notes=list(_notes(training, validation, problem)),
        over_time=over_time,
        evaluation=evaluation,
        evaluated=_evaluated(training),
        classes=_classes(training, validation),
        confusions=_confusions(validation),
        sheet=sheet,
        threshold=f"{validation.threshold:.3f}" if validation is not None else "",
        colours={"right": RIGHT, "false": FALSE, "missed": MISSED, "left_out": LEFT_OUT},
        perfect=validation is not None and bool(validation.images) and not sheet,
        facts=[(name, value) for name, value in _facts(training, decoder, table) if value],
        settings=[(name, _as_text(value)) for name, value in training.part("recipe").items()],
        method=[(name, _as_text(value)) for name, value in _mapping(training.part("detector").get("method")).items()],
        text=str(training.part("detector").get("decoder") or ""),
        files=list(_files(training, Path(folder) if folder is not None else training.folder)),
    )


# ----------------------------------------------------------------------------------------------------- the overview


def _summary(training: Training, decoder: Decoder | None) -> Iterator[str]:
    backbone = _mapping(training.part("detector").get("backbone")).get("name")
    if decoder is not None:
        yield f"{decoder.name}{f' on {backbone}' if backbone else ''}"
    name, value = average_precision(training.metrics)
    if value is not None:
        yield f"{name} {formatting.points(value)}"
    if training.steps:
        yield f"{training.epochs:.4g} epochs of {formatting.count(_image_count(training), 'image')}"
        yield f"{formatting.duration(training.seconds)} of training"


def _image_count(training: Training) -> int:
    return int(number_of(training.part("data"), "pictures") or 0)


def _unfinished(training: Training) -> str:
    """How far the training was, if it was not finished."""
    if not training.steps:
        return "the training had not made a step"
    # Not by the seconds left: at the last step they are those of the evaluation that follows.
    recipe, epoch = training.part("recipe"), number_of(training.steps[-1], "epoch") or 0
    steps, half_a_step = number_of(recipe, "steps"), 0.5 * epoch / max(training.last_step, 1)
    remaining = training.last_step < steps if steps else epoch + half_a_step < (number_of(recipe, "epochs") or 0)
    # Trainings that were stopped early end with an evaluation, and steps left.
    evaluated = int(number_of(training.metrics, "step") or 0) >= training.last_step
    if remaining and not (evaluated and recipe.get("patience")):
        return f"the training was not finished: at step {training.last_step:,}"
    return ""


def _tiles(training: Training, validation: Validation | None, table: CostTable | None) -> Iterator[tuple[str, str, str]]:
    """(label, value, note) of each tile of the overview."""
    metrics = training.metrics
    name, value = average_precision(metrics)
    if value is not None:
        yield name, formatting.points(value), "mean over IoU 0.5 to 0.95" if name == "AP" else "at IoU 0.5"
    best_name, best = average_precision(_mapping((metrics or {}).get("best")))
    if best is not None and best != value:
        yield f"best {best_name}", formatting.points(best), f"at step {int(number_of(metrics, 'best', 'step') or 0):,}"
    for label, key, note in (("AP50", "ap50", "at IoU 0.5"), ("AP75", "ap75", "at IoU 0.75")):
        if (figure := number_of(metrics, "coco", key)) is not None:
            yield label, formatting.points(figure), note
    if validation is not None and validation.best is not None:
        yield "best F1", f"{validation.best.f1:.3f}", f"at a threshold of {validation.best.score:.3f}"
    if table is not None:
        yield "MACs", formatting.amount(table.total.macs), f"at {table.size[0]} x {table.size[1]}"
        yield "parameters", formatting.amount(table.total.params), "with the backbone"
    if training.seconds and training.images:
        yield "images a second", f"{training.images / training.seconds:.3g}", f"in {formatting.duration(training.seconds)}"
    skipped = int(number_of(training.steps[-1], "nonfinite") or 0) if training.steps else 0
    if skipped:
        yield "steps skipped", f"{skipped:,}", "gradients not finite"
    if training.skipped:
        yield "images skipped", f"{training.skipped:,}", "they could not be read"


def _notes(training: Training, validation: Validation | None, problem: str) -> Iterator[str]:
    """Notes about what the report cannot show."""
    if not training.steps:
        yield "The log has no training step yet; make the report again later."
    if training.metrics is None:
        yield (
            "This training was not evaluated, because it had no validation data or has not reached an evaluation: there are no "
            "average precision, curves, confusion matrix and images."
        )
    elif validation is None:
        yield (
            "Without the annotated boxes of the validation data there are no curves, confusion matrix and images"
            f"{f': {problem}' if problem else ''}. With --data SPEC, nasdsl report {shlex.quote(str(training.folder))} takes "
            "them from where they are now."
        )
    elif len(training.evaluations) == 1:
        yield (
            "The training was evaluated once, at its end. With --set evaluate_every=1 it is evaluated after each epoch, and "
            "this page has a curve of the average precision."
        )
    if validation is not None and validation.best is None:
        yield f"No detection is right at any threshold, so none is best: errors are counted from a score of {FALLBACK:g} on."


def _evaluated(training: Training) -> str:
    """What was evaluated, in words; empty without an evaluation."""
    metrics = training.metrics
    if metrics is None:
        return ""
    counts = [f"{int(n):,} {what}" for what in ("images", "boxes", "detections") if (n := number_of(metrics, what)) is not None]
    step = number_of(metrics, "step")
    at = f", after step {int(step):,}" if step is not None else ""
    return f"{metrics.get('data', 'validation data')}: {', '.join(counts)}{at}."


def _classes(training: Training, validation: Validation | None) -> dict[str, Any] | None:
    """The table of the classes."""
    found = classes_of(training.metrics)
    if not found:
        return None
    keys = [key for key in ("ap", "ap50", "ap75", "ar") if any(key in entry for entry in found)]
    columns = ["boxes", *({"ap": average_precision(training.metrics)[0], "ar": "AR"}.get(key, key.upper()) for key in keys)]
    if validation is not None:
        columns += ["right", "false", "missed", "another class", "precision", "recall"]
    rows = []
    for number, entry in enumerate(found):
        cells = [f"{int(number_of(entry, 'boxes') or 0):,}", *(formatting.points(number_of(entry, key)) for key in keys)]
        if validation is not None:
            cells += _counts(validation, number)
        rows.append((str(entry.get("name")), cells))
    return {"columns": columns, "rows": rows}


def _counts(validation: Validation, number: int) -> list[str]:
    """Right, false, missed and confused boxes of a class at the threshold, its precision and recall."""
    counts = validation.matrix.counts
    right = int(counts[number, number])
    detections, boxes = int(counts[:, number].sum()), int(counts[number].sum())
    missed = int(counts[number, -1])
    figures = (right, detections - right, missed, boxes - right - missed)
    shares = (right / total if total else None for total in (detections, boxes))
    return [*(f"{n:,}" for n in figures), *(formatting.MISSING if s is None else formatting.percent(s) for s in shares)]


def _confusions(validation: Validation | None) -> list[tuple[str, str, str]]:
    if validation is None:
        return []
    return [(true.name, found.name, f"{n:,}") for true, found, n in validation.matrix.confusions[:CONFUSIONS]]


def _sheet_values(entry: SheetEntry) -> dict[str, Any]:
    return {**asdict(entry), "f1": f"{entry.f1:.2f}", "truth_text": entry.truth_text, "found_text": entry.found_text}


# ----------------------------------------------------------------------------------------------- detector and recipe


def _decoder(training: Training) -> tuple[Decoder | None, CostTable | None]:
    """The decoder, and its cost with the backbone at the size of the evaluation; None where they cannot be had."""
    detector = training.part("detector")
    try:
        decoder = loads(str(detector.get("decoder") or ""), "decoder.nas")
    except DiagnosticError:
        return None, None
    backbone, size = _mapping(detector.get("backbone")).get("name"), _size(detector)
    if not isinstance(backbone, str) or size is None:
        return decoder, None
    try:
        return decoder, decoder.cost(size, backbone, max(1, len(detector.get("classes") or ())))
    except (DiagnosticError, MissingFeature, UnknownBackbone):
        return decoder, None


def _size(detector: Mapping[str, Any]) -> tuple[int, int] | None:
    """(H, W) of the images of the detector; with a shorter side alone, that of images of 3:4."""
    try:
        if detector.get("fixed_size"):
            height, width = detector["fixed_size"]
            return int(height), int(width)
        shorter = int(detector["min_size"][-1])
        return shorter, min(int(detector["max_size"]), -(-4 * shorter // 3 // 32) * 32)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _facts(training: Training, decoder: Decoder | None, table: CostTable | None) -> Iterator[tuple[str, str]]:
    """(name, value) rows about the detector, the data and the recipe."""
    detector, recipe, about = (training.part(name) for name in ("detector", "recipe", "about"))
    if decoder is not None:
        fpn, head = decoder.architecture.fpn.width, decoder.architecture.head.width
        yield "decoder", f"{decoder.name}, digest {decoder.digest[:12]}"
        yield "width", f"{fpn}" if fpn == head else f"{fpn} in the fpn, {head} in the head"
    backbone = _mapping(detector.get("backbone"))
    frozen = backbone.get("freeze_at")
    yield "backbone", f"{backbone['name']}, freeze_at {frozen}, norm {backbone.get('norm')}" if backbone else "a custom network"
    if table is not None:
        parts = {"backbone": table.backbone, "fpn": table.fpn, "head": table.head}
        for what, key in (("MACs", "macs"), ("parameters", "params")):
            each = ", ".join(f"{name} {formatting.amount(getattr(part, key))}" for name, part in parts.items())
            yield what, f"{formatting.amount(getattr(table.total, key))}: {each}"
    fixed = detector.get("fixed_size")
    of_one_size = f"{fixed[0]} x {fixed[1]} pixels" if isinstance(fixed, list) and len(fixed) == 2 else None
    yield "images", of_one_size or f"shorter side {_as_text(detector.get('min_size'))}"
    classes = [str(name) for name in detector.get("classes") or ()]
    shown = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
    yield "classes", f"{len(classes)}: {shown}" if classes else ""
    yield (
        "training data",
        f"{about.get('data') or ''} ({about.get('split', 'train')}), {formatting.count(_image_count(training), 'image')}",
    )
    length = f"{recipe['steps']:,} steps" if recipe.get("steps") else f"{recipe.get('epochs')} epochs"
    yield (
        "recipe",
        (
            f"{length} of {recipe.get('batch_size')} images a step, {recipe.get('optimizer')}, learning rate "
            f"{recipe.get('learning_rate')}, {str(recipe.get('schedule')).replace('_', ' ')}, seed {recipe.get('seed')}"
            if recipe
            else ""
        ),
    )
    yield "command", str(about.get("command") or "")
    yield "versions", ", ".join(f"{name} {version}" for name, version in training.part("versions").items())
    yield "folder", str(training.folder.resolve())


def _files(training: Training, folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """(name, link, size, description) of the files of the run that exist."""
    for name, about in FILES.items():
        file = training.folder / name
        if file.is_file():
            link = Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()
            yield name, quote(link), f"{formatting.amount(file.stat().st_size)}B".replace("kB", "KB"), about


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
