"""Small data sets in VOC's, COCO's and YOLO's form with one thing in them that is wrong, or only unusual."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMS = ("voc", "coco", "yolo")
CLASSES = ("cat", "dog")
PICTURES = 6
SECRET = "the content of another file"

NAMED, FINE, ANY = "named", "fine", "any"
"""What must happen to the broken part: it is named and the rest is used; it is used; either, or an error that names a file."""


@dataclass
class Annotation:
    """One picture and its boxes."""

    file: str
    size: tuple[int, int] = (40, 60)
    boxes: list[tuple[Any, Any, Any, Any, Any]] = field(default_factory=list)  # class, x1, y1, x2, y2


@dataclass
class Set:
    """A data set that is being broken.

    Attributes:
        root: its folder.
        entries: what is annotated; those that are changed here are written so.
        after: changes of the files, when all are written.
    """

    root: Path
    form: str
    rng: random.Random
    entries: list[Annotation] = field(default_factory=list)
    after: list[Callable[[], object]] = field(default_factory=list)

    @property
    def pictures(self) -> Path:
        return self.root / {"voc": "JPEGImages", "coco": "train", "yolo": "images/train"}[self.form]

    def annotation(self, entry: Annotation) -> Path:
        """The file that has a picture's boxes."""
        stem = Path(entry.file).stem
        places = {
            "voc": f"Annotations/{stem}.xml",
            "coco": "annotations/instances_train.json",
            "yolo": f"labels/train/{stem}.txt",
        }
        return self.root / places[self.form]

    def write(self) -> None:
        """Write pictures and annotations, then break them."""
        self.pictures.mkdir(parents=True)
        self.annotation(self.entries[0]).parent.mkdir(parents=True, exist_ok=True)
        for number, entry in enumerate(self.entries):
            noise = np.random.default_rng(number).integers(0, 256, (*entry.size, 3), dtype=np.uint8)
            path = self.pictures / entry.file
            if not path.exists():
                Image.fromarray(noise).save(path)
            if self.form == "voc":
                self.annotation(entry).write_text(voc(entry))
            if self.form == "yolo":
                self.annotation(entry).write_text("".join(yolo(box, entry.size) for box in entry.boxes))
        if self.form == "voc":
            lists = self.root / "ImageSets" / "Main"
            lists.mkdir(parents=True)
            for split in ("train", "val"):
                (lists / f"{split}.txt").write_text("".join(f"{Path(e.file).stem}\n" for e in self.entries))
        if self.form == "yolo":
            (self.root / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
        if self.form == "coco":
            self.annotation(self.entries[0]).write_text(json.dumps(coco(self.entries)))
        for change in self.after:
            change()


def voc(entry: Annotation) -> str:
    things = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in entry.boxes
    )
    size = f"<size><width>{entry.size[1]}</width><height>{entry.size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{entry.file}</filename>{size}{things}</annotation>"


def yolo(box: tuple[Any, Any, Any, Any, Any], size: tuple[int, int]) -> str:
    name, *sides = box
    label = CLASSES.index(name) if name in CLASSES else 99
    x1, y1, x2, y2 = (float(side) for side in sides)
    h, w = size
    return f"{label} {(x1 + x2) / 2 / w} {(y1 + y2) / 2 / h} {(x2 - x1) / w} {(y2 - y1) / h}\n"


def coco(entries: list[Annotation]) -> dict[str, Any]:
    boxes: list[dict[str, Any]] = []
    for image, entry in enumerate(entries, 1):
        for name, x1, y1, x2, y2 in entry.boxes:
            label = CLASSES.index(name) + 1 if name in CLASSES else 99
            box = [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    images = [{"id": n, "file_name": e.file, "height": e.size[0], "width": e.size[1]} for n, e in enumerate(entries, 1)]
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
    }


