"""Writers of one and the same data set in every layout of folders that is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from data_folders import picture, voc_object, voc_xml

CLASSES = ("cat", "dog", "zebra crossing")


@dataclass(frozen=True)
class Labelled:
    """An image with boxes.

    Attributes:
        split: train, val or test.
        stem: of its file.
        image: the file, to be copied.
        size: (H, W).
        boxes: class and xyxy, continuous and 0-based, in whole pixels.
    """

    split: str
    stem: str
    image: Path
    size: tuple[int, int]
    boxes: tuple[tuple[str, float, float, float, float], ...]


def small_set(folder: Path) -> list[Labelled]:
    """Twelve small images of two sizes, one of them without objects."""
    images = []
    for number in range(12):
        size = (40, 60) if number % 3 else (48, 32)
        file = picture(folder / f"im{number:02}.{'jpg' if number % 2 else 'png'}", size, seed=number)
        split = "train" if number < 7 else "val" if number < 10 else "test"
        boxes = [
            (CLASSES[(number + k) % 3], 1 + 3 * k, 2 + number % 4, 12 + 5 * k, 20 + number) for k in range(number % 4)
        ]  # fmt: skip
        images.append(Labelled(split, file.stem, file, size, tuple(boxes)))
    return images


def from_voc(root: Path, splits: Sequence[str] = ("train", "val", "test"), first: int | None = None) -> list[Labelled]:
    """The images of a VOC folder, without boxes that have no area; read by other code than ours."""
    images = []
    for split in splits:
        for stem in (root / "ImageSets/Main" / f"{split}.txt").read_text().split()[:first]:
            element = ElementTree.parse(root / "Annotations" / f"{stem}.xml").getroot()
            boxes = []
            for thing in element.iter("object"):
                sides = [float(str(thing.findtext(f"bndbox/{side}"))) for side in ("xmin", "ymin", "xmax", "ymax")]
                if sides[0] < sides[2] and sides[1] < sides[3]:
                    boxes.append((str(thing.findtext("name")), sides[0] - 1, sides[1] - 1, sides[2], sides[3]))
            size = (int(str(element.findtext("size/height"))), int(str(element.findtext("size/width"))))
            images.append(Labelled(split, stem, root / "JPEGImages" / f"{stem}.jpg", size, tuple(boxes)))
    return images


def class_names(images: Sequence[Labelled]) -> list[str]:
    return sorted({box[0] for image in images for box in image.boxes})


def copy(image: Labelled, folder: Path) -> Path:
    """Copy (link, where possible) an image into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / image.image.name
    try:
        os.link(image.image, target)
    except OSError:
        shutil.copy(image.image, target)
    return target


# ------------------------------------------------------------------------------------------------------------ VOC


