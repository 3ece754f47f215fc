"""Training in two processes with Gloo on the CPU: equal weights in both, and equal to one process with the whole batch."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from children import exit_code, in_child
from small_training import SHAPES, VAL, differences, recipe, small

import nasdsl
from nasdsl.data import UnreadableImage
from nasdsl.training import Run, RunError, TrainingError, train, validation
from nasdsl.training.checkpoint import load_checkpoint
from nasdsl.training.distributed import ProcessGroup, process_group
from nasdsl.training.loaders import make_train_loader
from nasdsl.training.loop import _restore
from nasdsl.training.trainer import Trainer

SUMS_DIFFER = {"rtol": 1e-4, "atol": 1e-6}
"""Tolerances: sums over two processes are rounded differently from sums over one batch."""


def in_two(work: Callable[[int], object]) -> list[int]:
    """Run `work(rank)` in two processes with the environment variables of torchrun; return their exit codes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def with_variables(rank: int) -> object:
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()})
        return work(rank)

    children = [in_child(lambda rank=rank: with_variables(rank)) for rank in (0, 1)]  # type: ignore[misc]
    return [exit_code(child) for child in children]


def trained(rank: int, out: Path, how: Any, *, resume: bool = False, **options: Any) -> None:
    """Train in this process, and save its weights to a file of its own."""
    detector = small(seed=rank, **options)  # the processes start with different weights, which DDP makes equal
    train(detector, SHAPES, how, out, VAL, resume=resume, quiet=True)
    torch.save(detector.state_dict(), out.parent / f"{out.name}_{rank}.pt")


def weights(out: Path, rank: int) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = torch.load(out.parent / f"{out.name}_{rank}.pt", weights_only=True)
    return loaded


@pytest.mark.long
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_give_the_weights_of_one(tmp_path: Path, accumulate: int) -> None:
    """Without BatchNorm and dropout, which depend on the pictures of their own process."""
    how = recipe(schedule="constant", accumulate=accumulate, evaluate_every=2)
    assert in_two(lambda rank: trained(rank, tmp_path / "two", how, norm=False, dropout=0.0)) == [0, 0]
    first, second = weights(tmp_path / "two", 0), weights(tmp_path / "two", 1)
    assert differences(first, second) == []
    if accumulate == 1:  # else the losses are divided by the number of positives of other pictures
        train(small(norm=False, dropout=0.0), SHAPES, how, tmp_path / "one", VAL, quiet=True)
        one = load_checkpoint(Run(tmp_path / "one").checkpoint).state["detector"]  # type: ignore[union-attr]
        for name, value in one.items():
            assert torch.allclose(first[name], value, **SUMS_DIFFER), name
        losses = [[json.loads(line) for line in Run(tmp_path / n).log.read_text().splitlines()] for n in ("one", "two")]
        assert losses[0][0]["loss"] == pytest.approx(losses[1][0]["loss"], rel=1e-4)
    # Evaluated by both processes, written once, complete and in order.
    results = json.loads(Run(tmp_path / "two").results.read_text())
    assert [r["image_id"] for r in results] == [VAL.image_id(i) for i in range(len(VAL))]


@pytest.mark.long
def test_two_processes_stop_together_and_resume_to_equal_weights(tmp_path: Path) -> None:
    """With BatchNorm, dropout and averaging. Only one process gets the signal, in step 3; the next logged step is 4."""
    how = recipe(ema=0.9, accumulate=2, group_by_aspect=False)
    assert in_two(lambda rank: trained(rank, tmp_path / "whole", how)) == [0, 0]

    def signalled(rank: int) -> None:
        stop = lambda forward: rank == 1 and forward == 4 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        trained(rank, tmp_path / "broken", how, on_step=stop)

    assert in_two(signalled) == [143, 143]
    assert load_checkpoint(Run(tmp_path / "broken").checkpoint).state["step"] == 4  # type: ignore[union-attr]
    assert in_two(lambda rank: trained(rank + 2, tmp_path / "broken", how, resume=True)) == [0, 0]
    ours, wanted = (load_checkpoint(Run(tmp_path / n).checkpoint).state for n in ("broken", "whole"))  # type: ignore[union-attr]
    assert ours["step"] > 4
    assert differences(ours, wanted) == []


@pytest.mark.long
def test_two_processes_agree_on_the_steps_that_fit_and_on_stopping_early(tmp_path: Path) -> None:
    """Rank 0 alone evaluates and counts; all evaluations are equal, so that the second one is one too many."""
    how = recipe(evaluate_every=1, patience=1)

    def fit(rank: int) -> None:
        validation.main_figure = lambda _: 0.5  # here: nothing that is replaced in the test's process reaches this one
        outcome = train(small(seed=rank), SHAPES, how, tmp_path / "two", VAL, minutes=0.5, quiet=True)
        (tmp_path / f"steps_{rank}").write_text(f"{outcome.steps} {outcome.stopped_early}")

    assert in_two(fit) == [0, 0]
    assert [(tmp_path / f"steps_{rank}").read_text() for rank in (0, 1)] == ["6 True"] * 2, "two epochs of three steps"
    assert Run(tmp_path / "two").read_config()["recipe"]["steps"] > 6


