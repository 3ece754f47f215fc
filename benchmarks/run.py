"""Run the benchmarks that need no data of your own, and write `benchmarks/results.md`.

    python benchmarks/run.py [--only deform detector …] [--out benchmarks/results.md]

Each is a command of its own, printed above its table. They run one after the other, because they need an idle machine (about 20
minutes on two cores). Sections of benchmarks that are not run stay as they are, with their date and machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
COCO = "../shared/data/coco_cc_dev"
FAILED = "The command failed"


class Measurement(NamedTuple):
    """A section of the page.

    Attributes:
        name: for `--only`.
        title: of the section.
        aim: the result to reach.
        arguments: script and arguments, run from the root of the repository.
    """

    name: str
    title: str
    aim: str
    arguments: str


MEASUREMENTS = (
    Measurement(
        "deform",
        "Deformable convolution against torchvision's",
        "on a CPU forward at least 2.5 times as fast, forward + backward 8 times, and no more memory",
        "deform.py --device cpu --rounds 3 --threads 2",
    ),
    Measurement(
        "depthwise",
        "Dilated depthwise convolution against torch's",
        "forward and backward in half the time",
        "depthwise.py --threads 2",
    ),
    Measurement(
        "detector",
        "A picture of 800x1088 through a whole detector with ResNet-50",
        "nas_fcos at most 1.5 times torchvision's FCOS, fcos no slower than it",
        "detector.py --rounds 5",
    ),
    Measurement(
        "proxy",
        "One evaluation of a search",
        "10 times as fast as the straightforward loop; what is around it at most 2 % of it",
        f"proxy.py --data coco:{COCO} --pictures 24 --iterations 6 --samples 3",
    ),
    Measurement("text_to_cost", "Text to cost", "500 texts a second on one core", "text_to_cost.py"),
    Measurement(
        "growth", "Growth with the number of blocks", "near linear to 10,000 blocks", "growth.py --chart benchmarks/growth.svg"
    ),
    Measurement("coco", "COCO's metrics", "a fifth of pycocotools' time, the same figures", "coco_metrics.py"),
)


def machine() -> str:
    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        name = next((line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def section(measurement: Measurement) -> str:
    """Run a benchmark and return its section of the page; a failed command is reported in it."""
    script, *arguments = shlex.split(measurement.arguments)
    start = time.monotonic()
    done = subprocess.run([sys.executable, HERE / script, *arguments], stdout=subprocess.PIPE, text=True)
    printed = done.stdout.strip() or "(nothing was printed)"
    if done.returncode:
        printed += f"\n\n**{FAILED} with status {done.returncode}.**"
    if measurement.name == "growth":
        printed += "\n\n![Seconds and memory by the number of blocks, both axes logarithmic](growth.svg)"
    minutes = (time.monotonic() - start) / 60
    return (
        f"## {measurement.title}\n\nAim: {measurement.aim}.\n\n"
        f"`python benchmarks/{measurement.arguments}`, {datetime.date.today()}, {machine()}; {minutes:.1f} minutes\n\n"
        f"{printed}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[m.name for m in MEASUREMENTS])
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    given = parser.parse_args()
    kept: dict[str, str] = {}
    if given.out.exists():
        parts = re.split(r"^(?=## )", given.out.read_text(), flags=re.MULTILINE)[1:]
        kept = {part.splitlines()[0].removeprefix("## "): part.strip() + "\n" for part in parts}
    for measurement in MEASUREMENTS:
        if not given.only or measurement.name in given.only:
            print(f"{measurement.title} …", file=sys.stderr, flush=True)
            kept[measurement.title] = section(measurement)
        head = (
            "# Measured\n\n"
            "Written by `make bench`. Ratios are between things that ran in turn on one machine; other machines have other "
            "seconds.\n[docs/speed.md](../docs/speed.md) says what bounds these figures.\n\n"
        )
        own = [m.title for m in MEASUREMENTS]
        others = [title for title in kept if title not in own]  # such as what a GPU did, which is measured elsewhere
        given.out.write_text(head + "\n".join(kept[title] for title in (*own, *others) if title in kept))
    failed = [m.title for m in MEASUREMENTS if FAILED in kept.get(m.title, "")]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