def write_xml(image: Labelled, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    objects = [voc_object(name, int(x1 + 1), int(y1 + 1), int(x2), int(y2)) for name, x1, y1, x2, y2 in image.boxes]
    (folder / f"{image.stem}.xml").write_text(voc_xml(objects, image.size, image.image.name))


def write_voc(root: Path, images: Sequence[Labelled], annotations: str, pictures: str, lists: str | None = None) -> None:
    """Write VOC files.

    Args:
        annotations, pictures: folders, in which ``{split}`` is the split (``valid`` for val).
        lists: folder of the lists of the splits.
    """
    for image in images:
        split = {"val": "valid"}.get(image.split, image.split)
        write_xml(image, root / annotations.format(split=split))
        copy(image, root / pictures.format(split=split))
    for split in {image.split for image in images} if lists is not None else ():
        (root / str(lists)).mkdir(parents=True, exist_ok=True)
        names = [image.stem for image in images if image.split == split]
        (root / str(lists) / f"{split}.txt").write_text("\n".join(names) + "\n")


# ----------------------------------------------------------------------------------------------------------- COCO


def coco_json(images: Sequence[Labelled], names: Sequence[str], prefix: str = "", group: bool = False) -> dict[str, Any]:
    """COCO's content; with `group` as Roboflow writes it, with a category that no box has."""
    first = 0 if group else 3
    categories = [{"id": first + 1 + n, "name": name, "supercategory": "animals"} for n, name in enumerate(names)]
    content: dict[str, Any] = {"info": {}, "images": [], "annotations": [], "categories": categories}
    if group:
        content["categories"] = [{"id": 0, "name": "animals", "supercategory": "none"}, *categories]
    for number, image in enumerate(images):
        height, width = image.size
        entry = {"id": number + 10, "file_name": prefix + image.image.name, "height": height, "width": width}
        content["images"].append(entry)
        for name, x1, y1, x2, y2 in image.boxes:
            annotation = {
                "id": len(content["annotations"]) + 1,
                "image_id": number + 10,
                "category_id": first + 1 + list(names).index(name),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            content["annotations"].append(annotation)
    return content


def write_coco(
    root: Path,
    images: Sequence[Labelled],
    file: str,
    pictures: str,
    *,
    prefix: str = "",
    whole: bool = False,
    group: bool = False,
) -> None:
    """Write COCO files.

    Args:
        file, pictures: annotation file and folder of images, in which ``{split}`` is the split.
        whole: one file for all images.
    """
    for split in [None] if whole else ["train", "val", "test"]:
        part = [image for image in images if split in (None, image.split)]
        name = {"val": "valid"}.get(str(split), split) if group else split
        path = root / file.format(split=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco_json(part, class_names(images), prefix, group)))
        for image in part:
            copy(image, root / pictures.format(split=name))


# ----------------------------------------------------------------------------------------------------------- YOLO


def yolo_lines(image: Labelled, names: Sequence[str], polygons: bool = False) -> str:
    """Lines of a label file; with `polygons` as outlines of four corners."""
    height, width = image.size
    lines = []
    for name, x1, y1, x2, y2 in image.boxes:
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        if polygons:
            corners = ((x1, (y1 + y2) / 2), ((x1 + x2) / 2, y1), (x2, y1), (x1, y2))
            values = [value for x, y in corners for value in (x / width, y / height)]
        lines.append(" ".join([str(list(names).index(name)), *(f"{value!r}" for value in values)]))
    return "".join(f"{line}\n" for line in lines)


def write_yolo(
    root: Path,
    images: Sequence[Labelled],
    pictures: str = "images/{split}",
    labels: str = "labels/{split}",
    *,
    valid: str = "val",
    polygons: bool = False,
    empty_files: bool = False,
) -> None:
    """Write images and label files, without a ``data.yaml``.

    Args:
        pictures, labels: folders, in which ``{split}`` is the split.
        valid: name of the validation split.
        empty_files: write a file for an image without objects.
    """
    names = class_names(images)
    for image in images:
        split = {"val": valid}.get(image.split, image.split)
        copy(image, root / pictures.format(split=split))
        folder = root / labels.format(split=split)
        folder.mkdir(parents=True, exist_ok=True)
        if image.boxes or empty_files:
            (folder / f"{image.stem}.txt").write_text(yolo_lines(image, names, polygons))


def write_yolo_with_yaml(root: Path, images: Sequence[Labelled]) -> Path:
    """A data set as Ultralytics documents it; the layout for tests of other parts. Returns its ``data.yaml``."""
    write_yolo(root, images)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(class_names(images)))
    test = "test: images/test\n" if any(image.split == "test" for image in images) else "test:\n"
    file = root / "data.yaml"
    file.write_text(f"path: .\ntrain: images/train\nval: images/val\n{test}names:\n{names}")
    return file


def _yolo(**settings: Any) -> Callable[[Path, Sequence[Labelled]], None]:
    yaml = settings.pop("yaml", None)

    def write(root: Path, images: Sequence[Labelled]) -> None:
        write_yolo(root, images, **settings)
        names = class_names(images)
        if yaml is None:
            (root / "classes.txt").write_text("\n".join(names) + "\n")
        else:
            (root / "data.yaml").write_text(yaml.format(names=json.dumps(names), root=root.resolve(), nc=len(names)))

    return write


def _yolo_lists(root: Path, images: Sequence[Labelled]) -> None:
    """Lists of images, with Windows' separators in one, and one that begins with ``./``."""
    write_yolo(root, images, "data/images", "data/labels", empty_files=True)
    for split, before, separator in (("train", "./", "/"), ("val", "data/", "\\"), ("test", f"{root.resolve()}/data/", "/")):
        names = [image.image.name for image in images if image.split == split]
        folder = root / "data" if split == "train" else root
        (folder / f"{split}.txt").write_text("".join(f"{before}images/{name}\n".replace("/", separator) for name in names))
    names = json.dumps(class_names(images))
    (root / "data.yaml").write_text(f"train: data/train.txt\nval: [val.txt]\ntest: test.txt\nnames: {names}\n")


def _yolo_lists_alone(root: Path, images: Sequence[Labelled]) -> None:
    """As Darknet's tools divide a folder."""
    write_yolo(root, images, "images", "labels")
    for split in ("train", "val", "test"):
        names = [f"./images/{image.image.name}\n" for image in images if image.split == split]
        (root / f"{split}.txt").write_text("".join(names))
    (root / "obj.names").write_text("\n".join(class_names(images)))


