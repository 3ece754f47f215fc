"""Files that ``nasdsl detect`` writes: detections.json, detections.csv, and the names of the drawn images and videos."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasdsl.files import write_bytes

if TYPE_CHECKING:
    from nasdsl.detection.detections import Detections
    from nasdsl.detection.detector import Detector

JSON_NAME, CSV_NAME = "detections.json", "detections.csv"


class Results:
    """Detections in all images and frames.

    The JSON is COCO's annotation format, which pycocotools reads; unlike COCO results it has the file names. The CSV has a row
    for each detection that is drawn.

    Args:
        videos: the CSV has columns for frames and their times.
    """

    def __init__(self, detector: Detector, threshold: float, *, videos: bool) -> None:
        self._threshold, self._videos = threshold, videos
        categories = zip(detector.category_ids, detector.classes, strict=True)
        self._document: dict[str, Any] = {
            "images": [],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [],
        }
        self._rows: list[list[Any]] = []

    def add(self, name: str, found: Detections, frame: int | None = None, time: float | None = None) -> None:
        """Add the detections in an image or in a frame of a video, shown `time` seconds after its first one."""
        images, annotations = self._document["images"], self._document["annotations"]
        entry: dict[str, Any] = {"id": len(images) + 1, "file_name": name, "height": found.size[0], "width": found.size[1]}
        if frame is not None and time is not None:
            entry |= {"frame": frame, "time": round(time, 4)}
        images.append(entry)
        for annotation in found.to_coco(entry["id"], len(annotations) + 1):
            annotation["bbox"] = [round(value, 2) for value in annotation["bbox"]]
            annotation |= {"area": round(annotation["area"], 2), "score": round(annotation["score"], 5)}
            annotations.append(annotation)
        place = [name, *(["" if frame is None else frame, entry.get("time", "")] if self._videos else [])]
        for one in found.filter(self._threshold):
            self._rows.append([*place, one.name, f"{one.score:.5f}", *(f"{side:.2f}" for side in one.box)])

    def write(self, out: Path) -> list[Path]:
        """Write both files to a folder, and return their paths."""
        text = json.dumps(self._document, ensure_ascii=False)
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        frame = ["frame", "time"] if self._videos else []
        writer.writerow(["file", *frame, "class", "score", "x1", "y1", "x2", "y2"])
        writer.writerows(self._rows)
        written = []
        for name, content in ((JSON_NAME, text), (CSV_NAME, table.getvalue())):
            write_bytes(out / name, content.encode("utf-8", errors="backslashreplace"))  # file names may not be UTF-8
            written.append(out / name)
        return written


def output_names(files: Sequence[Path], videos: Sequence[bool], out: Path, reserved: set[str]) -> dict[Path, str]:
    """Name of the PNG or MP4 that is written to `out` for each image or video: its stem, with a number if the name is taken.

    A name is taken by the output of another file, by a file that is read from `out`, and if it is `reserved`.
    """
    names: dict[Path, str] = {}
    taken = reserved | {file.name.lower() for file in files if file.resolve().parent == out.resolve()}
    for file, is_video in zip(files, videos, strict=True):
        suffix = ".mp4" if is_video else ".png"
        name, number = f"{file.stem}{suffix}", 2
        while name.lower() in taken:
            name, number = f"{file.stem}_{number}{suffix}", number + 1
        taken.add(name.lower())
        names[file] = name
    return names
