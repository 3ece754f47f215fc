"""detect: what a trained detector finds in pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nasdsl.cli.errors import USAGE, fail, refusals
from nasdsl.cli.files import classes_of, load_run
from nasdsl.cli.options import DEVICE
from nasdsl.cli.output import count, say

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.detection.detector import Detector

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
"""Files of a folder that are taken for pictures; a file that is named itself is always read."""

SHEET = "sheet.png"
"""The file of `--sheet`."""

MOST_IN_SHEET = 24
"""Pictures on a sheet; further ones would only be small."""


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE…]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", "spec", metavar="SPEC", help="Pictures of a data set instead of files: voc:DIR, coco:DIR, shapes.")
@click.option("--split", default="test", show_default=True, help="Part of that data set.")
@click.option("--first", type=click.IntRange(1), help="So many pictures of it. [default: all]")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for what is written; made where there is none.",
)
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Lowest score that is drawn.")
@click.option("--sheet", is_flag=True, help=f"Also draw the first {MOST_IN_SHEET} side by side, as {SHEET}.")
@click.option("--no-pictures", is_flag=True, help="Write no picture of its own for each.")
@DEVICE
def detect(
    run: Path,
    images: tuple[Path, ...],
    spec: str | None,
    split: str,
    first: int | None,
    out: Path,
    threshold: float,
    sheet: bool,
    no_pictures: bool,
    device: str | None,
) -> None:
    """Find objects in pictures: each with its boxes drawn as a PNG, and all detections in COCO's format.

    IMAGE is a picture or a folder of them. DIR/detections.json has every detection, also those too weak to be drawn.
    """
    if bool(images) == bool(spec):
        raise click.UsageError("expected either pictures (IMAGE…) or a data set (--data)")
    with refusals():
        from nasdsl.data import UnreadableImage
        from nasdsl.detection.drawing import contact_sheet, draw_detections, write_picture

        detector = load_run(run, device)
        reserved = {SHEET} if sheet else set()
        sources = list(_files(images, out, reserved) if spec is None else _samples(detector, spec, split, first))
        if not sources:
            fail(f"no pictures in {', '.join(map(str, images))}")
        out.mkdir(parents=True, exist_ok=True)
        document = _Document(detector)
        drawn: list[Any] = []
        refused = 0
        for source in sources:
            try:
                image = source.read()
            except UnreadableImage as error:
                say(f"nasdsl: {error}")
                refused += 1
                continue
            found = detector.detect(image)
            document.add(source.name, image.shape[-2:], found)
            told = f"{source.name}: {count(int((found['scores'] >= threshold).sum()), 'object')}"
            shown = sheet and len(drawn) < MOST_IN_SHEET
            if shown or not no_pictures:
                picture = draw_detections(image, found, detector.classes, threshold)
                drawn += [picture] if shown else []
                if not no_pictures:
                    write_picture(out / source.target, picture)
                    told += f", drawn in {out / source.target}"
            say(told)
        path = out / "detections.json"
        text = json.dumps(document.value, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")  # names of files that are no UTF-8
        if drawn:
            write_picture(out / SHEET, contact_sheet(drawn))
            say(f"wrote {out / SHEET}")
    say(f"wrote {path}")
    if refused:
        say(f"{count(refused, 'picture')} could not be read")
        sys.exit(USAGE)


class _Source(NamedTuple):
    """A picture: what it is called, the file that is written for it, and where it comes from."""

    name: str
    target: str
    place: Path | tuple[Dataset, int]

    def read(self) -> Any:  # a tensor, uint8 [3, H, W]
        from nasdsl.data import read_image

        return read_image(self.place) if isinstance(self.place, Path) else self.place[0][self.place[1]].image


def _files(images: Sequence[Path], out: Path, reserved: set[str]) -> Iterator[_Source]:
    """
    Raises:
        UsageError: a picture that is to be read lies where something else will be written.
    """
    files = list(dict.fromkeys(_pictures(images)))
    for file in files:
        if file.name.lower() in reserved and file.resolve().parent == out.resolve():
            raise click.UsageError(f"{file} would be overwritten; give another folder by -o, or leave --sheet out")
    names = _output_names(files, out, reserved)
    return (_Source(str(file), names[file], file) for file in files)


def _samples(detector: Detector, spec: str, split: str, first: int | None) -> Iterator[_Source]:
    from nasdsl.data import open_dataset

    data = open_dataset(spec, split, **classes_of(detector, spec))
    say("\n".join(data.summary()))
    for index in range(len(data) if first is None else min(first, len(data))):
        # Ids may be any string, such as a path.
        name = str(data.image_id(index)).replace("/", "_").replace("\\", "_")
        yield _Source(data.file(index), f"{name}.png", (data, index))


class _Document:
    """Detections in COCO's annotation format: pycocotools reads it, and people find file names in it."""

    def __init__(self, detector: Detector) -> None:
        self.category_ids = detector.category_ids
        categories = zip(detector.category_ids, detector.classes, strict=True)
        self.value: dict[str, Any] = {
            "images": [],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [],
        }

    def add(self, name: str, size: Any, found: Any) -> None:
        image_id = len(self.value["images"]) + 1
        self.value["images"].append({"id": image_id, "file_name": name, "height": int(size[0]), "width": int(size[1])})
        for box, label, score in zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True):
            x, y, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
            self.value["annotations"].append(
                {
                    "id": len(self.value["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": self.category_ids[label],
                    "bbox": [round(v, 2) for v in (x, y, width, height)],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "score": round(score, 5),
                }
            )


def _pictures(images: Sequence[Path]) -> Iterator[Path]:
    for image in images:
        if image.is_dir():
            yield from sorted(p for p in image.iterdir() if p.suffix.lower() in PICTURES and p.is_file())
        else:
            yield image


def _output_names(files: list[Path], out: Path, reserved: set[str]) -> dict[Path, str]:
    """A file name in `out` for each picture: its own stem; numbered where two share one, or a picture itself has it, or it is
    reserved for something else."""
    names: dict[Path, str] = {}
    taken = reserved | {file.name.lower() for file in files if file.resolve().parent == out.resolve()}
    for file in files:
        name, number = f"{file.stem}.png", 2
        while name.lower() in taken:
            name, number = f"{file.stem}_{number}.png", number + 1
        taken.add(name.lower())
        names[file] = name
    return names
