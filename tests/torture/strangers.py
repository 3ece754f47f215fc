"""Files of strangers: each kind of file that the package reads, damaged and hostile, read by what reads it.

None runs code, each is read or refused with a message within a second of processor time, and memory stays bounded.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from data_folders import picture, voc_object, voc_xml

from nasdsl.data import open_dataset
from nasdsl.decoder import check_source
from nasdsl.detection.backbones import weights as backbone_weights
from nasdsl.detection.weights import read_weights
from nasdsl.diagnostics import DiagnosticError, is_message
from nasdsl.evaluation.ground_truth import read_ground_truth
from nasdsl.importers.nas_fcos import read_config as read_nas_fcos
from nasdsl.importers.yolo.text import yolo_text
from nasdsl.latency.table import Context, Table
from nasdsl.report.search.data import read_search
from nasdsl.report.training.data import read_training
from nasdsl.search import search
from nasdsl.search.config import read_config
from nasdsl.search.journal import read_journal
from nasdsl.search.ranking import read_ranking
from nasdsl.semantics.files import read_source
from nasdsl.spaces import loads_space
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.run import Run
from torture.attacks import ATTACKS, WAS_RUN, on_bytes, on_place
from torture.subject import Case, Report, Subject

SECONDS = 1.0
# --------------------------------------------------------------------------------------------------- readers


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes right ones into a folder; gives the one to attack.
        read: reads what was made, given the attacked file.
        form: of its content: which attacks fit it.
        errors: that the reader may also raise, with a message for users.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    form: str
    errors: tuple[type[Exception], ...] = ()


def _written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _json(name: str, value: object) -> Callable[[Path], Path]:
    return lambda folder: _written(folder / name, json.dumps(value))


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "thing"}],
}
DECODER = "decoder d { input c3 fpn(width=32) { output p3 = conv_3x3(c3) } head(width=32) { conv_3x3 } predict fcos }"
SPACE = DECODER.replace("conv_3x3(c3)", "?(conv_3x3 | relu)(c3)")
RUN = {
    "format": "nasdsl run 1", "detector": {"decoder": DECODER, "classes": ["thing"]}, "recipe": {"steps": 2},
    "data": {"spec": "shapes"}, "about": {"command": "nasdsl train"}, "versions": {"nasdsl": "0.1.0"},
}  # fmt: skip
LOG = [
    {"event": "train", "step": 1, "losses": {"a": 1.5}, "seconds": 1.0, "images": 4},
    {"event": "evaluation", "step": 1, "AP": 0.5},
]
RANKING = {
    "format": "nasdsl ranking 1", "split": "val", "size": [64, 64],
    "entries": [
        {
            "name": "d", "trial": 0, "proxy_rank": 1, "reward": 1.0, "verdict": "ok", "ap": 0.5, "ap50": 0.5, "macs": 1,
            "params": 1, "seconds": 1.0, "text": DECODER, "folder": "d", "error": None,
        }
    ],
}  # fmt: skip
NAS_FCOS = """SEARCH:
  DECODER:
    CONFIG: [[0, 1, 2, 3, 0], [1, 2, 0, 0, 1], [0, 4, 1, 1, 0], [2, 3, 0, 4, 0], [4, 0, 1, 2, 1],
      [5, 1, 0, 0, 0], [6, 2, 3, 3, 1], [0], [0, 1, 2, 3, 4, 5]]
"""
YOLO_MODEL = """nc: 80
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, Conv, [256, 3, 2]]
head:
  - [-1, 1, Conv, [256, 3, 1]]
  - [[3], 1, Detect, [nc]]
"""
SETTINGS = {"format": "nasdsl search run 1"}
TENSORS = {"conv1.weight": torch.ones(8, 3, 3, 3), "fc.bias": torch.zeros(4)}


def _coco(folder: Path) -> Path:
    picture(folder / "images" / "a.jpg")
    return _written(folder / "annotations" / "instances_train.json", json.dumps(COCO))


def _voc(folder: Path) -> Path:
    picture(folder / "JPEGImages" / "a.jpg")
    _written(folder / "ImageSets" / "Main" / "train.txt", "a\n")
    return _written(folder / "Annotations" / "a.xml", voc_xml([voc_object("thing", 5, 5, 20, 20)]))


def _yolo(folder: Path) -> Path:
    picture(folder / "images" / "train" / "a.jpg")
    _written(folder / "data.yaml", "train: images/train\nnames: [thing]\n")
    return _written(folder / "labels" / "train" / "a.txt", "0 0.5 0.5 0.2 0.2\n")


def _read_data(root: Path) -> None:
    data = open_dataset(str(root), "train")
    for index in range(len(data)):
        data[index]


def _picture(folder: Path) -> Path:
    _coco(folder)
    return folder / "images" / "a.jpg"


def _lines(name: str, records: list[dict[str, Any]]) -> Callable[[Path], Path]:
    return lambda folder: _written(folder / name, "".join(json.dumps(record) + "\n" for record in records))


@cache
def _searched() -> dict[str, bytes]:
    """The files of a search."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "search"
        search(loads_space(SPACE), lambda text: -len(text), "evolution", 4, out=out, quiet=True)
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def _search(folder: Path) -> Path:
    for name, content in _searched().items():
        _written(folder / name, content)
    return folder / "journal.jsonl"