# ---------------------------------------------------------------------------------------------- what is wrong


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def noise(size: tuple[int, int] = (40, 60), mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


def with_content(data: bytes, name: str | None = None) -> Callable[[Set], str]:
    """The first picture has this content."""

    def change(broken: Set) -> str:
        if name is not None:
            broken.entries[0].file = name
        path = broken.pictures / broken.entries[0].file
        broken.after.append(lambda: path.write_bytes(data))
        return broken.entries[0].file

    return change


def _cut(broken: Set, path: Path) -> str:
    def cut() -> None:
        data = path.read_bytes()
        path.write_bytes(data[: broken.rng.randrange(len(data))])

    broken.after.append(cut)
    return path.name


def truncated(broken: Set) -> str:
    return _cut(broken, broken.pictures / broken.entries[0].file)


def flipped(broken: Set) -> str:
    path = broken.pictures / broken.entries[0].file

    def flip() -> None:
        data = bytearray(path.read_bytes())
        for _ in range(broken.rng.choice((1, 5, 50))):
            data[broken.rng.randrange(len(data))] ^= 1 << broken.rng.randrange(8)
        path.write_bytes(data)

    broken.after.append(flip)
    return path.name


def turned(broken: Set) -> str:
    """EXIF in one of its eight turns, annotated as it is to be seen."""
    turn = broken.rng.randrange(1, 9)
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = (40, 60) if turn <= 4 else (60, 40)
    return with_content(encoded(noise(stored), "JPEG", exif=exif), "turned.jpg")(broken)


def of_size(height: int, width: int) -> Callable[[Set], str]:
    def change(broken: Set) -> str:
        broken.entries[0].size = (height, width)
        broken.entries[0].boxes = [("cat", 0, 0, min(width, 60), height)]
        if broken.form == "voc":
            broken.entries[0].boxes = [("cat", 1, 1, min(width, 60), height)]
        return broken.entries[0].file

    return change


def annotated_as(height: int, width: int) -> Callable[[Set], str]:
    def change(broken: Set) -> str:
        entry = broken.entries[0]
        entry.size = (height, width)
        path = broken.pictures / entry.file
        broken.after.append(lambda: path.write_bytes(encoded(noise(), "PNG")))
        return entry.file

    return change


def with_box(name: Any, *box: Any) -> Callable[[Set], str]:
    def change(broken: Set) -> str:
        entry = broken.entries[0]
        entry.boxes = [*entry.boxes, (name, *box)]
        return Path(entry.file).stem if broken.form != "coco" else "annotations"

    return change


def replaced(make: Callable[[Set], bytes]) -> Callable[[Set], str]:
    """The file of the first picture's annotation has this content."""

    def change(broken: Set) -> str:
        path = broken.annotation(broken.entries[0])
        broken.after.append(lambda: path.write_bytes(make(broken)))
        return path.name

    return change


def cut_annotation(broken: Set) -> str:
    return _cut(broken, broken.annotation(broken.entries[0]))


def missing(broken: Set) -> str:
    path = broken.pictures / broken.entries[0].file
    broken.after.append(path.unlink)
    return path.name


def linked(kind: str) -> Callable[[Set], str]:
    def change(broken: Set) -> str:
        path = broken.pictures / broken.entries[0].file

        def link() -> None:
            path.unlink()
            path.symlink_to({"itself": path.name, "nothing": "nowhere.png", "a device": "/dev/zero"}[kind])

        def circle() -> None:
            (broken.pictures / "deeper").symlink_to("..", target_is_directory=True)

        broken.after.append(circle if kind == "a circle" else link)
        return path.name

    return change


def folder(broken: Set) -> str:
    path = broken.pictures / broken.entries[0].file
    broken.after.append(lambda: (path.unlink(), path.mkdir()))
    return path.name


def doubled(broken: Set) -> str:
    """An id, or a name in a list, twice."""
    if broken.form == "coco":
        broken.after.append(lambda: broken.annotation(broken.entries[0]).write_text(json.dumps(_doubled(broken))))
    if broken.form == "voc":
        file = broken.root / "ImageSets" / "Main" / "train.txt"
        broken.after.append(lambda: file.write_text(2 * file.read_text()))
    if broken.form == "yolo":
        broken.entries[0].boxes *= 2
    return broken.entries[0].file


def _doubled(broken: Set) -> dict[str, Any]:
    content = coco(broken.entries)
    content["images"].append(content["images"][0])
    content["annotations"].append(content["annotations"][0])
    return content


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "lol">{ENTITIES}]><annotation>&e11;</annotation>'
ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))

WRONG_KINDS = b'{"images": [7, null, {"id": {}}], "annotations": [[]], "categories": [{"id": 1, "name": "cat"}]}'


def external(broken: Set) -> bytes:
    (broken.root / "secret.txt").write_text(SECRET)
    where = broken.root / "secret.txt"
    return (
        f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e SYSTEM "file://{where}">]><annotation><filename>x</filename>'
        "<object><name>&e;</name></object></annotation>"
    ).encode()


def configured(text: str) -> Callable[[Set], str]:
    def change(broken: Set) -> str:
        broken.after.append(lambda: (broken.root / "data.yaml").write_text(text))
        return "data.yaml"

    return change


def nested(opening: str, megabytes: float) -> Callable[[Set], bytes]:
    return lambda broken: (opening * int(megabytes * 2**20 / len(opening))).encode()


