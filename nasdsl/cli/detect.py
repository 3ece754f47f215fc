"""``nasdsl detect``: run a trained detector on images and videos."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nasdsl.cli.detect_output import Results, output_names
from nasdsl.cli.errors import USAGE, exit_on_error, fail
from nasdsl.cli.files import dataset_options, load_detector_for_inference
from nasdsl.cli.options import DEVICE, NO_GRAPHS, PRECISION, NamesType
from nasdsl.cli.output import echo_err, pluralize, progress_bar

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.detection.detections import Detections
    from nasdsl.detection.detector import Detector
    from nasdsl.detection.precision import Precision
    from nasdsl.training.signals import SignalHandler

SHEET_NAME = "sheet.png"
"""File that --sheet writes."""

MAX_IN_SHEET = 24
"""Images on a sheet; with more, each would be too small to see."""

SECONDS_BETWEEN_REPORTS = 10
"""Between two lines about the progress of a video, where there is no terminal for a bar."""


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGE…]", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", "spec", metavar="SPEC", help="Dataset to take images from instead of files; see `nasdsl train`.")
@click.option("--split", help="Split of that dataset.  [default: test, or val if it has no test]")
@click.option("--first", metavar="N", type=click.IntRange(1), help="Take only the first N images or videos.  [default: all]")
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
    help="Lowest score of a detection that is drawn and listed in detections.csv.",
)
@click.option("--classes", type=NamesType(), help="Only objects of these classes.  [default: all]")
@click.option("--every", metavar="N", type=click.IntRange(1), default=1, show_default=True, help="Of a video, every Nth frame.")
@click.option("--sheet", is_flag=True, help=f"Also draw the first {MAX_IN_SHEET} images side by side, in {SHEET_NAME}.")
@click.option("--no-pictures", is_flag=True, help="Do not write an image or video with boxes for each input.")
@DEVICE
@PRECISION
@NO_GRAPHS
def detect(
    run: Path,
    images: tuple[Path, ...],
    spec: str | None,
    split: str | None,
    first: int | None,
    out: Path,
    threshold: float,
    classes: tuple[str, ...] | None,
    every: int,
    sheet: bool,
    no_pictures: bool,
    device: str | None,
    precision: Precision | None,
    no_graphs: bool,
) -> None:
    """Run a trained detector on images and videos.

    RUN is the folder of a training, its model.pt, or a file of torchvision's FCOS or RetinaNet. IMAGE is an image or video, a
    folder of them, or a quoted pattern such as 'photos/**/*.jpg'.

    \b
    nasdsl detect runs/cells photo.jpg more_photos -o found
    nasdsl detect runs/cells clip.mp4 --every 5 --classes RBC,WBC -o found

    DIR gets a PNG of each image and an MP4 of each video with the boxes drawn; detections.json, which holds all detections in
    COCO's format, also those below --threshold; and detections.csv with those that are drawn. Videos need PyAV
    (pip install 'nasdsl[video]'). Ctrl-C ends after the image or frame at work, and what was found until then is written.
    """
    if bool(images) == bool(spec):
        raise click.UsageError("expected either images (IMAGE…) or a dataset (--data)")
    with exit_on_error():
        from nasdsl.detection.detections import labels_of
        from nasdsl.training.signals import SignalHandler

        detector = load_detector_for_inference(run, device, precision, graphs=not no_graphs)
        if classes is not None:
            labels_of(classes, detector.classes)  # raises for an unknown one
        reserved = {SHEET_NAME} if sheet else set()
        sources = list(_files(images, out, reserved, first) if spec is None else _samples(detector, run, spec, split, first))
        if not sources:
            named = ", ".join(map(str, images))
            folder = next((path for path in images if path.is_dir() and any(map(Path.is_dir, path.iterdir()))), None)
            hint = "" if folder is None else f" itself; '{folder}/**/*' takes those of the folders in it too"
            fail(f"no images in {named}{hint}")
        out.mkdir(parents=True, exist_ok=True)
        videos = [source for source in sources if source.is_video]
        results = Results(detector, threshold, videos=bool(videos))
        with SignalHandler("writing what was found") as signals:
            job = _Job(detector, out, threshold, classes, results, sheet, no_pictures, signals)
            job.detect_in_images([source for source in sources if not source.is_video])
            for source in videos:
                if not job.stopped:
                    job.detect_in_video(source, every)
        written = job.finish()
    for path in written:
        echo_err(f"wrote {path}")
    if job.unreadable:
        inputs = "" if not videos else " or video" if job.unreadable == 1 else " or videos"
        echo_err(f"{pluralize(job.unreadable, 'image')}{inputs} could not be read")
    if signals.signum:
        sys.exit(128 + signals.signum)
    if job.unreadable:
        sys.exit(USAGE)


class _Source(NamedTuple):
    """An input image or video: its name, the file written for it, and where it is read from."""

    name: str
    target: str
    origin: Path | tuple[Dataset, int]
    is_video: bool = False

    def read(self) -> Any:  # a tensor, uint8 [3, H, W]
        from nasdsl.data import read_image

        return read_image(self.origin) if isinstance(self.origin, Path) else self.origin[0][self.origin[1]].image


@dataclass
class _Job:
    """One run of the command: detects, draws and collects."""

    detector: Detector
    out: Path
    threshold: float
    classes: tuple[str, ...] | None
    results: Results
    sheet: bool
    no_pictures: bool
    signals: SignalHandler
    drawn: list[Any] = field(default_factory=list)
    unreadable: int = 0

    @property
    def stopped(self) -> bool:
        """Whether a signal asks to end."""
        return bool(self.signals.signum)

    def detect_in_images(self, sources: Sequence[_Source]) -> None:
        from nasdsl.data import UnreadableImage
        from nasdsl.detection.visualization import write_png

        with progress_bar("detecting") as advance:
            for number, source in enumerate(sources):
                if self.stopped:
                    return
                if len(sources) > 1:
                    advance(number, len(sources))
                try:
                    image = source.read()
                except UnreadableImage as error:
                    self._report_unreadable(error)
                    continue
                found = self._detect(image)
                self.results.add(source.name, found)
                message = f"{source.name}: {_objects(found.filter(self.threshold).names)}"
                annotated = self._draw(found, for_sheet=self.sheet)
                if annotated is not None:
                    write_png(self.out / source.target, annotated)
                    message += f", drawn in {self.out / source.target}"
                echo_err(message)

    def detect_in_video(self, source: _Source, every: int) -> None:
        from nasdsl.data import UnreadableImage
        from nasdsl.data.video import VideoReader, VideoWriter

        assert isinstance(source.origin, Path)
        target = self.out / source.target
        names: Counter[str] = Counter()
        frames = 0
        try:
            with (
                VideoReader(source.origin) as video,
                VideoWriter(target) as writer,
                progress_bar(source.name) as advance,
            ):
                report = _VideoProgress(source.name, video.frames)
                for frame in video.read(every):
                    if self.stopped:
                        break
                    found = self._detect(frame.image)
                    self.results.add(source.name, found, frame.number, frame.time)
                    names.update(found.filter(self.threshold).names)
                    annotated = self._draw(found, for_sheet=self.sheet and frames == 0)
                    if annotated is not None:
                        writer.write(annotated, frame.time)
                    frames += 1
                    if video.frames:
                        advance(frame.number + 1, max(video.frames, frame.number + 1))
                    report(frame.number + 1)
        except UnreadableImage as error:
            self._report_unreadable(error)
        if frames:
            message = f"{source.name}: {_objects(names.elements())} in {pluralize(frames, 'frame')}"
            echo_err(message if self.no_pictures else f"{message}, drawn in {target}")

    def finish(self) -> list[Path]:
        """Write the files with all results, and return their paths."""
        from nasdsl.detection.visualization import contact_sheet, write_png

        written = self.results.write(self.out)
        if self.drawn:
            write_png(self.out / SHEET_NAME, contact_sheet(self.drawn))
            written.append(self.out / SHEET_NAME)
        return written

    def _detect(self, image: Any) -> Detections:
        found: Detections = self.detector.predict(image)
        return found if self.classes is None else found.filter(classes=self.classes)

    def _draw(self, found: Detections, *, for_sheet: bool) -> Any:
        """Draw detections, also for the sheet while it has room. None if they are for no file of their own (--no-pictures)."""
        from nasdsl.detection.visualization import draw_detections

        for_sheet = for_sheet and len(self.drawn) < MAX_IN_SHEET
        if self.no_pictures and not for_sheet:
            return None
        annotated = draw_detections(found.image, found.to_dict(), found.classes, self.threshold)
        if for_sheet:
            self.drawn.append(annotated)
        return None if self.no_pictures else annotated

    def _report_unreadable(self, error: Exception) -> None:
        echo_err(f"nasdsl: {error}")
        self.unreadable += 1


class _VideoProgress:
    """Prints a line about a video now and then where there is no terminal."""

    def __init__(self, name: str, frames: int | None) -> None:
        self._name, self._frames = name, frames
        self._start = self._last = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_REPORTS or sys.stderr.isatty():
            return
        self._last = now
        message = f"{self._name}: frame {done:,}"
        if self._frames and self._frames >= done:
            left = (now - self._start) / done * (self._frames - done)
            message += f" of about {self._frames:,}, {left:.0f} s left"
        echo_err(message)


def _objects(names: Any) -> str:
    """``3 objects (2 cat, 1 dog)``."""
    counts = Counter(names)
    total = pluralize(sum(counts.values()), "object")
    return f"{total} ({', '.join(f'{count} {name}' for name, count in counts.most_common())})" if counts else total


def _files(images: Sequence[Path], out: Path, reserved: set[str], first: int | None) -> Iterator[_Source]:
    """Images and videos from files, folders and patterns.

    Raises:
        UsageError: one would be overwritten by one of the `reserved` files in `out`.
        DataError: there are videos, and PyAV is not installed.
    """
    from nasdsl.data.image_files import find_files, is_video
    from nasdsl.data.video import import_av

    files = find_files(images, videos=True)[:first]
    for file in files:
        if file.name.lower() in reserved and file.resolve().parent == out.resolve():
            raise click.UsageError(f"{file} would be overwritten; give another folder by -o, or leave --sheet out")
    videos = [is_video(file) for file in files]
    if any(videos):
        import_av()
    names = output_names(files, videos, out, reserved)
    return (_Source(str(file), names[file], file, video) for file, video in zip(files, videos, strict=True))


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
