"""Growth of the compiler's time and memory with the size of a decoder: 10 to 10,000 basic blocks, stage by stage.

    python benchmarks/growth.py [--blocks 10 100 1000 10000] [--chart growth.svg] [--limit 300]

A block adds a separable convolution of the previous block and a skip of a random one of the last twenty or of the backbone.
Stages: check (text to a checked decoder), cost (lowering and cost), build (torch modules at width 8), dot (the input of
Graphviz), svg (the layout by Graphviz). Each size runs in a process of its own with one thread; memory is what a stage adds to
the peak of the process. If a stage takes longer than `--limit` seconds, its process is ended, and with it later stages of that
size. The last column is the slope of the log-log plot between the last two sizes: 1 is linear.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STAGES = ("check", "cost", "build", "dot", "svg")


def text(blocks: int) -> str:
    """The text of a decoder with this number of blocks."""
    draw = random.Random(0)
    names = ["c3", "c4", "c5"]
    lines = []
    for number in range(blocks):
        other = draw.choice([*names[-20:], "c3", "c4", "c5"])
        lines.append(f"    b{number} = add(sep_3x3({names[-1]}), skip({other}))")
        names.append(f"b{number}")
    outputs = ", ".join(f"p{level} = {name}" for level, name in zip((5, 4, 3), names[-3:], strict=True))
    return "\n".join(
        [
            f"decoder grown_{blocks} {{",
            "  input c3, c4, c5",
            "  fpn(width=8, norm=bn) {",
            *lines,
            f"    output {outputs}",
            "    merge dangling into p3, p4, p5",
            "  }",
            "  head(width=8, norm=none, share=0) { conv_3x3 }",
            "  predict fcos(centerness=cls)",
            "}\n",
        ]
    )


def measure(blocks: int) -> None:
    """Run all stages for one size; print a line of JSON after each."""
    import torch
    from deform import peak

    import nasdsl
    from nasdsl.backbones import backbone
    from nasdsl.backends import diagrams
    from nasdsl.backends.cost import cost
    from nasdsl.backends.module import build

    sys.setrecursionlimit(1000)  # Python's default: the compiler must not need more
    torch.set_num_threads(1)
    known = backbone("resnet50")

    def all_stages(source: str, report: bool) -> None:
        kept: dict[str, Any] = {}

        def drawn(kind: str) -> bytes:
            return bytes(diagrams.render(kept["lowered"], kept["cost"], kind))

        def check() -> None:
            kept["decoder"] = nasdsl.loads(source)

        def figures() -> None:
            kept["lowered"] = kept["decoder"].lower(known.out_channels)
            kept["cost"] = cost(kept["lowered"], (800, 1088), 80, known)

        def module() -> None:
            build(kept["lowered"], 80)

        for name, work in zip(STAGES, (check, figures, module, lambda: drawn("dot"), lambda: drawn("svg")), strict=True):
            gc.collect()
            gc.freeze()  # otherwise a collection, at any time, takes 0.2 s for torch's own objects
            before, start = peak(), time.perf_counter()
            work()
            taken = {"stage": name, "blocks": blocks, "seconds": time.perf_counter() - start, "bytes": peak() - before}
            if report:
                print(json.dumps(taken), flush=True)

    all_stages(text(3), report=False)  # grammar, prelude and libraries are loaded once a process
    all_stages(text(blocks), report=True)


def run(blocks: int, limit: float) -> list[dict[str, Any]]:
    """Time and memory of the stages of a size that finished."""
    found: list[dict[str, Any]] = []
    command = [sys.executable, __file__, "--measure", str(blocks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        last = time.monotonic()
        while process.poll() is None and time.monotonic() - last < limit:
            time.sleep(0.05)
            if line := process.stdout.readline():
                found.append(json.loads(line))
                last = time.monotonic()
        process.kill()
        os.set_blocking(process.stdout.fileno(), True)
        found += [json.loads(line) for line in process.stdout if line.strip()]
    return found


def chart(found: list[dict[str, Any]], file: Path) -> None:
    import altair as alt

    rows = [{**row, "MiB": max(row["bytes"], 2**16) / 2**20} for row in found]
    log = alt.Scale(type="log")
    base = alt.Chart(alt.InlineData(values=rows)).mark_line(point=True).properties(width=330, height=260)
    x = alt.X("blocks:Q", scale=log, title="basic blocks")
    colour = alt.Color("stage:N", sort=list(STAGES), title="stage", scale=alt.Scale(scheme="dark2"))
    panels = [
        base.encode(x, alt.Y(f"{of}:Q", scale=log, title=title), colour, alt.Shape("stage:N", sort=list(STAGES), legend=None))
        for of, title in (("seconds", "seconds"), ("MiB", "MiB added to the peak"))
    ]
    alt.hconcat(*panels).save(str(file))


def cell(row: dict[str, Any] | None) -> str:
    return "timeout" if row is None else f"{row['seconds']:.3g} s, {row['bytes'] / 2**20:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--limit", type=float, default=300, help="seconds for a stage")
    parser.add_argument("--chart", type=Path, help="file of the chart: .svg or .png")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
        return
    found = [row for blocks in given.blocks for row in run(blocks, given.limit)]
    print(f"| stage | {' | '.join(f'{blocks:,} blocks' for blocks in given.blocks)} | slope |")
    print("|---" * (len(given.blocks) + 2) + "|")
    for stage in STAGES:
        rows = [next((r for r in found if (r["stage"], r["blocks"]) == (stage, b)), None) for b in given.blocks]
        known = [row for row in rows if row is not None]
        slope = "·"
        if len(known) > 1:
            a, b = known[-2:]
            slope = f"{math.log(b['seconds'] / a['seconds']) / math.log(b['blocks'] / a['blocks']):.2f}"
        print(f"| {stage} | {' | '.join(cell(row) for row in rows)} | {slope} |")
    print(f"\n{os.cpu_count()} CPU cores, one used; Python {platform.python_version()}; timeout {given.limit:g} s")
    if given.chart:
        chart(found, given.chart)


if __name__ == "__main__":
    main()