def _darknet(root: Path, images: Sequence[Labelled]) -> None:
    """As CVAT exports "YOLO 1.1"."""
    write_yolo(root, images, "obj_train_data", "obj_train_data", empty_files=True)
    for split in ("train", "val", "test"):
        lines = "".join(f"data/obj_train_data/{image.image.name}\n" for image in images if image.split == split)
        (root / f"{split}.txt").write_text(lines)
    (root / "obj.names").write_text("\n".join(class_names(images)))
    lists = "train = data/train.txt\nvalid = data/val.txt\ntest = data/test.txt\n"
    (root / "obj.data").write_text(f"classes = {len(class_names(images))}\n{lists}names = data/obj.names\nbackup = backup/\n")


def _voc(*arguments: Any) -> Callable[[Path, Sequence[Labelled]], None]:
    return lambda root, images: write_voc(root, images, *arguments)


def _coco(*arguments: Any, **settings: Any) -> Callable[[Path, Sequence[Labelled]], None]:
    return lambda root, images: write_coco(root, images, *arguments, **settings)


_ROBOFLOW_YAML = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: {nc}\nnames: {names}\n"
_ULTRALYTICS_YAML = "path: {root}\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {names}\n"

SPLIT_LAYOUTS: dict[str, Callable[[Path, Sequence[Labelled]], None]] = {
    "voc": _voc("Annotations", "JPEGImages", "ImageSets/Main"),
    "voc in a folder": _voc(
        "VOCdevkit/VOC2007/Annotations", "VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/ImageSets/Main"
    ),
    "voc, two folders and lists": _voc("annots", "images", "ImageSets"),
    "voc, one folder and lists": _voc("all", "all", "."),
    "voc, train and valid": _voc("{split}", "{split}"),
    "voc, train and valid with two folders": _voc("{split}/annotations", "{split}/images"),
    "voc, own folders in train and valid": _voc("{split}/Annotations", "{split}/JPEGImages"),
    "voc, splits in longer names": _voc("{split}_annots", "{split}_images"),
    "voc, images by split": _voc("annots", "images/{split}"),
    "voc, both by split": _voc("xml/{split}", "images/{split}"),
    "coco": _coco("annotations/instances_{split}.json", "{split}"),
    "coco 2017": _coco("annotations/instances_{split}2017.json", "images/{split}2017"),
    "coco, images together": _coco("annotations/instances_{split}.json", "images"),
    "coco, roboflow": _coco("{split}/_annotations.coco.json", "{split}", group=True),
    "coco, files by split": _coco("{split}.json", "photos", prefix="photos/"),
    "coco, other names": _coco("labels/animals_{split}.json", "pics/{split}"),
    "coco, a file in each folder": _coco("{split}/labels.json", "{split}/images"),
    "coco, in a folder": _coco("export/annotations/instances_{split}.json", "export/images/{split}", prefix=".\\"),
    "yolo": _yolo(yaml=_ULTRALYTICS_YAML),
    "yolo, roboflow": _yolo(pictures="{split}/images", labels="{split}/labels", valid="valid", yaml=_ROBOFLOW_YAML),
    "yolo, no data.yaml": _yolo(),
    "yolo, no data.yaml, split first": _yolo(pictures="{split}/images", labels="{split}/labels", valid="validation"),
    "yolo, polygons": _yolo(yaml=_ULTRALYTICS_YAML, polygons=True),
    "yolo, empty files": _yolo(yaml=_ULTRALYTICS_YAML, empty_files=True),
    "yolo, other computer": _yolo(yaml=_ULTRALYTICS_YAML.replace("{root}", "/content/animals")),
    "yolo, names by number": lambda root, images: write_yolo_with_yaml(root, images) and None,
    "yolo, lists": _yolo_lists,
    "yolo, lists, no data.yaml": _yolo_lists_alone,
    "yolo, darknet": _darknet,
}
"""Layouts with the splits train, val and test."""

WHOLE_LAYOUTS: dict[str, Callable[[Path, Sequence[Labelled]], None]] = {
    "voc, no lists": _voc("Annotations", "JPEGImages"),
    "voc, two folders": _voc("annots", "images"),
    "voc, one folder": _voc("data", "data"),
    "voc, no folder": _voc(".", "."),
    "coco, cvat": _coco("annotations/instances_default.json", "images/default", whole=True),
    "coco, cvat, images together": _coco("annotations/instances_default.json", "images", whole=True),
    "coco, one file": _coco("result.json", "images", prefix="images/", whole=True),
    "coco, a file above any folder": _coco("labels.json", "my photos", whole=True),
    "coco, beside": _coco("pictures/annotations.json", "pictures", whole=True),
    "coco, roboflow": _coco("_annotations.coco.json", ".", whole=True, group=True),
    "yolo": _yolo(pictures="images", labels="labels"),
    "yolo, beside": _yolo(pictures="obj", labels="obj"),
    "yolo, no folder": _yolo(pictures=".", labels="."),
}
"""Layouts without splits."""
