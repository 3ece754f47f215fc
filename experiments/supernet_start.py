"""AP of a decoder that starts with the weights of a weight-sharing network, beside one that starts from nothing.

    python experiments/supernet_start.py --data voc:BCCD --weights mobilenet_v2.pth --work runs/supernets
    python experiments/supernet_start.py --compare

Trains a sample of the paper's fpn space (`--decoder s07`) as `experiments/trained.py` does, for `--epochs` 3 and 6, with the
weights that it inherits from the networks which `experiments/supernet.py` has left in `--work` (`--networks steps600_s0`; the
backbone's are those of MobileNetV2 for both), and from nothing where `experiments/trained.csv` has no such training. A line is
added to `experiments/supernet_start.jsonl` for each. It may be stopped at any time; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any, Final

import torch
from supernet import make_space, samples
from trained import BASE, SPLITS, TABLE, Job, Table, read_lines
from trained import run as train

from nasdsl.search.supernet.start import inherited_weights

RESULTS: Final = Path(__file__).with_name("supernet_start.jsonl")
NOTHING: Final = "nothing"


def run(given: argparse.Namespace) -> None:
    """Make what is missing."""
    torch.set_num_threads(1)
    given.classes, given.splits = None, SPLITS
    table, space = Table(given.table), make_space()
    text = samples(space, table)[given.decoder]
    done = {(line["decoder"], line["epochs"], line["seed"], line["start"]) for line in read_lines(given.out)}
    for epochs in given.epochs:
        for start in (*given.networks, NOTHING):
            job = Job(given.decoder, *BASE, epochs, given.seed)
            known = (given.decoder, epochs, given.seed, start) in done or (start == NOTHING and job in table.done())
            if known:
                continue
            weights = None if start == NOTHING else inherited_weights(given.work / start, text, device="cpu")
            folder = given.work / f"{job.name}_{start}"
            folder.mkdir(parents=True, exist_ok=True)
            row = train(job, space.load(text), given, folder, weights)
            if row is None:
                continue
            line = {"start": start, **{name: row[name] for name in ("decoder", "epochs", "seed", "ap_val", "ap_test", "cpu_s")}}
            with open(given.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            shutil.rmtree(folder)
            print(line, flush=True)


def compare(lines: list[dict[str, Any]], table: Table) -> str:
    """AP (mean of val and test, and of seeds) by decoder, start and epochs, in Markdown."""
    decoders = {line["decoder"] for line in lines}
    rows: list[dict[str, Any]] = [
        {**row, "start": NOTHING, "epochs": int(row["epochs"])}
        for row in table.rows()
        if row["decoder"] in decoders and (int(row["width"]), row["size"]) == BASE
    ]
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in [*lines, *rows]:
        start = str(row["start"]).rpartition("_s")[0] or NOTHING
        ap = statistics.fmean((float(row["ap_val"]), float(row["ap_test"])))
        found.setdefault((row["decoder"], start, row["epochs"]), []).append(ap)
    head = ["| decoder | start | epochs | AP | trainings |", "|---|---|---|---|---|"]
    return "\n".join(
        [
            *head,
            *(
                f"| {decoder} | {start} | {epochs} | {statistics.fmean(aps):.1f} | {len(aps)} |"
                for (decoder, start, epochs), aps in sorted(found.items())
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="SPEC of BCCD, with the splits train, val and test")
    parser.add_argument("--weights", help="weights of MobileNetV2")
    parser.add_argument("--work", type=Path, help="folder of the networks and of unfinished trainings")
    parser.add_argument("--table", type=Path, default=TABLE, help="file of full trainings")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--decoder", default="s07", help="s00 to s07")
    parser.add_argument("--networks", nargs="+", default=["steps600_s0"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[3, 6])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="train nothing; print the table")
    given = parser.parse_args()
    if given.compare:
        print(compare(read_lines(given.out), Table(given.table)))
        return
    if missing := [name for name in ("data", "weights", "work") if getattr(given, name) is None]:
        parser.error(f"to train, give {', '.join(f'--{name}' for name in missing)}")
    run(given)


if __name__ == "__main__":
    main()
