"""Complete trainings: bit-for-bit resuming, the files of a run, the figures of the log."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from children import exit_code, in_child
from small_training import SHAPES, VAL, FakeClock, checkpoint, differences, recipe, small

from nasdsl.data import UnreadableImage
from nasdsl.files import unfinished_path
from nasdsl.training import Diverged, Interrupted, Run, RunError, TrainingError, train, validation
from nasdsl.training.checkpoint import load_checkpoint, previous_path
from nasdsl.training.logger import read_log
from nasdsl.training.progress import about_duration
from nasdsl.training.run import open_run
from nasdsl.training.signals import SignalHandler


def records(out: Path, event: str = "train") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Run(out).log.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


FULL = {"ema": 0.95, "clip_norm": 1.0, "accumulate": 2}
AUGMENTED = {
    "mosaic": 0.7, "close_mosaic": 0.3, "scale_jitter": (0.7, 1.6), "jitter": (0.4, 0.4, 0.4, 0.1),
    "sizes": ((16, 24), (24, 32), (32, 32)), "backbone_rate": 0.5,
}  # fmt: skip
KINDS = {
    "quick": {},
    "full": FULL,
    "sgd": {"optimizer": "sgd", "schedule": "step", "warmup_steps": 3},
    "workers": {"workers": 2, "cache": False},
    "augmented": {**AUGMENTED, "accumulate": 2, "ema": 0.9},
    "augmented_by_workers": {**AUGMENTED, "workers": 1, "cache": False, "crop": (20, 28)},
}


def test_the_recipe_of_these_tests_has_several_steps_an_epoch() -> None:
    """13 pictures in steps of 4 with drop_last: 3 steps an epoch. With accumulate=2: batches of 2, 6 an epoch."""
    assert len(SHAPES) // recipe().batch_size == 3


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long if kind in ("augmented", "sgd") else ()) for kind in KINDS]
)
def test_stopped_within_an_epoch_and_resumed_to_equal_weights(kind: str, tmp_path: Path) -> None:
    how = recipe(**KINDS[kind])
    train(small(), SHAPES, how, tmp_path / "whole", quiet=True)
    wanted = checkpoint(tmp_path / "whole")
    assert wanted["step"] == 9

    out, in_fifth = tmp_path / "broken", 4 * how.accumulate + 1
    stop = lambda forward: forward + 1 == in_fifth and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Interrupted) as raised:
        train(small(on_step=stop), SHAPES, how, out, quiet=True)
    assert (raised.value.code, raised.value.step) == (128 + signal.SIGTERM, 5)
    # Other initial weights and another random state: everything must come from the checkpoint.
    train(small(seed=1), SHAPES, how, out, resume=True, quiet=True)
    assert differences(checkpoint(out), wanted) == []
    assert [r["step"] for r in records(out)] == [2, 4, 5, 6, 8, 9]


@pytest.mark.long
def test_killed_at_a_random_instant_and_resumed_to_equal_weights(tmp_path: Path) -> None:
    """Several SIGKILLs at random instants; checkpoints every second step."""
    how = recipe(epochs=40, checkpoint_every=2, ema=0.9)
    train(small(), SHAPES, how, tmp_path / "whole", quiet=True)
    wanted = checkpoint(tmp_path / "whole")
    out, kills = tmp_path / "killed", 0
    for delay in (0.03, 0.11, 0.07, 0.19):
        before = _saved(out)
        child = in_child(
            partial(
                train,
                small(seed=9 if kills else 0, on_step=lambda _: time.sleep(0.05)),
                SHAPES,
                how,
                out,
                resume=True,
                quiet=True,
            )
        )
        while _runs(child) and _saved(out) == before:
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        kills += exit_code(child) == -signal.SIGKILL
    assert kills >= 2
    assert checkpoint(out)["step"] < 120, "nothing was left to resume, so the test proves nothing"
    train(small(seed=9), SHAPES, how, out, resume=True, quiet=True)
    assert differences(checkpoint(out), wanted) == []
    steps = [r["step"] for r in records(out)]
    assert steps == sorted(set(steps))


def _runs(child: int) -> bool:
    """Whether the child is running. It is not reaped."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _saved(out: Path) -> tuple[int, int] | None:
    """Identifies the checkpoint, without reading it: on a busy machine the child could finish meanwhile."""
    try:
        found = Run(out).checkpoint.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@pytest.mark.long
