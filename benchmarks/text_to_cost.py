"""How many `.nas` texts a second become exact figures: read, checked, lowered, verified, counted. One core.

    python benchmarks/text_to_cost.py [--seconds 5]

The text is the published decoder, named anew each time so that nothing is answered from a cache; 800x1088, ResNet-50, 80
classes. Prints the median and the range over rounds of 100 texts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import nasdsl
from nasdsl import resources


def round_of(text: str, count: int = 100) -> float:
    """Texts a second over one round."""
    start = time.perf_counter()
    for number in range(count):
        nasdsl.loads(text.replace("decoder nas_fcos", f"decoder nas_fcos_{number}")).cost((800, 1088), "resnet50", 80)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    seconds = parser.parse_args().seconds
    text = (resources.folder("genotypes") / "nas_fcos.nas").read_text()
    round_of(text, 20)  # grammar, prelude and backbone are read once a process
    rates = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        rates.append(round_of(text))
    print(
        f"{statistics.median(rates):.0f} texts a second (median of {len(rates)} rounds of 100; "
        f"{min(rates):.0f} to {max(rates):.0f})"
    )


if __name__ == "__main__":
    main()
