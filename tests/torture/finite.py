"""Trainings on extreme pictures and boxes: the weights stay finite, in float32 and with autocast to bfloat16."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "detection"))

import random_decoders
from small_detectors import body

from nasdsl.data import Batch
from nasdsl.decoder import loads
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector
from nasdsl.training import RECIPES, Diverged
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.trainer import Trainer
from torture.subject import Case, Report, Subject

STEPS = 200
SIZE = (64, 96)
PRECISIONS = ("float32", "bfloat16")


def seed_of(number: int) -> int:
    """The seed of the random decoder of a case; two cases have the same."""
    return number // 2 * 3 + 1 + number // 2 % 2


def decoder_of(number: int) -> Detector:
    """A detector with the random decoder of a number; decoders that name a detector of their own are left out."""
    seed = seed_of(number)
    torch.manual_seed(seed)
    size = SIZE[0]
    return detector(loads(random_decoders.text(seed)), body(norm=seed % 2 == 0), classes=3, min_size=size, max_size=SIZE[1])


def picture(rng: random.Random) -> Tensor:
    """uint8 [3, H, W]: black, white, one colour, noise of one pixel, stripes, or a single white pixel."""
    height, width = SIZE
    match rng.randrange(6):
        case 0 | 1:
            return torch.full((3, height, width), rng.choice((0, 255)), dtype=torch.uint8)
        case 2:
            return (
                torch.tensor([rng.randrange(256) for _ in range(3)], dtype=torch.uint8)[:, None, None].expand(3, *SIZE).clone()
            )
        case 3:
            generator = torch.Generator().manual_seed(rng.randrange(2**31))
            return torch.randint(0, 2, (3, height, width), dtype=torch.uint8, generator=generator) * 255
        case 4:
            return ((torch.arange(width) % 2) * 255).to(torch.uint8).expand(3, *SIZE).clone()
    found = torch.zeros(3, height, width, dtype=torch.uint8)
    found[:, rng.randrange(height), rng.randrange(width)] = 255
    return found


def boxes(rng: random.Random) -> Tensor:
    """Boxes as data sets may have them: none, hundreds at one place, the whole picture, dots, slivers, far beyond the edge."""
    height, width = SIZE
    match rng.randrange(7):
        case 0:
            found: list[list[float]] = []
        case 1:
            found = [[10, 10, 40, 40]] * 300
        case 2:
            found = [[0, 0, width, height]] * 3
        case 3:
            found = [[x := rng.uniform(0, width - 1), y := rng.uniform(0, height - 1), x + 1e-3, y + 1e-3] for _ in range(5)]
        case 4:
            found = [[x := rng.uniform(0, width - 1), 0, x + 0.01, height] for _ in range(5)]
        case 5:
            found = [[-1e6, -1e6, 1e6, 1e6], [-500, 3, 4000, 5]]
        case _:
            found = [
                [x := rng.uniform(0, 60), y := rng.uniform(0, 40), x + rng.uniform(2, 30), y + rng.uniform(2, 20)]
                for _ in range(8)
            ]
    return torch.tensor(found, dtype=torch.float32).reshape(-1, 4)


def batches(rng: random.Random) -> Iterator[Batch]:
    """Batches of two pictures without end."""
    while True:
        targets = []
        for _ in range(2):
            found = boxes(rng)
            targets.append({"boxes": found, "labels": torch.tensor([rng.randrange(3) for _ in found], dtype=torch.int64)})
        yield Batch(torch.stack([picture(rng), picture(rng)]), [SIZE, SIZE], targets)


@contextmanager
def start(folder: Path, steps: int = STEPS) -> Iterator[Case]:
    """Nothing is prepared."""
    torch.set_num_threads(1)

    def case(number: int, report: Report) -> None:
        precision = PRECISIONS[number % 2]
        model = decoder_of(number).train()
        report.about(f"{precision}, random decoder {seed_of(number)}")
        report.count(f"steps, {precision}", steps)
        recipe = RECIPES["quick"].changed(
            {"size": SIZE, "batch_size": 2, "steps": steps, "precision": precision, "epochs": None}
        )
        trainer = Trainer(model, recipe, steps, ProcessGroup(torch.device("cpu")))
        trainer.prepare()
        given = batches(random.Random(number))
        try:
            for step in range(steps):
                with report.step("step"):
                    trainer.train_step(given)
                if (step + 1) % 20 == 0:
                    trainer.read_metrics()
        except Diverged:
            report.count("diverged")
        report.count("skipped steps", trainer.nonfinite)
        wrong = [name for name, value in model.state_dict().items() if value.is_floating_point() and not value.isfinite().all()]
        if wrong:
            report.finding(f"{report.text}: not finite after {trainer.step} steps: {', '.join(wrong[:5])}")
        with torch.no_grad(), report.step("detect"):
            for found in model.eval()(torch.stack([picture(random.Random(1))]), sizes=[SIZE]):
                if not all(found[name].isfinite().all() for name in ("boxes", "scores")):
                    report.finding(f"{report.text}: detections that are not finite")

    yield case


SUBJECT = Subject("finite", "trainings", 100, start, hang=3600, per_process=20)