@pytest.mark.long
def test_unreadable_pictures_of_other_processes_are_reported(tmp_path: Path) -> None:
    def second_reads_badly(rank: int) -> None:
        if rank == 1:
            pixels = type(SHAPES)._read_image

            def broken(self: Any, index: int, at_least: Any) -> Any:
                if index % 2:
                    raise UnreadableImage(f"{self.name} {index}", "it is truncated")
                return pixels(self, index, at_least)

            type(SHAPES)._read_image = broken  # type: ignore[method-assign]
        trained(rank, tmp_path / "two", recipe(epochs=4))

    assert in_two(second_reads_badly) == [0, 0]
    records = [json.loads(line) for line in Run(tmp_path / "two").log.read_text().splitlines()]
    named = [record["file"] for record in records if record["event"] == "skipped"]
    assert len(set(named)) == len(named)
    assert any("(train)" in file for file in named), "in the training"
    assert any("(val)" in file for file in named), "in the evaluation"


@pytest.mark.long
def test_images_per_second_counts_the_pictures_of_all_processes(tmp_path: Path) -> None:
    """13 pictures in batches of 2: each process has four batches an epoch, with 8 and 7 pictures, one of them given twice."""

    def count(rank: int) -> None:
        pictures, detector = list[int](), small(seed=rank)
        detector.register_forward_pre_hook(lambda module, args: (module.training and pictures.append(len(args[0]))) or None)
        train(detector, SHAPES, recipe(epochs=2, drop_last=False), tmp_path / "two", quiet=True)
        (tmp_path / f"pictures_{rank}").write_text(json.dumps(pictures))

    assert in_two(count) == [0, 0]
    counted = [json.loads((tmp_path / f"pictures_{rank}").read_text()) for rank in (0, 1)]
    assert 1 in counted[0] + counted[1]
    records = [json.loads(line) for line in Run(tmp_path / "two").log.read_text().splitlines()]
    step = 0
    for record in records:
        pictures = sum(sum(of_process[step : record["step"]]) for of_process in counted)
        assert record["images"] == pictures
        assert record["images_per_s"] == pytest.approx(pictures / record["seconds"])
        step = record["step"]


@pytest.mark.long
def test_a_decoder_that_does_not_read_the_last_feature(tmp_path: Path) -> None:
    """The last stage of the backbone gets no gradients, and DDP must not wait for them."""
    text = """
      decoder two_levels {
        input c3, c4
        fpn(width=32, norm=bn) { output p3 = sum(c3, c4), p4 = conv_3x3(c4) }
        head(width=32, norm=gn) { conv_3x3 }
        predict fcos()
      }
    """

    def train_it(rank: int) -> None:
        made = nasdsl.detector(nasdsl.loads(text), "tiny", None, SHAPES.classes, category_ids=SHAPES.category_ids, seed=0)
        train(made, SHAPES, recipe(epochs=1, size=(48, 64)), tmp_path / "two", quiet=True)

    assert in_two(train_it) == [0, 0]
    assert load_checkpoint(Run(tmp_path / "two").checkpoint).state["step"] == 3  # type: ignore[union-attr]


@pytest.mark.long
def test_a_batch_that_cannot_be_divided(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = recipe(batch_size=3, epochs=1)
    assert in_two(lambda rank: trained(rank, tmp_path / "two", how)) == [1, 1]
    assert "batch_size is 3, which 2 processes with 1 accumulated batches each cannot share" in capfd.readouterr().err


def test_a_group_that_the_caller_has_made_is_used_and_left() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with process_group("cpu") as group:
            assert (group.rank, group.world_size) == (0, 1)
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


def test_processes_that_do_not_see_the_same_folder_are_told(tmp_path: Path) -> None:
    class Apart(ProcessGroup):
        def all_gather(self, value: Any) -> list[Any]:
            return [value, value + 3]

    group = Apart(torch.device("cpu"))
    trainer = Trainer(small(), recipe(), 9, group)
    with pytest.raises(RunError, match=f"^{tmp_path} is not the same for all processes: it must be on a file system that they"):
        _restore(trainer, Run(tmp_path), group)


def test_a_batch_that_two_processes_cannot_share() -> None:
    says = "batch_size is 6, which 2 processes with 2 accumulated batches each cannot share; expected a multiple of 4"
    with pytest.raises(TrainingError, match=says):
        make_train_loader(SHAPES, recipe(batch_size=6, accumulate=2), ProcessGroup(torch.device("cpu"), 0, 2))


def test_a_single_process() -> None:
    with process_group("cpu") as group:
        assert (group.rank, group.world_size, group.is_main) == (0, 1, True)
        assert group.all_gather("x") == ["x"]
        assert group.all_max(3) == 3
    with pytest.raises(TrainingError, match="device 'toaster' cannot be used"), process_group("toaster"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="torch sees no GPU"), process_group("cuda"):
            pass
