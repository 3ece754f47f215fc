"""What a GPU does with it, in one command: kernels, detectors and a search, in at most six minutes.

    make bench-gpu
    python benchmarks/gpu.py [--only depthwise deform …] [--minutes 6] [--out gpu.json] [--cpu]

Needs the source tree and what torch and torchvision bring along, triton, lark, click, rich and networkx: nothing has to be
installed, and no data or weights are read. Prints a table for each point (ours, the rival in the same process, the floor of
bytes or operations, the error against float64) and writes them to gpu.json. Every table has a share of the time, and stops in
time; what was left out is said. `--cpu` runs the same code with small shapes, as a test that it works: its times say nothing.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # nothing need be installed

import torch
import torchvision
from gpu_detectors import detectors_table
from gpu_kernels import deform_table, depthwise_table
from gpu_proxy import copies_table, make_task, proxy_table
from gpu_timing import Rates, Table, measure_rates

SHARES = {"depthwise": 0.14, "deform": 0.15, "detectors": 0.42, "proxy": 0.22, "copies": 0.07}
"""Of the time, for each table. What one does not need, the next ones get."""
TITLES = {
    "depthwise": "Dilated depthwise convolutions",
    "deform": "Deformable convolution",
    "detectors": "Detectors, from images to boxes",
    "proxy": "The proxy task of a search",
    "copies": "Launches and copies",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--cpu", action="store_true", help="small shapes on a CPU")
    given = parser.parse_args()
    if not given.cpu and not torch.cuda.is_available():
        sys.exit("torch sees no GPU; --cpu runs the same with small shapes")
    start = time.monotonic()
    device = torch.device("cpu" if given.cpu else "cuda")
    torch.backends.cudnn.benchmark = True  # for the rivals too
    end = start + 60 * given.minutes * 0.96  # writing, and the end of the last part

    warm_up = Table("Rates of the device", 20, device)
    print(warm_up.title, file=sys.stderr)
    rates = measure_rates(warm_up)
    tables = [warm_up]
    shared: list[object] = []

    def task(table: Table) -> object:
        """The proxy task, made once."""
        if not shared:
            shared.append(None)
            with table.part("the proxy task"):
                shared[0] = make_task(table)
        return shared[0]

    functions: dict[str, Callable[[Table, Rates], None]] = {
        "depthwise": depthwise_table,
        "deform": deform_table,
        "detectors": detectors_table,
        "proxy": lambda table, rates: proxy_table(table, rates, task(table)),  # type: ignore[arg-type]  # a task or None
        "copies": lambda table, rates: copies_table(table, task(table)),  # type: ignore[arg-type]  # a task or None
    }
    for number, name in enumerate(given.only):
        share = SHARES[name] / sum(SHARES[other] for other in given.only[number:])
        table = Table(TITLES[name], share * (end - time.monotonic()), device)
        print(f"{table.title}, {table.seconds:.0f} s", file=sys.stderr)
        with table.part("the rest"):
            functions[name](table, rates)
        tables.append(table)
        _write(given.out, tables, device, start)
    print("\n\n".join(table.markdown() for table in tables))
    print(f"\n{_machine(device)}; {time.monotonic() - start:.0f} s")


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{name}, CUDA {torch.version.cuda}, {versions}"


def _write(out: Path, tables: list[Table], device: torch.device, start: float) -> None:
    content = {
        "machine": _machine(device),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - start, 1),
        "tables": [table.to_json() for table in tables],
    }
    out.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
