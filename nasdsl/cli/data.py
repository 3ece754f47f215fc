"""``nasdsl data``: what a dataset holds, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.options import CLASS_NAMES, FORMAT, ON_ERROR, SPLIT_SEED, SPLIT_SHARE
from nasdsl.cli.output import echo_err, pluralize, progress_bar, stdout_console

if TYPE_CHECKING:
    from rich.console import Console

    from nasdsl.data import Dataset
    from nasdsl.data.overview import Overview

MAX_ON_SHEET = 24
MAX_PROBLEMS = 100
"""Problems that are printed for people."""
MAX_SIZES = 5
BAR_WIDTH = 40


@click.command("data")
@click.argument("spec", metavar="SPEC", shell_complete=completion.DATA)
@click.option("--split", help="Only this split.  [default: all]")
@SPLIT_SHARE
@SPLIT_SEED
@CLASS_NAMES
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="SHEET.png",
    help=f"Also draw up to {MAX_ON_SHEET} images with their boxes, side by side.",
)
@click.option("--quick", is_flag=True, help="Do not decode the images, which finds truncated ones.")
@ON_ERROR
@FORMAT
def data(
    spec: str,
    split: str | None,
    split_share: float | None,
    split_seed: int | None,
    class_names: tuple[str, ...] | None,
    out: Path | None,
    quick: bool,
    on_error: str,
    format_: str,
) -> None:
    """Show what a dataset holds, and what is wrong with it.

    SPEC is a folder of images with boxes, or voc:DIR, coco:DIR, yolo:DIR or shapes; see `nasdsl train`.

    Images and boxes of each split and class, sizes of images and boxes, every problem with its file, and the image size that
    is recommended for training.

    \b
    nasdsl data DIR -o sheet.png
    """
    if out is not None and out.suffix.lower() != ".png":
        fail(f"-o {out}: expected a file that ends in .png")
    if out is not None and not out.parent.is_dir():
        fail(f"no folder {out.parent} to write {out.name} to")
    with exit_on_error():
        from nasdsl.data.errors import NoSplit
        from nasdsl.data.open import check_classes, find_splits, open_dataset
        from nasdsl.data.overview import overview

        names = _shown_splits(find_splits(spec, split_share)) if split is None else [split]
        options: dict[str, Any] = {"on_error": on_error, "split_share": split_share, "split_seed": split_seed}
        # The classes of one split are those of all.
        splits: dict[str, Dataset] = {}
        for name in names:
            classes = next(iter(splits.values())).classes if splits else class_names
            try:
                splits[name] = open_dataset(spec, name, classes=classes, **options)
            except NoSplit as error:  # of a single image, no second split can be made
                if not splits:
                    raise
                echo_err(str(error))
        if class_names is not None:
            check_classes(max(splits.values(), key=len), class_names)
        with progress_bar("reading images") as progress:
            found = overview(splits, read_images=not quick, progress=progress)
        if out is not None:
            _draw_sheet(found, out)
    if format_ == "json":
        click.echo(json.dumps(found.to_dict(), indent=1, ensure_ascii=False))
        return
    _print(found, stdout_console())


def _shown_splits(names: tuple[str, ...]) -> list[str]:
    """The usual splits, train first, or else all: VOC has two for each class besides."""
    from nasdsl.data.layouts import split_name

    order = ["train", "val", "test", "trainval"]
    usual = [name for name in names if split_name(name) is not None]
    left = len(names) - len(usual)
    if usual and "val" not in map(split_name, usual):
        echo_err("there is no validation split: `nasdsl train` makes one of train (--split-share shows it)")
    if usual and left:
        echo_err(f"{left} other splits, such as {next(name for name in names if name not in usual)}: --split shows one")
    return sorted(usual, key=lambda name: (order.index(str(split_name(name))), name)) or list(names)


def _print(found: Overview, console: Console) -> None:
    from rich.table import Table

    from nasdsl.data.overview import images_without_boxes

    splits = found.splits
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in splits:
        table.add_column(name, justify="right")
    counts = {name: data.class_counts() for name, data in splits.items()}
    table.add_row("images", *(f"{len(data):,}" for data in splits.values()))
    empty = [images_without_boxes(data) for data in splits.values()]
    if any(empty):
        table.add_row("  without boxes", *(f"{number:,}" for number in empty))
    table.add_row("boxes", *(f"{sum(count.values()):,}" for count in counts.values()))
    for name in found.classes:
        table.add_row(f"  {name}", *(f"{count[name]:,}" for count in counts.values()))
    console.print(f"{found.name}: {len(found.classes)} class{'' if len(found.classes) == 1 else 'es'}")
    console.print(table)
    for note in dict.fromkeys(note for data in splits.values() for note in data.notes):
        console.print(note, soft_wrap=True)
    sizes = found.image_sizes()
    listed = ", ".join(f"{height}x{width} ({number:,})" for (height, width), number in sizes[:MAX_SIZES])
    more = f" and {len(sizes) - MAX_SIZES:,} others" if len(sizes) > MAX_SIZES else ""
    console.print(f"\nimage sizes, height x width: {listed}{more}", soft_wrap=True)
    _print_box_sizes(found, console)
    if found.advice is not None:
        height, width = found.advice.size
        console.print(f"\nrecommended: --size {height}x{width}. {found.advice.reason}.", soft_wrap=True)
    _print_problems(found, console)


def _print_box_sizes(found: Overview, console: Console) -> None:
    from nasdsl.data.overview import BOX_SIZE_EDGES

    counts = found.box_sizes()
    if not any(counts):
        return
    console.print("\nbox sizes (square root of the area, in pixels of the images):")
    used = [index for index, count in enumerate(counts) if count]
    for index in range(used[0], used[-1] + 1):
        low = BOX_SIZE_EDGES[index]
        high = str(BOX_SIZE_EDGES[index + 1]) if index + 1 < len(BOX_SIZE_EDGES) else "…"
        bar = "█" * max(round(BAR_WIDTH * counts[index] / max(counts)), int(counts[index] > 0))
        console.print(f"{low:>5} to {high:<5}{counts[index]:>9,} {bar}")


def _print_problems(found: Overview, console: Console) -> None:
    problems = found.problems
    if not problems:
        console.print("\nno problems")
        return
    console.print(f"\n{pluralize(len(problems), 'problem')}:")
    for problem in problems[:MAX_PROBLEMS]:
        what = {"image": "image left out", "box": "box left out"}.get(problem.kind)
        reason = problem.reason if what is None else f"{what}: {problem.reason}"
        console.print(f"  {problem.file}: {reason}", soft_wrap=True, markup=False)
    if len(problems) > MAX_PROBLEMS:
        console.print(f"  … and {len(problems) - MAX_PROBLEMS:,} more (--format json has all of them)")


def _draw_sheet(found: Overview, out: Path) -> None:
    """Draw some images of all splits with their boxes."""
    from nasdsl.data import UnreadableImage
    from nasdsl.data.overview import sample_indices
    from nasdsl.detection.visualization import contact_sheet, draw_boxes, write_png

    datasets = list(found.splits.values())
    drawn = []
    for number, index in sample_indices(datasets, MAX_ON_SHEET):
        dataset = datasets[number]
        try:
            image, target = dataset[index]
        except UnreadableImage:
            continue  # it is among the problems
        texts = [dataset.classes[label] for label in target["labels"].tolist()]
        drawn.append(draw_boxes(image, target["boxes"], target["labels"], texts))
    if not drawn:
        fail("no image can be drawn: none is readable")
    write_png(out, contact_sheet(drawn))
    echo_err(f"wrote {out}")
