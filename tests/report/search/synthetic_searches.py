"""Searches with a synthetic reward, in folders like those of real searches."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from nasdsl import resources
from nasdsl.search.check import CheckResult
from nasdsl.search.loop import search
from nasdsl.search.results import Trials
from nasdsl.search.run import load_trials
from nasdsl.spaces import Filled, Space, SpaceError, load_space

COMMAND = "nasdsl search zoo:nas_fcos_head --data voc:cells --out runs/found --seed 3"


def space(name: str) -> Space:
    """A space of the zoo."""
    return load_space(resources.folder("genotypes") / "spaces" / f"nas_fcos_{name}.nas", backbone="mobilenet_v2", classes=3)


def number(text: str, salt: str = "") -> float:
    """A pseudo-random number between 0 and 1 that depends on the text."""
    return int(sha256((salt + text).encode()).hexdigest()[:8], 16) / 2**32


def checked(text: Filled) -> CheckResult:
    """A check without lowering; rejects one text in twenty-five."""
    if number(text, "reject") < 0.04:
        raise SpaceError("it cannot be built, or breaks a requirement")
    heavy = text.count("dconv") + 0.6 * text.count("conv_3x3") + 0.4 * text.count("sep")
    macs = int(4e8 + 9e7 * heavy + 4e7 * number(text, "macs"))
    return CheckResult(sha256(text.encode()).hexdigest(), {"macs": macs, "params": macs // 800})


def unpriced(text: Filled) -> CheckResult:
    """A check without costs."""
    return CheckResult(checked(text).digest)


class Evaluation:
    """A reward that favours deformable convolutions and shared heads, with every kind of failure.

    Args:
        trouble: share of the texts that fail.
    """

    def __init__(self, trouble: float = 0.1) -> None:
        self.trouble = trouble

    def __call__(self, text: str) -> Mapping[str, Any]:
        if number(text, "trouble") < self.trouble:
            self.fail(text)
        share = int(text.partition("share=")[2][:1])
        reward = -2.6 + 0.07 * text.count("dconv") - 0.05 * share - 0.03 * text.count("skip") + 0.25 * number(text)
        if number(text, "far") < 0.01:
            reward -= 12
        return {"reward": reward, "losses": {"cls": -reward / 2}, "latency": 0.012 + 0.001 * text.count("dconv")}

    def fail(self, text: str) -> None:
        kind = int(6 * number(text, "kind"))
        if kind < 2:
            raise MemoryError
        if kind < 4:
            raise RuntimeError(f"a map of {int(100 * number(text))} pixels </script><b>is not</b> enough")
        if kind < 5:
            raise ValueError(f"loss is {number(text)}")
        raise Diverged("the loss is not finite at step 40")


class Diverged(Exception):
    """Has the name of the error of nasdsl.training, by which a search recognises it."""


def make(
    folder: Path, name: str = "head", trials: int = 60, *, strategy: str = "evolution", trouble: float = 0.1, **options: Any
) -> Trials:
    """Run a search of a space of the zoo in `folder`."""
    options.setdefault("check", checked)
    about = {"command": COMMAND, "data": "voc:cells", "split": "train", "weights": "imagenet"}
    options.setdefault("options", {"population": 20, "sample": 6} if strategy == "evolution" else {})
    return search(
        space(name), Evaluation(trouble), strategy, trials, 3, out=folder, quiet=True, size=(256, 256), about=about, **options
    )


def describe(folder: Path, stages: Sequence[str] = ()) -> None:
    """Write ``search.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "search.json").write_text(
        json.dumps({"format": "nasdsl search run 1", "stages": list(stages), "command": COMMAND})
    )


def rank(folder: Path, top: int = 6, *, waiting: int = 1) -> None:
    """Write ``full/ranking.json`` with the best trials, a baseline, one that failed, and some that are not trained yet."""
    rng = random.Random(5)
    found = load_trials(folder).top(top)
    entries: list[dict[str, Any]] = []
    for place, trial in enumerate(found, 1):
        assert trial.reward is not None
        entry = {"name": f"trial_{trial.number}", "trial": trial.number, "proxy_rank": place, "reward": trial.reward}
        entry |= {"verdict": "ok", "ap": 0.6 + trial.reward / 10 + 0.02 * rng.random(), "ap50": 0.83, "seconds": 152.0}
        entry |= {**trial.figures, "text": str(trial.text), "folder": f"trial_{trial.number}", "error": None}
        entries.append(entry)
    fcos = {"name": "fcos", "trial": None, "proxy_rank": None, "reward": None, "verdict": "ok", "ap": 0.41, "ap50": 0.8}
    entries.append({**fcos, "macs": 9e8, "params": 4e6, "seconds": 140.0, "text": "", "folder": "fcos", "error": None})
    entries.sort(key=lambda entry: -entry["ap"])
    none = {"ap": None, "ap50": None, "seconds": None}
    bad = entries.pop(1) | none | {"verdict": "failed: out of memory", "error": "MemoryError: "}
    unfinished = [entries.pop(-2) | none | {"verdict": "waiting"} for _ in range(waiting)]
    (folder / "full").mkdir(exist_ok=True)
    described = {"format": "nasdsl ranking 1", "metric": "AP", "split": "val", "size": [240, 320]}
    (folder / "full" / "ranking.json").write_text(json.dumps({**described, "entries": [*entries, *unfinished, bad]}))


def progressive(folder: Path, trials: int = 60) -> None:
    """Run a progressive search with a ranking of both stages."""
    describe(folder, ["fpn", "head"])
    for name in ("fpn", "head"):
        make(folder / name, name, trials)
        rank(folder / name)
    (folder / "best.nas").write_text((folder / "head" / "best.nas").read_text())