NAN, INFINITY = float("nan"), float("inf")
PICTURE_CHANGES: dict[str, tuple[Callable[[Set], str], str]] = {
    "cut at any byte": (truncated, ANY),
    "flipped bits": (flipped, ANY),
    "alpha": (with_content(encoded(noise(mode="RGBA"), "PNG")), FINE),
    "grey with alpha": (with_content(encoded(noise(mode="LA"), "PNG")), FINE),
    "CMYK": (with_content(encoded(noise(mode="CMYK"), "JPEG"), "cmyk.jpg"), FINE),
    "16 bit": (with_content(encoded(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG")), FINE),
    "palette": (with_content(encoded(noise(mode="P"), "PNG", transparency=3)), FINE),
    "one bit": (with_content(encoded(noise(mode="1"), "PNG")), FINE),
    "floats": (with_content(encoded(noise(mode="F"), "TIFF"), "floats.tif"), NAMED),
    "turned by EXIF": (turned, FINE),
    "1x1": (of_size(1, 1), FINE),
    "30,000 pixels wide": (of_size(2, 30_000), FINE),
    "30,000 pixels high": (of_size(30_000, 2), FINE),
    "a bomb": (with_content(png_of_size(60_000, 60_000)), NAMED),
    "a smaller bomb": (with_content(png_of_size(13_000, 13_000)), NAMED),
    "negative size": (with_content(png_of_size(2**31 + 1, 7)), NAMED),
    "empty": (with_content(b""), NAMED),
    "text": (with_content(b"no picture\n" * 50), NAMED),
    "another size": (annotated_as(41, 61), NAMED),
    "missing": (missing, NAMED),
    "a link to itself": (linked("itself"), NAMED),
    "a link to nothing": (linked("nothing"), NAMED),
    "a link to a device": (linked("a device"), NAMED),
    "a circle of links": (linked("a circle"), FINE),
    "a folder": (folder, NAMED),
}
BOX_CHANGES: dict[str, tuple[Callable[[Set], str], str]] = {
    "inverted box": (with_box("cat", 30, 30, 10, 10), NAMED),
    "flat box": (with_box("cat", 10, 10, 10, 10.0), ANY),
    "negative box": (with_box("cat", -500, -500, -400, -400), ANY),
    "box across the edge": (with_box("cat", -10, -10, 30, 300), FINE),
    "nan box": (with_box("cat", NAN, 1, 20, 20), ANY),
    "infinite box": (with_box("cat", 1, 1, INFINITY, 20), ANY),
    "huge box": (with_box("cat", 1, 1, 1e308, 1e308), ANY),
    "very huge box": (with_box("cat", -1.7e308, 1, 1.7e308, 20), ANY),
    "unknown class": (with_box("zebra", 1, 1, 20, 20), ANY),
    "doubled": (doubled, ANY),
    "annotation cut at any byte": (cut_annotation, ANY),
    "empty annotation": (replaced(lambda broken: b""), ANY),
    "binary annotation": (replaced(lambda broken: broken.rng.randbytes(5000)), ANY),
    "lists in lists": (replaced(nested("[", 10)), ANY),
    "objects in objects": (replaced(nested('{"images":', 5)), ANY),
}
OF_FORM: dict[str, dict[str, tuple[Callable[[Set], str], str]]] = {
    "voc": {
        "bomb of entities": (replaced(lambda broken: BOMB.encode()), NAMED),
        "external entity": (replaced(external), NAMED),
        "elements in elements": (replaced(nested("<a>", 3)), NAMED),
        "a box of words": (with_box("cat", "a", "b", "c", "d"), NAMED),
        "a number of 10,000 digits": (with_box("cat", "9" * 10_000, 1, 2, 3), NAMED),
    },
    "coco": {
        "100 MB of lists": (replaced(nested("[", 100)), ANY),
        "no object": (replaced(lambda broken: b"[]"), ANY),
        "numbers of 10,000 digits": (replaced(lambda broken: b'{"images": [' + b"9" * 10_000 + b'], "annotations": []}'), ANY),
        "wrong kinds": (replaced(lambda broken: WRONG_KINDS), ANY),
    },
    "yolo": {
        "bomb of aliases": (configured(f"{ALIASES}train: *a11\nnames: [cat, dog]\n"), ANY),
        "bomb of aliases as names": (configured(f"{ALIASES}train: images/train\nnames: *a11\n"), ANY),
        "bomb of aliases as path": (configured(f"{ALIASES}path: *a11\ntrain: images/train\nnames: [cat, dog]\n"), ANY),
        "billions of classes": (configured("train: images/train\nnc: 4000000000\n"), ANY),
        "a number of classes of 5,000 digits": (configured(f"train: images/train\nnc: {'9' * 5000}\n"), ANY),
        "a class of 5,000 digits": (configured(f"train: images/train\nnames: {{{'9' * 5000}: cat}}\n"), ANY),
        "10,000 names": (configured("train: images/train\nnames:\n" + "".join(f"- n{n}\n" for n in range(10_000))), ANY),
        "sequences in sequences": (configured("train: " + "[" * 20_000), ANY),
    },
}  # fmt: skip


def changes_of(form: str) -> dict[str, tuple[Callable[[Set], str], str]]:
    return PICTURE_CHANGES | BOX_CHANGES | OF_FORM[form]


ALL = [(form, name) for form in FORMS for name in changes_of(form)]
