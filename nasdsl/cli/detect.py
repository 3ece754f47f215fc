"""``nasdsl detect``: run a trained detector on images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nasdsl.cli.errors import USAGE, exit_on_error, fail
from nasdsl.cli.files import dataset_options, load_detector_for_inference
from nasdsl.cli.options import DEVICE
from nasdsl.cli.output import echo_err, pluralize

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.detection.detector import Detector

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
"""Files of a folder with these suffixes are taken for images. A file named by itself is always read."""

SHEET_NAME = "sheet.png"
"""File that --sheet writes."""

MAX_IN_SHEET = 24
"""Images on a sheet; with more, each would be too small to see."""


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE…]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", "spec", metavar="SPEC", help="Dataset to take images from instead of files; see `nasdsl train`.")
@click.option("--split", help="Split of that dataset.  [default: test, or val if it has no test]")
@click.option("--first", metavar="N", type=click.IntRange(1), help="Take only the first N images of it.  [default: all]")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Output folder; created if it does not exist.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="Lowest score of a detection that is drawn.",
)
@click.option("--sheet", is_flag=True, help=f"Also draw the first {MAX_IN_SHEET} images side by side, in {SHEET_NAME}.")
@click.option("--no-pictures", is_flag=True, help="Do not write an image with boxes for each input.")
@DEVICE
def detect(
    run: Path,
    images: tuple[Path, ...],
    spec: str | None,
    split: str | None,
    first: int | None,
    out: Path,
    threshold: float,
    sheet: bool,
    no_pictures: bool,
    device: str | None,
) -> None:
    """Run a trained detector on images.

    RUN is the folder of a training or its model.pt. IMAGE is an image file or a folder of images.

    DIR gets a PNG of each image with the boxes drawn, and detections.json, which holds all detections in COCO's format,
    also those below --threshold.
    """
    if bool(images) == bool(spec):
        raise click.UsageError("expected either images (IMAGE…) or a dataset (--data)")
    with exit_on_error():
        from nasdsl.data import UnreadableImage
        from nasdsl.detection.visualization import contact_sheet, draw_detections, write_png

        detector = load_detector_for_inference(run, device)
        reserved = {SHEET_NAME} if sheet else set()
        sources = list(_files(images, out, reserved) if spec is None else _samples(detector, run, spec, split, first))
        if not sources:
            fail(f"no images in {', '.join(map(str, images))}")
        out.mkdir(parents=True, exist_ok=True)
        annotations = _Annotations(detector)
        drawn: list[Any] = []
        unreadable = 0
        for source in sources:
            try:
                image = source.read()
            except UnreadableImage as error:
                echo_err(f"nasdsl: {error}")
                unreadable += 1
                continue
            detections = detector.detect(image)
            annotations.add(source.name, image.shape[-2:], detections)
            message = f"{source.name}: {pluralize(int((detections['scores'] >= threshold).sum()), 'object')}"
            on_sheet = sheet and len(drawn) < MAX_IN_SHEET
            if on_sheet or not no_pictures:
                annotated = draw_detections(image, detections, detector.classes, threshold)
                drawn += [annotated] if on_sheet else []
                if not no_pictures:
                    write_png(out / source.target, annotated)
                    message += f", drawn in {out / source.target}"
            echo_err(message)
        path = out / "detections.json"
        text = json.dumps(annotations.value, ensure_ascii=False)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")  # file names may not be UTF-8
        if drawn:
            write_png(out / SHEET_NAME, contact_sheet(drawn))
            echo_err(f"wrote {out / SHEET_NAME}")
    echo_err(f"wrote {path}")
    if unreadable:
        echo_err(f"{pluralize(unreadable, 'image')} could not be read")
        sys.exit(USAGE)


class _Source(NamedTuple):
    """An input image: its name, the file written for it, and where it is read from."""

    name: str
    target: str
    origin: Path | tuple[Dataset, int]

    def read(self) -> Any:  # a tensor, uint8 [3, H, W]
        from nasdsl.data import read_image

        return read_image(self.origin) if isinstance(self.origin, Path) else self.origin[0][self.origin[1]].image


def _files(images: Sequence[Path], out: Path, reserved: set[str]) -> Iterator[_Source]:
    """Images from files and folders.

    Raises:
        UsageError: an image would be overwritten by one of the `reserved` files in `out`.
    """
    files = list(dict.fromkeys(_image_files(images)))
    for file in files:
        if file.name.lower() in reserved and file.resolve().parent == out.resolve():
            raise click.UsageError(f"{file} would be overwritten; give another folder by -o, or leave --sheet out")
    names = _output_names(files, out, reserved)
    return (_Source(str(file), names[file], file) for file in files)


def _samples(detector: Detector, run: Path, spec: str, split: str | None, first: int | None) -> Iterator[_Source]:
    """Images of a dataset."""
    from nasdsl.data import has_split, open_dataset

    if split is None:
        split = "test" if has_split(spec, "test") else "val"
    data = open_dataset(spec, split, **dataset_options(detector, run))
    echo_err("\n".join(data.summary()))
    for index in range(len(data) if first is None else min(first, len(data))):
        # Image ids may be any string, such as a path.
        name = str(data.image_id(index)).replace("/", "_").replace("\\", "_")
        yield _Source(data.file(index), f"{name}.png", (data, index))


class _Annotations:
    """Detections in COCO's annotation format, which pycocotools reads; unlike COCO results it has the file names."""

    def __init__(self, detector: Detector) -> None:
        self.category_ids = detector.category_ids
        categories = zip(detector.category_ids, detector.classes, strict=True)
        self.value: dict[str, Any] = {
            "images": [],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [],
        }

    def add(self, name: str, size: Any, detections: Any) -> None:
        image_id = len(self.value["images"]) + 1
        self.value["images"].append({"id": image_id, "file_name": name, "height": int(size[0]), "width": int(size[1])})
        for box, label, score in zip(
            detections["boxes"].tolist(), detections["labels"].tolist(), detections["scores"].tolist(), strict=True
        ):
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


def _image_files(images: Sequence[Path]) -> Iterator[Path]:
    for image in images:
        if image.is_dir():
            yield from sorted(p for p in image.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        else:
            yield image


def _output_names(files: list[Path], out: Path, reserved: set[str]) -> dict[Path, str]:
    """Name of the PNG that is written to `out` for each image: its stem, with a number if the name is taken.

    A name is taken by another image's output, by an image that is read from `out`, and if it is `reserved`.
    """
    names: dict[Path, str] = {}
    taken = reserved | {file.name.lower() for file in files if file.resolve().parent == out.resolve()}
    for file in files:
        name, number = f"{file.stem}.png", 2
        while name.lower() in taken:
            name, number = f"{file.stem}_{number}.png", number + 1
        taken.add(name.lower())
        names[file] = name
    return names
