"""Predicted against measured latency of whole detectors: samples of the paper's fpn space, at several widths and sizes.

    python experiments/latency_prediction.py run --out experiments/latency_prediction --calibration 12 --samples 100
    python experiments/latency_prediction.py report --out experiments/latency_prediction --plot latency.png

`run` measures detectors in onnxruntime with one thread, and adds lines to measured.jsonl; it goes on where it was stopped. The
calibration's detectors come first. `report` fits the correction to them, and to nothing else, predicts each sample from
table.json, writes samples.csv, and prints Spearman's correlation and the errors. Both measure parts that the table lacks.

A detector is exported and timed beside the table's reference, a fixed small network, in rounds of one run or 0.03 s: its time
is the median ratio to the reference, over rounds in which the reference is undisturbed. Times are processor time of the thread.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import spearmanr

import nasdsl
from nasdsl import resources
from nasdsl.latency import LatencyPredictor
from nasdsl.latency.artifact import find_artifact, open_session
from nasdsl.latency.measuring import Effort, Measurer
from nasdsl.latency.table import Context, Table, Times

WIDTHS = (24, 32, 48, 64)
SIZES = ((192, 256), (240, 320), (320, 432))
CLASSES = 3
BACKBONE = "mobilenet_v2"
EFFORT = Effort(rounds=7, fewer_rounds=7, slice_seconds=0.03, warmup_seconds=0.05)
SEEDS = {"calibration": 1000, "sample": 1}


class Sample(NamedTuple):
    """A detector: which draw it is, and its text, width and size."""

    kind: str
    number: int
    text: str
    width: int
    size: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"


def draw(kind: str, count: int) -> list[Sample]:
    """The first samples of a kind. GroupNorm has 32 groups: at widths of 24 and 48 the head has BatchNorm."""
    space = nasdsl.load_space(resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas")
    rng = random.Random(SEEDS[kind])
    samples = []
    for number, filled in enumerate(space.samples(count, seed=SEEDS[kind])):
        width, size = rng.choice(WIDTHS), rng.choice(SIZES)
        norm = "bn" if width % 32 else "gn"
        text = str(filled).replace("fpn(width=64", f"fpn(width={width}")
        text = text.replace("head(width=64, norm=gn", f"head(width={width}, norm={norm}")
        samples.append(Sample(kind, number, text, width, size))
    return samples


def predictor(folder: Path) -> LatencyPredictor:
    return LatencyPredictor("onnxruntime", 1, BACKBONE, classes=CLASSES, table=folder / "table.json")


def read_lines(folder: Path) -> list[dict[str, Any]]:
    file = folder / "measured.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(folder: Path, calibration: int, samples: int, repeats: int) -> None:
    """Measure what is not yet measured: all once, then the first `repeats` samples again."""
    context = Context.here("onnxruntime", 1)
    done = {(line["name"], line["turn"]) for line in read_lines(folder)}
    wanted = [(sample, 0) for sample in (*draw("calibration", calibration), *draw("sample", samples))]
    wanted += [(sample, 1) for sample in draw("sample", min(repeats, samples))]
    todo = [(sample, turn) for sample, turn in wanted if (sample.name, turn) not in done]
    for count, (sample, turn) in enumerate(todo, 1):
        began = time.perf_counter()
        found = predictor(folder).predict(sample.text, size=sample.size)
        parts_s = time.perf_counter() - began
        line = {
            "name": sample.name,
            "turn": turn,
            "width": sample.width,
            "size": list(sample.size),
            **measure(sample, context, Table(folder / "table.json").times(context).reference),
            "new_parts": found.measured,
            "parts_s": round(parts_s, 1),
            "load": round(os.getloadavg()[0], 1),
            "text": sample.text,
        }
        with open(folder / "measured.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        left = (len(todo) - count) * (time.perf_counter() - began) / 60
        print(
            f"{count} of {len(todo)}: {sample.name}, {sample.width}, {sample.size[0]}x{sample.size[1]}: "
            f"{found.total:.2f} predicted, {line['relative']:.2f} measured (reference times); {found.measured} new parts; "
            f"load {line['load']}; {left:.0f} min left",
            flush=True,
        )


def measure(sample: Sample, context: Context, pace: float | None) -> dict[str, Any]:
    """Build, export and time a detector."""
    built = nasdsl.detector(nasdsl.loads(sample.text), BACKBONE, classes=CLASSES, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "detector.onnx"
        nasdsl.export_detector(built, file, size=sample.size)
        session = open_session(find_artifact(file), threads=1)
        found = Measurer(context, EFFORT, pace).measure_whole(session.run)
        session.close()
    return {
        "relative": round(found.relative, 4),
        "milliseconds": round(found.milliseconds, 3),
        "reference_milliseconds": round(found.reference, 4),
        "disturbed": found.disturbed,
    }


def calibrate(folder: Path, lines: list[dict[str, Any]], context: Context) -> Times:
    """Fit the table's correction to the calibration's detectors, and to nothing else."""
    table = Table(folder / "table.json")
    for line in lines:
        if line["name"].startswith("calibration"):
            found = predictor(folder).predict(line["text"], size=tuple(line["size"]))
            with table.lock():
                table.add_detector(context, line["name"], found.total, line["relative"])
    return table.times(context)


def report(folder: Path, plot: Path | None) -> None:
    """Predict all samples, write samples.csv, print the figures, and draw the plot."""
    lines = read_lines(folder)
    times = calibrate(folder, lines, Context.here("onnxruntime", 1))
    reference, correction = times.reference, times.correction
    assert reference is not None
    print(correction)
    first = {line["name"]: line for line in lines if line["turn"] == 0 and line["name"].startswith("sample")}
    again = {line["name"]: line for line in lines if line["turn"] == 1}
    rows = []
    for name, line in first.items():
        found = predictor(folder).predict(line["text"], size=tuple(line["size"]))
        sections = {section: round(value, 3) for section, value in found.sections.items()}
        turns = [line["relative"], *([again[name]["relative"]] if name in again else [])]
        rows.append(
            {
                "sample": name.split()[1],
                "width": line["width"],
                "size": f"{line['size'][0]}x{line['size'][1]}",
                "measured_ms": round(reference * statistics.fmean(turns), 3),
                "predicted_ms": round(found.milliseconds, 3),
                "sum_of_parts_ms": round(found.total * reference, 3),
                **sections,
            }
        )
    with open(folder / "samples.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    measured = [row["measured_ms"] for row in rows]
    print(f"{len(rows)} samples, {min(measured):.1f} to {max(measured):.1f} ms")
    for column in ("predicted_ms", "sum_of_parts_ms"):
        errors = [row[column] / row["measured_ms"] - 1 for row in rows]
        sizes = sorted(abs(error) for error in errors)
        print(
            f"{column}: Spearman {spearmanr([row[column] for row in rows], measured).statistic:.3f}, median error "
            f"{statistics.median(sizes):.1%}, 90 % below {sizes[int(0.9 * len(sizes))]:.1%}, largest {sizes[-1]:.1%}, bias "
            f"{statistics.median(errors):+.1%}"
        )
    for column in ("width", "size"):
        for value in sorted({row[column] for row in rows}):
            own = [row for row in rows if row[column] == value]
            errors = [row["predicted_ms"] / row["measured_ms"] - 1 for row in own]
            pair = spearmanr([row["predicted_ms"] for row in own], [row["measured_ms"] for row in own]).statistic
            print(
                f"  {column} {value}: {len(own)} samples, Spearman {pair:.3f}, median error "
                f"{statistics.median(map(abs, errors)):.1%}, bias {statistics.median(errors):+.1%}"
            )
    if again:
        twice = [abs(line["relative"] / first[name]["relative"] - 1) for name, line in again.items() if name in first]
        print(f"two measurements of the same {len(twice)} samples differ by {statistics.median(twice):.1%} (median)")
    loads = [line["load"] for line in lines]
    print(f"load of the machine {min(loads)} to {max(loads)}")
    if plot is not None:
        draw_plot(rows, plot)


def draw_plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5.4), layout="constrained")
    limits = [0.85 * min(row["measured_ms"] for row in rows), 1.15 * max(row["measured_ms"] for row in rows)]
    axes.plot(limits, limits, color="0.4", linewidth=1)
    axes.fill_between(
        limits, [0.9 * x for x in limits], [1.1 * x for x in limits], color="0.9", label="within 10 %", linewidth=0
    )
    for (height, width), marker in zip(SIZES, "os^", strict=True):
        own = [row for row in rows if row["size"] == f"{height}x{width}"]
        x, y = ([row[column] for row in own] for column in ("measured_ms", "predicted_ms"))
        axes.scatter(x, y, s=22, marker=marker, label=f"{height}x{width}", alpha=0.8)
    ticks = [tick for tick in (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320) if limits[0] < tick < limits[1]]
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel="measured, ms", ylabel="predicted, ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
        axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_title(f"{len(rows)} samples of the paper's fpn space, MobileNetV2,\nonnxruntime, one thread", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=["run", "report"])
    parser.add_argument("--out", required=True, type=Path, help="folder of the results")
    parser.add_argument("--calibration", type=int, default=12)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30, help="samples that are measured twice")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step == "run":
        run(given.out, given.calibration, given.samples, given.repeats)
    else:
        report(given.out, given.plot)


if __name__ == "__main__":
    sys.exit(main())
