"""Does a search give a better detector within a budget in milliseconds than what one would have set up by hand?

    python experiments/claim.py --data voc:BCCD --weights mobilenet_v2.pth --out runs/claim

A budget is the predicted latency of `fcos` of width 32 at 240x320 (onnxruntime, one thread, MobileNetV2), times 1, 2 and 4.
For each, the contestants choose a detector by the same proxy task, from decoders, `SIZES` and `WIDTHS` that keep the budget:

    search    `--trials` evaluations by `bayes` in `zoo:fcos_family`
    random    as many random samples of the same space, the best of them
    grid      `fcos` and `panet` at all sizes and widths: what one would try by hand
    nas_fcos  the decoder of the paper at all sizes and widths
    decoder   the same search with size and width fixed to those of the best of the grid: the share of the decoder alone
    gfl       the grid with `gfl`: FCOS's pyramid and towers with the losses, assignment and boxes of Generalized Focal Loss
    search_gfl, random_gfl    the finalists of `search` and `random` with GFL's prediction, at all sizes

The losses of two kinds of prediction do not compare, so no search decides between them: what each is worth shows in the
trainings.

The best `--finalists` of each are trained in full by the recipe `small` with `--epochs`, under `--seeds` seeds, and evaluated
on val and test. A contestant's detector is the one of its finalists with the highest mean AP on val; AP on test is reported for
that one. `claim.jsonl` beside this file has a line for each training, `claim_searches.jsonl` one for each finalist.

Everything may be stopped at any time; the same command goes on. The trainings are in the order in which most is learnt first:
the best of each contestant under one seed, then under further seeds, then the other finalists. Needs nasdsl[onnxruntime].
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from trained import SPLITS, read_lines, train_in_full

import nasdsl
from nasdsl import resources
from nasdsl.latency import LatencyPredictor
from nasdsl.predictions import Fcos
from nasdsl.search import search
from nasdsl.search.detectors import DetectorEvaluation, proxy_specs
from nasdsl.search.proxy_evaluation import ProxyEvaluation
from nasdsl.spaces import Space, SpaceError, load_space, loads_space
from nasdsl.training import find_recipe
from nasdsl.training.config import TrainingConfig
from nasdsl.training.proxy import ProxySpec
from nasdsl.training.proxy.defaults import SMALL

HERE: Final = Path(__file__).parent
BACKBONE: Final = "mobilenet_v2"
REFERENCE: Final = ("fcos", 32, (240, 320))
"""Decoder, width and size of the smallest budget."""
WIDTHS: Final = (32, 64)
"""Multiples of the 32 groups of GroupNorm."""
SIZES: Final[Mapping[int, Sequence[tuple[int, int]]]] = {
    1: ((208, 280), (224, 304), (240, 320), (248, 332), (256, 344), (264, 352)),
    2: ((240, 320), (288, 384), (320, 432), (336, 448), (352, 472), (368, 492)),
    4: ((320, 432), (384, 512), (432, 576), (464, 620), (496, 664), (528, 704)),
}
"""Sizes by budget, up to those at which the backbone alone takes most of it."""
SCALE: Final = 0.5
"""Sides of the images of the proxy task, of those of the detector."""
ENUMERATED: Final = 1000
"""Random proposals that find all fillings of the small spaces; repeated ones cost nothing."""


class Contestant(NamedTuple):
    """How a detector is chosen.

    Attributes:
        spaces: names in the zoo; the best of all of them counts.
        strategy: of the search.
        enumerated: whether all fillings are evaluated.
        of: the contestant whose finalists take the place of the spaces, with the prediction `PREDICTION`.
    """

    spaces: tuple[str, ...]
    strategy: str
    enumerated: bool
    of: str = ""


CONTESTANTS: Final[Mapping[str, Contestant]] = {
    "grid": Contestant(("fcos", "panet"), "random", True),
    "search": Contestant(("fcos_family",), "bayes", False),
    "random": Contestant(("fcos_family",), "random", False),
    "nas_fcos": Contestant(("nas_fcos",), "random", True),
    "decoder": Contestant(("fcos_family",), "bayes", False),
    "gfl": Contestant(("gfl",), "random", True),
    "search_gfl": Contestant((), "random", True, of="search"),
    "random_gfl": Contestant((), "random", True, of="random"),
}
PREDICTION: Final = "gfl(bins=16)"


class Finalist(NamedTuple):
    """A detector that a contestant chose.

    Attributes:
        rank: among the contestant's, from 0.
        reward: of the proxy task.
        latency: predicted, in milliseconds.
        evaluations: how many proxy tasks the contestant ran, those of the contestant whose finalists it takes included.
    """

    budget: int
    contestant: str
    rank: int
    reward: float
    latency: float
    evaluations: int
    text: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.budget}_{self.contestant}_{self.rank}"


class Clock:
    """Predicted milliseconds of the text of a detector, at one pace.

    The predictor's milliseconds are its measured ratios times the pace of the machine, which it follows; a budget that moved
    with it would let in detectors that the others were refused.
    """

    def __init__(self, table: Path) -> None:
        self.predictor = LatencyPredictor("onnxruntime", 1, BACKBONE, classes=3, table=table)
        name, width, size = REFERENCE
        decoder = nasdsl.load(resources.folder("genotypes") / f"{name}.nas").with_width(width)
        self._reference = decoder.with_detector(size, BACKBONE).canonical
        kept = table.with_name("unit.json")
        if not kept.exists():
            kept.write_text(json.dumps(self.predictor(self._reference)))
        self.unit = float(json.loads(kept.read_text()))

    def __call__(self, text: str) -> float:
        found = self.predictor(text)
        return self.unit * found / self.predictor(self._reference)


def open_space(name: str, sizes: Sequence[tuple[int, int]], widths: Sequence[int]) -> Space:
    """A space or decoder of the zoo, as a space of whole detectors."""
    folder = resources.folder("genotypes")
    file = folder / "spaces" / f"{name}.nas"
    space = load_space(file if file.exists() else folder / f"{name}.nas", backbone=BACKBONE, classes=3)
    return space.with_width(*widths).with_detector(sizes, (BACKBONE,))


def open_spaces(
    budget: int, contestant: Contestant, sizes: Sequence[tuple[int, int]], widths: Sequence[int], given: argparse.Namespace
) -> dict[str, Space]:
    """What a contestant chooses from, by name."""
    if not contestant.of:
        return {name: open_space(name, sizes, widths) for name in contestant.spaces}
    decoders = [nasdsl.loads(one.text).with_prediction(PREDICTION) for one in finalists_of(budget, contestant.of, given)]
    spaces = [loads_space(decoder.canonical, backbone=BACKBONE, classes=3) for decoder in decoders]
    return {str(rank): space.with_detector(sizes, (BACKBONE,)) for rank, space in enumerate(spaces)}


def evaluation(space: Space, given: argparse.Namespace, sizes: Sequence[tuple[int, int]]) -> DetectorEvaluation:
    """The proxy task of each size, the same for all contestants."""
    spec = ProxySpec(
        given.data, backbone=BACKBONE, backbone_weights=str(given.weights), levels=("c2", "c3", "c4", "c5"), device="cpu",
        cache=str(given.out / "features"), **{**SMALL, "size": 64, "seeds": given.proxy_seeds},
    )  # fmt: skip
    every = space.with_detector(sizes, (BACKBONE,))  # also where one size is fixed, so that rewards compare
    specs = proxy_specs(every, spec, shorter_side=round(SCALE * max(map(min, sizes))))
    return DetectorEvaluation({key: ProxyEvaluation(one) for key, one in specs.items()})


def choose(budget: int, name: str, clock: Clock, given: argparse.Namespace) -> list[Finalist]:
    """Run the searches of a contestant; returns its finalists."""
    contestant, sizes = CONTESTANTS[name], SIZES[budget]
    chosen: tuple[tuple[int, int], ...] = tuple(sizes)
    widths: tuple[int, ...] = WIDTHS
    if name == "decoder":
        best = nasdsl.loads(finalists_of(budget, "grid", given)[0].text)
        assert best.size is not None
        chosen, widths = (best.size,), (best.architecture.fpn.width,)
    trials, count = list[tuple[float, str]](), 0
    if contestant.of:
        count = finalists_of(budget, contestant.of, given)[0].evaluations
    for space_name, space in open_spaces(budget, contestant, chosen, widths, given).items():
        evaluate = evaluation(space, given, sizes)
        found = search(
            space, evaluate, contestant.strategy, ENUMERATED if contestant.enumerated else 10 * given.trials,
            out=given.out / f"{budget}_{name}_{space_name}", resume=True, budgets=[f"latency:{budget * clock.unit:.3f}ms"],
            latency=lambda text: clock(text) / 1000, evaluations=None if contestant.enumerated else given.trials,
            task=evaluate.identity,
        )  # fmt: skip
        done = [(trial.reward, trial.text) for trial in found if trial.verdict == "ok" and trial.reward is not None]
        trials += done
        count += len(done)
    trials.sort(reverse=True)
    return [
        Finalist(budget, name, rank, round(reward, 4), round(clock(text), 3), count, text)
        for rank, (reward, text) in enumerate(trials[: given.finalists])
    ]


def run(finalist: Finalist, seed: int, given: argparse.Namespace) -> dict[str, Any] | None:
    """Train and evaluate a finalist; None if the training diverges."""
    folder = given.out / "trained" / f"{finalist.name}_{given.epochs}_s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    decoder = nasdsl.loads(finalist.text)
    improvements = isinstance(decoder.architecture.predict, Fcos)
    changes = {"epochs": given.epochs, "size": decoder.size, "seed": seed, "evaluate_every": 0, "checkpoint_every": 100}
    recipe = find_recipe("small").changed(changes)
    config = TrainingConfig(
        data=given.data, val_split=None, backbone=BACKBONE, backbone_weights=str(given.weights), recipe=recipe,
        improvements=improvements,
    )  # fmt: skip
    trained = train_in_full(config, decoder, folder, SPLITS)
    if trained is None:
        return None
    shutil.rmtree(folder)
    ap = {f"ap_{split}": round(value, 2) for split, value in trained.ap.items()}
    return {**finalist._asdict(), "epochs": given.epochs, "seed": seed, **ap, "cpu_s": trained.cpu_s}


def plan(finalists: Mapping[tuple[int, str], Sequence[Finalist]], given: argparse.Namespace) -> Iterator[tuple[Finalist, int]]:
    """All trainings, those from which most is learnt first."""
    first = [found[0] for found in finalists.values() if found]
    others = [one for found in finalists.values() for one in found[1:]]
    yield from ((one, seed) for seed in range(given.seeds) for one in first)
    yield from ((one, seed) for seed in range(given.seeds) for one in others)


def _append(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(file, "a", encoding="utf-8") as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows))


def finalists_of(budget: int, contestant: str, given: argparse.Namespace) -> list[Finalist]:
    """Those that another contestant starts from."""
    found = read_finalists(given).get((budget, contestant))
    if found is None:
        raise SystemExit(f"`{contestant}` has no finalists at {budget}x yet: add it to --contestants")
    return found


def read_finalists(given: argparse.Namespace) -> dict[tuple[int, str], list[Finalist]]:
    """The finalists that are known, by budget and contestant."""
    found: dict[tuple[int, str], list[Finalist]] = {}
    for row in read_lines(given.searches):
        found.setdefault((row["budget"], row["contestant"]), []).append(Finalist(**{k: row[k] for k in Finalist._fields}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="SPEC of BCCD, with the splits train, val and test")
    parser.add_argument("--weights", required=True, type=Path, help="weights of MobileNetV2")
    parser.add_argument("--out", required=True, type=Path, help="folder of searches, features, unfinished trainings")
    parser.add_argument("--results", type=Path, default=HERE / "claim.jsonl", help="file of trainings")
    parser.add_argument("--searches", type=Path, default=HERE / "claim_searches.jsonl", help="file of finalists")
    parser.add_argument("--budgets", type=int, nargs="+", choices=list(SIZES), default=list(SIZES), help="times the smallest")
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--trials", type=int, default=100, help="evaluations of a search")
    parser.add_argument("--proxy-seeds", type=int, default=1, help="trainings of a proxy task")
    parser.add_argument("--finalists", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trainings", type=int, help="stop after this many")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    clock = Clock(given.out / "latency.json")
    for budget in given.budgets:
        for contestant in given.contestants:
            if (budget, contestant) in read_finalists(given):
                continue
            limit = budget * clock.unit
            print(f"{contestant}, {limit:.2f} ms", flush=True)
            try:
                found = choose(budget, contestant, clock, given)
            except SpaceError as error:  # nothing fits
                print(error, flush=True)
                continue
            _append(given.searches, [{**one._asdict(), "limit": round(limit, 3)} for one in found])
    finalists = {key: found for key, found in read_finalists(given).items() if key[0] in given.budgets}
    known = {(r["budget"], r["contestant"], r["rank"], r["epochs"], r["seed"]) for r in read_lines(given.results)}
    trained = 0
    for one, seed in plan({key: found for key, found in finalists.items() if key[1] in given.contestants}, given):
        if (*one[:3], given.epochs, seed) in known or trained == given.trainings:
            continue
        row = run(one, seed, given)
        trained += 1
        if row is not None:
            _append(given.results, [row])
            print(f"{one.name}, seed {seed}: AP {row['ap_val']} on val, {row['ap_test']} on test, {row['cpu_s']} s", flush=True)


if __name__ == "__main__":
    main()