def test_a_truncated_checkpoint_falls_back_to_the_previous_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    how = recipe(checkpoint_every=2)
    train(small(), SHAPES, how, tmp_path / "whole", quiet=True)
    out = tmp_path / "broken"

    def crash(forward: int) -> None:
        if forward == 7:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(small(on_step=crash), SHAPES, how, out, quiet=True)
    path = Run(out).checkpoint
    path.write_bytes(path.read_bytes()[:1000])
    assert load_checkpoint(path).path == previous_path(path)  # type: ignore[union-attr]
    train(small(seed=5), SHAPES, how, out, resume=True)
    printed = capfd.readouterr().err
    assert "cannot be read as a checkpoint" in printed
    assert "resuming from step 4 of 9" in printed
    assert differences(checkpoint(out), checkpoint(tmp_path / "whole")) == []


def test_files_of_a_run(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    detector = small()
    outcome = train(detector, SHAPES, recipe(ema=0.9, evaluate_every=2), out, VAL, about={"command": "nasdsl train"})
    run = Run(out)
    checkpoints = {"checkpoint.pt", "checkpoint.previous.pt", "model.pt", "best.pt"}
    others = {"config.json", "decoder.nas", "log.jsonl", "metrics.json", "results.json"}
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == checkpoints | others
    config = run.read_config()
    assert config["recipe"]["batch_size"] == 4
    assert config["detector"] == detector.config
    assert config["about"] == {"command": "nasdsl train"}
    assert run.decoder.read_text() == "decoder small {}\n"
    assert [r["step"] for r in records(out)] == [2, 4, 6, 8, 9]
    assert [r["step"] for r in records(out, "evaluation")] == [6, 9]
    assert json.loads(run.metrics.read_text())["step"] == 9
    assert outcome.evaluation is not None
    assert len(json.loads(run.results.read_text())) == len(VAL)
    saved = torch.load(run.model, weights_only=True)["model"]
    averaged = checkpoint(out)["average"]
    assert differences(saved, {k.removeprefix("module."): v for k, v in averaged.items() if k != "n_averaged"}) == []
    assert differences(saved, detector.state_dict()), "model.pt has the last weights, not the averaged ones"
    lines = capfd.readouterr().err
    assert "13 images, 3 steps an epoch, 9 steps" in lines
    assert "images/s" in lines
    assert "step 9: AP" in lines


def test_resuming_a_finished_run_changes_nothing(out: Path) -> None:
    train(small(), SHAPES, recipe(), out, VAL, quiet=True)
    before, log = checkpoint(out), Run(out).log.read_bytes()
    outcome = train(small(seed=3), SHAPES, recipe(workers=1, log_every=5), out, VAL, resume=True, quiet=True)
    assert outcome.evaluation is not None
    assert differences(checkpoint(out), before) == []
    assert Run(out).log.read_bytes() == log


def test_a_run_is_not_overwritten_or_resumed_with_other_settings(out: Path) -> None:
    train(small(), SHAPES, recipe(), out, quiet=True)
    with pytest.raises(RunError, match=r"holds a run already.*--resume"):
        train(small(), SHAPES, recipe(), out, quiet=True)
    with pytest.raises(RunError, match=r"recipe: learning_rate was 0\.001, is 0\.5"):
        train(small(), SHAPES, recipe(learning_rate=0.5), out, resume=True, quiet=True)
    with pytest.raises(RunError, match="detector: norm was true, is false"):
        train(small(norm=False), SHAPES, recipe(), out, resume=True, quiet=True)
    with pytest.raises(RunError, match="data: pictures was 13, is 5"):
        train(small(), VAL, recipe(), out, resume=True, quiet=True)
    file = out.parent / "file"
    file.touch()
    with pytest.raises(RunError, match="is a file"):
        train(small(), SHAPES, recipe(), file, quiet=True)


@pytest.mark.long
def test_a_run_of_an_earlier_version_without_newer_settings_is_resumed(out: Path) -> None:
    train(small(), SHAPES, recipe(), out, quiet=True)
    config = json.loads(Run(out).config.read_text())
    for name in ("backbone_rate", "decay_scales"):
        del config["recipe"][name]
    Run(out).config.write_text(json.dumps(config))
    with pytest.raises(RunError, match="recipe: decay_scales was true, is false") as error:
        train(small(), SHAPES, recipe(), out, resume=True, quiet=True)
    assert "backbone_rate" not in str(error.value)


def test_two_trainings_in_one_folder(out: Path) -> None:
    """The second is refused while the first one runs, and changes nothing; resumed after it, it goes on."""
    refused = []

    def second(step: int) -> None:
        if step == 3:
            before = {path.name: path.read_bytes() for path in out.iterdir()}
            with pytest.raises(RunError, match="another training is running in"):
                train(small(), SHAPES, recipe(), out, resume=True, quiet=True)
            refused.append(before == {path.name: path.read_bytes() for path in out.iterdir()})

    train(small(on_step=second), SHAPES, recipe(), out, quiet=True)
    assert refused == [True]
    train(small(), SHAPES, recipe(), out, resume=True, quiet=True)


def test_a_log_that_is_damaged_is_read_without_the_damage(out: Path) -> None:
    train(small(), SHAPES, recipe(), out, VAL, quiet=True)
    log = Run(out).log
    whole = read_log(log)
    damaged = log.read_bytes() + b'\0\0\n[1]\n{"step": 1}\n{"event": "train", "st'
    log.write_bytes(damaged.replace(b'"event": "train"', b'"event": "train", "file": "a\xe2\x80\xa8b"', 1))
    assert [record["step"] for record in read_log(log)] == [record["step"] for record in whole]
    train(small(), SHAPES, recipe(), out, VAL, resume=True, quiet=True)


def test_different_classes_are_refused(out: Path) -> None:
    detector = small()
    detector.classes = ("cat", "dog")
    with pytest.raises(TrainingError, match=r"2 classes: cat, dog; shapes.* has 5: circle, "):
        train(detector, SHAPES, recipe(), out, quiet=True)
    assert not out.exists()


def test_a_diverged_training_keeps_the_checkpoint(out: Path) -> None:
    detector = small()

    def breaks(forward: int) -> None:
        if forward == 4:
            detector.broken = float("nan")

    detector.on_step = breaks
    with pytest.raises(Diverged):
        train(detector, SHAPES, recipe(checkpoint_every=2, most_nonfinite=2), out, quiet=True)
    state = checkpoint(out)
    assert state["step"] == 4
    assert all(t.isfinite().all() for t in state["detector"].values())


@pytest.mark.long  # a new process; that SIGTERM stops a training and it resumes is tested above
def test_ctrl_c_exits_with_130_and_explains_how_to_resume(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = in_child(
        lambda: train(small(on_step=lambda f: f == 4 and os.kill(os.getpid(), signal.SIGINT)), SHAPES, recipe(), out)
    )
    assert exit_code(child) == 130
    printed = capfd.readouterr().err
    assert "finishing the step and saving" in printed
    assert f"stopped at step 5 of 9; {out} is saved: --resume" in printed
    assert checkpoint(out)["step"] == 5


def test_a_second_ctrl_c_exits_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with SignalHandler() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.signum == signal.SIGINT
        with pytest.raises(SystemExit) as raised:
            signal.raise_signal(signal.SIGINT)
    assert raised.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_sigterm_and_an_alarm_that_comes_late_change_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with SignalHandler(grace=1000) as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGALRM)  # nothing is under way that could be abandoned
        assert signals.signum == signal.SIGTERM
    assert capfd.readouterr().err.count("Ctrl-C again leaves at once") == 1


def test_a_forked_process_leaves_ctrl_c_to_the_main_one_and_ends_by_sigterm(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with SignalHandler() as signals:
        signals._owner = -1  # another process has made it
        signal.raise_signal(signal.SIGINT)
        assert ended == []
        signal.raise_signal(signal.SIGTERM)
        assert (ended, signals.signum) == ([143], 0)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("code", [None, 3, 128, "why"])
def test_what_exits_by_itself_is_no_signal(code: object) -> None:
    with SignalHandler() as signals:
        with pytest.raises(SystemExit) as leaving, signals.interruptible():
            raise SystemExit(code)
        assert (leaving.value.code, signals.signum) == (code, 0)
        with signals.interruptible():
            raise SystemExit(130)
        assert signals.signum == signal.SIGINT


def test_a_signal_in_an_evaluation_ends_it_and_a_resumed_training_makes_it(
    out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    detector, how, four = small(), recipe(epochs=2, evaluate_every=1), SHAPES.select(range(4))

    def interrupt(module: Any, arguments: Any) -> None:
        if not module.training:
            signal.raise_signal(signal.SIGTERM)

    detector.register_forward_pre_hook(interrupt)
    with pytest.raises(Interrupted) as leaving:
        train(detector, four, how, out, VAL)
    assert (leaving.value.code, leaving.value.step) == (143, 1)
    assert f"stopped at step 1 of 2; {out} is saved: --resume goes on from there" in capfd.readouterr().err
    assert records(out, "evaluation") == []
    train(small(seed=3), four, how, out, VAL, resume=True, quiet=True)
    assert [record["step"] for record in records(out, "evaluation")] == [1, 2]


def test_unreadable_pictures_are_named_once_each(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    read = type(SHAPES)._read_image

    def broken(self: Any, index: int, at_least: Any) -> Any:
        if index == 1:
            raise UnreadableImage(f"{self.name} {index}", "it is truncated")
        return read(self, index, at_least)

    monkeypatch.setattr(type(SHAPES), "_read_image", broken)
    outcome = train(small(), SHAPES, recipe(batch_size=8, epochs=2, cache=False), out, VAL)
    skipped = records(out, "skipped")
    names = [f"{dataset.name} 1" for dataset in (SHAPES, VAL)]
    assert [(record["file"], record["reason"]) for record in skipped] == [(name, "it is truncated") for name in names]
    assert [entry.file for entry in outcome.skipped] == names
    said = capfd.readouterr().err
    assert "unreadable images: 2 (replaced by others in training, left out in evaluation)" in said
    assert all(said.count(f"skipped {name}") == 1 for name in names)


def test_a_run_that_cannot_be_read_or_written_is_named(out: Path) -> None:
    given: Any = {"detector": {"decoder": ""}, "recipe": {}, "data": {}}
    unfinished_path(Run(out).config).mkdir(parents=True)
    with pytest.raises(RunError, match=f"^cannot write to {out}: Is a directory$"):
        open_run(out, **given)
    unfinished_path(Run(out).config).rmdir()
    run = open_run(out, **given)
    assert not run.decoder.exists(), "there is no text of a decoder"
    run.config.write_text("{")
    with pytest.raises(RunError, match=f"^{run.config} cannot be read: "):
        run.read_config()


# ------------------------------------------------------------------------------------------------- figures of the log


@pytest.mark.parametrize(
    "settings",
    [
        {"drop_last": False},  # batches of 4, 4, 4 and 1
        {"drop_last": False, "accumulate": 2},  # six batches of 2, and one of 1
        *(
            pytest.param(settings, marks=pytest.mark.long)
            for settings in (
                {"drop_last": False, "batch_size": 16},  # one batch of 13
                {"drop_last": True},
                {"drop_last": False, "evaluate_every": 1},
            )
        ),
    ],
)
def test_images_per_second_counts_pictures(settings: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, how = FakeClock(monkeypatch), recipe(epochs=3, **settings)
    train(clock.watch(small()), SHAPES, how, out, VAL, quiet=True)
    step = 0
    for record in records(out):
        forwards = clock.pictures[step * how.accumulate : record["step"] * how.accumulate]
        assert record["images_per_s"] == pytest.approx(sum(forwards) / len(forwards))
        assert (record["images"], record["seconds"]) == (sum(forwards), len(forwards))
        step = record["step"]
    assert step == len(clock.pictures) // how.accumulate
    assert 1 in clock.pictures or 13 in clock.pictures or how.drop_last


def test_images_per_second_of_a_training_resumed_within_an_epoch(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, how = FakeClock(monkeypatch), recipe(epochs=2, drop_last=False, log_every=1)
    stop = lambda forward: forward == 2 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Interrupted):
        train(clock.watch(small(on_step=stop)), SHAPES, how, out, quiet=True)
    train(clock.watch(small()), SHAPES, how, out, quiet=True, resume=True)
    assert clock.pictures == [4, 4, 4, 1, 4, 4, 4, 1]
    assert [record["images_per_s"] for record in records(out)] == clock.pictures


def test_time_left_is_the_pace_of_steps_times_the_remaining_ones(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock(monkeypatch)
    train(clock.watch(small()), SHAPES, recipe(epochs=3, accumulate=2), out, quiet=True)
    assert [record["seconds_left"] for record in records(out)] == [2 * (9 - record["step"]) for record in records(out)]
    assert [record["epoch"] for record in records(out)] == [record["step"] / 3 for record in records(out)]


def test_time_left_includes_evaluations(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation takes 50 s here; before the first one, it is judged by the images: 5 of a quarter of a second each."""
    clock = FakeClock(monkeypatch)
    original = validation.predict

    def slow(*arguments: Any, **options: Any) -> Any:
        clock.now += 50
        return original(*arguments, **options)

    monkeypatch.setattr(validation, "predict", slow)
    train(clock.watch(small()), SHAPES, recipe(epochs=4, evaluate_every=2), out, VAL, quiet=True)
    left = {record["step"]: record["seconds_left"] for record in records(out)}
    guess = validation.FORWARD_SHARE * 5 / 4
    wanted = {2: 10 + 2 * guess, 4: 8 + 2 * guess, 6: 6 + 2 * guess, 8: 4 + 50, 10: 2 + 50, 12: 50}
    assert left == pytest.approx(wanted)
    assert [r["seconds"] for r in records(out, "evaluation")] == [50, 50]


def test_it_is_said_early_how_long_the_training_takes(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A step takes a second: after the first and three more there are 356 left, and two evaluations of a second each."""
    clock = FakeClock(monkeypatch)
    monkeypatch.setattr(validation, "FORWARD_SHARE", 0.8)
    train(clock.watch(small()), SHAPES, recipe(epochs=120, evaluate_every=60, log_every=100), out, VAL)
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("about")]
    assert len(said) == 1
    assert re.fullmatch(r"about 6 min for 356 more steps and 2 evaluations, until \d\d:\d\d", said[0])
    assert [about_duration(s) for s in (3, 42, 100, 5300, 5500, 12_000)] == [
        "5 s", "40 s", "2 min", "88 min", "1 h 30 min", "3 h 20 min",
    ]  # fmt: skip


def test_skipped_steps_of_a_resumed_training_are_reported_once(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    detector = small()

    def on_step(forward: int) -> None:
        detector.broken = float("nan") if forward in (1, 2) else 1.0
        if forward == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    detector.on_step = on_step
    with pytest.raises(Interrupted):
        train(detector, SHAPES, recipe(), out)
    assert capfd.readouterr().err.count("skipped 1 step with gradients that are not finite") == 2
    outcome = train(small(), SHAPES, recipe(), out, resume=True)
    assert "not finite" not in capfd.readouterr().err
    assert outcome.nonfinite == 2
    assert train(small(), SHAPES, recipe(), out, resume=True, quiet=True).nonfinite == 2