def _run(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _json("config.json", RUN)(folder)
        _lines("log.jsonl", LOG)(folder)
        _json("metrics.json", {"AP": 0.5, "classes": [{"name": "thing", "AP": 0.5}]})(folder)
        return folder / name

    return make


def _saved(name: str, content: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(content, folder / name)
        return folder / name

    return make


def _checkpoint(folder: Path) -> Path:
    save_checkpoint(folder / "checkpoint.pt", {"step": 1, "weights": TENSORS})
    return folder / "checkpoint.pt"


def _npz(folder: Path) -> Path:
    np.savez(folder / "w.npz", **{name: value.numpy() for name, value in TENSORS.items()})
    return folder / "w.npz"


KINDS: Mapping[str, Kind] = {
    "decoder": Kind(lambda f: _written(f / "d.nas", DECODER), lambda p: check_source(read_source(p), path=p), "text"),
    "checkpoint": Kind(_checkpoint, load_checkpoint, "torch"),
    "weights": Kind(_saved("model.pt", TENSORS), read_weights, "torch"),
    "weights of a backbone": Kind(_saved("backbone.pth", TENSORS), backbone_weights.read_file, "torch"),
    "weights in npz": Kind(_npz, backbone_weights.read_file, "torch"),
    "journal": Kind(_search, read_journal, "json"),
    "report of a search": Kind(_search, lambda p: read_search(p.parent), "json"),
    "settings of a search": Kind(_json("search.json", SETTINGS), lambda p: read_config(p.parent), "json"),
    "ranking": Kind(_json("ranking.json", RANKING), read_ranking, "json"),
    "configuration of a training": Kind(_run("config.json"), lambda p: Run(p.parent).read_config(), "json"),
    "report of a training": Kind(_run("config.json"), lambda p: read_training(p.parent), "json"),
    "log of a training": Kind(_run("log.jsonl"), lambda p: read_training(p.parent), "json"),
    "metrics of a training": Kind(_run("metrics.json"), lambda p: read_training(p.parent), "json"),
    "ground truth": Kind(_json("truth.json", COCO), read_ground_truth, "json"),
    "table of latencies": Kind(
        _json("latency.json", {"format": 1, "contexts": []}), lambda p: Table(p).times(Context.here("torch", 1)), "json"
    ),
    "annotations of COCO": Kind(_coco, lambda p: _read_data(p.parents[1]), "json"),
    "annotation of VOC": Kind(_voc, lambda p: _read_data(p.parents[1]), "xml"),
    "labels of YOLO": Kind(_yolo, lambda p: _read_data(p.parents[2]), "text"),
    "data.yaml": Kind(lambda f: (_yolo(f), f / "data.yaml")[1], lambda p: _read_data(p.parent), "yaml"),
    "picture": Kind(_picture, lambda p: _read_data(p.parents[1]), "bytes"),
    "model file of YOLO": Kind(
        lambda f: _written(f / "yolo.yaml", YOLO_MODEL),
        lambda p: yolo_text(read_source(p), "y"),
        "yaml",
    ),
    "configuration of NAS-FCOS": Kind(lambda f: _written(f / "nas.yaml", NAS_FCOS), read_nas_fcos, "yaml", (ValueError,)),
}


def is_refusal(error: Exception) -> bool:
    """Whether an error is what a reader may say: a message of the package, or of the system about the file."""
    return is_message(error) or isinstance(error, DiagnosticError) or (isinstance(error, OSError) and error.errno is not None)


def attack(number: int, report: Report, folder: Path) -> None:
    """Make the file of a case, attack it, read it."""
    rng = random.Random(f"stranger {number}")
    name = list(KINDS)[number % len(KINDS)]
    kind = KINDS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    marker = folder.parent / WAS_RUN
    path = kind.make(folder)
    own = ATTACKS.get(kind.form)
    how = rng.choice([on_bytes, on_place, *[own] * (3 if own else 0)])
    said = how(path, rng, marker)
    report.about(f"{name}: {said}")
    report.count(f"read: {name}")
    with report.step(name, SECONDS):
        try:
            kind.read(path)
        except Exception as error:
            if not isinstance(error, kind.errors) and not is_refusal(error):
                raise
            report.count("refused with a message")
        else:
            report.count("read")
    if marker.exists():
        marker.unlink()
        report.finding("code of the file was run")


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Files are written into a folder of `folder`."""
    torch.set_num_threads(1)
    yield lambda number, report: attack(number, report, folder / "files")


SUBJECT = Subject("strangers", "files", 20_000, start, hang=30, megabytes=1500, per_process=2000)
