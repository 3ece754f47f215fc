"""A weight-sharing network of a space: its training, and scores of fillings with the weights that they inherit."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from nasdsl.backends.module import DecoderModule
from nasdsl.data.seeds import mixed_seed
from nasdsl.detection.method import Method
from nasdsl.files import make_folder
from nasdsl.ir.graph import Graph
from nasdsl.search.detectors import DetectorKey, detector_key, key_name
from nasdsl.search.errors import SearchError
from nasdsl.search.proxy_evaluation import identity_of
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.weights import BoundDecoder, SharedWeights
from nasdsl.search.supernet.widths import Widths
from nasdsl.spaces import Filled, Space
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.errors import Diverged
from nasdsl.training.progress import ProgressBar
from nasdsl.training.proxy import ProxyResult, ProxyTask
from nasdsl.training.proxy.crops import Crop
from nasdsl.training.proxy.loader import CropLoader
from nasdsl.training.schedule import cosine
from nasdsl.training.signals import Interrupted, SignalHandler

FORMAT: Final = "nasdsl supernet 1"
SAVE_EVERY: Final = 60.0
"""Seconds between two checkpoints."""
MAX_NONFINITE: Final = 25
"""Fillings in a row whose loss is not finite, after which the training ends."""

_PATHS, _WEIGHTS, _CALIBRATION = 11, 12, 13
"""Mixed into the seed, so that samples, initial weights and calibration are drawn independently."""


class Supernet:
    """Weights for all fillings of a space, trained on the cached features of a proxy task.

    Args:
        space: the space; its texts are those that `score` takes.
        tasks: give features, crops, losses and the reward, by the backbone and image size that texts name; one for
            ``(None, None)`` is for all other texts. Sizes share all weights, backbones those behind the adapters.
        spec: of the training.
        path: file of the weights; a training that was stopped goes on from it. None keeps them in memory.
        quiet: show no progress.
    """

    def __init__(
        self,
        space: Space,
        tasks: Mapping[DetectorKey, ProxyTask],
        spec: SupernetSpec,
        path: Path | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.space, self.tasks, self.spec, self.path, self._quiet = space, dict(tasks), spec, path, quiet
        first = next(iter(self.tasks.values()))
        self._classes, self._device = len(first.classes), first.device
        self.weights = SharedWeights()
        self.widths = Widths(space, self._lower, spec.seed)
        self.step = 0

    @property
    def is_trained(self) -> bool:
        return self.step >= self.spec.iterations

    def train(self) -> None:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            Diverged: the losses of many fillings in a row are not finite.
            SearchError: the checkpoint is of another network.
            CheckpointError: a checkpoint cannot be read or written.
        """
        optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], self.spec.learning_rate)
        optimizer.param_groups[0]["params"].clear()  # parameters are added when a filling first needs them
        self._restore(optimizer)
        if self.is_trained:
            return
        saved, nonfinite = time.monotonic(), 0
        bar = ProgressBar("training the supernet, steps", self.spec.iterations, self._quiet)
        with SignalHandler("finishing the step and saving") as signals, bar as progress:
            progress.resume(self.step)
            while not self.is_trained:
                nonfinite = 0 if self._train_step(optimizer) else nonfinite + 1
                if nonfinite == MAX_NONFINITE:
                    raise Diverged(f"the loss of {MAX_NONFINITE} steps in a row is not finite, at step {self.step}")
                self.step += 1
                progress.update(self.step)
                if signals.signum or self.is_trained or time.monotonic() - saved > SAVE_EVERY:
                    self._save(optimizer)
                    saved = time.monotonic()
                if signals.signum:
                    raise Interrupted(signals.signum, self.step)

    def _train_step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Train the fillings of a step on one batch of crops; False if a loss was not finite, and nothing was changed."""
        group = optimizer.param_groups[0]
        group["lr"] = self.spec.learning_rate * cosine(self.step, self.spec.iterations, 0.0)
        optimizer.zero_grad()
        for text in self._texts(self.step):
            decoder = self.bind(text, keep=True)
            known = len(group["params"])
            group["params"].extend(list(self.weights.parameters.values())[known:])
            method, loader = self._loader(text, decoder)
            batch = next(loader.batches(self._crops(text, 1, _PATHS, self.step)))
            decoder.train()
            method = method.at(self.step / self.spec.iterations)
            loss = torch.stack(list(method.losses(decoder(batch.features), batch.targets).values())).sum()
            if not math.isfinite(loss.item()):
                return False
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        optimizer.step()
        return True

    def score(self, text: str) -> ProxyResult:
        """Evaluate a filling with the weights that it inherits.

        Raises:
            SpaceError: the text is no filling of the space.
            Diverged: a loss is not finite.
        """
        start = time.perf_counter()
        decoder = self._calibrated(text)
        reward, losses = self.task_of(text).validate(decoder, self._loader(text, decoder)[1])
        return ProxyResult(reward, losses, {"seconds": time.perf_counter() - start})

    def bind(self, text: str, *, keep: bool = False) -> BoundDecoder:
        """A filling with the shared weights.

        Args:
            keep: keep the random weights of layers that no filling before has had, to train them. Otherwise scores do not
                depend on what was scored before.

        Raises:
            SpaceError: the text is no filling of the space.
        """
        indices = text.indices if isinstance(text, Filled) else self.space.encode(text)
        widest = self._lower(self.space.decode(self.widths.widest(indices)))
        return self.weights.bind(self._lower(text), widest, self._classes, lambda: self._initialise(widest), keep=keep)

    def state_of(self, text: str) -> dict[str, Tensor]:
        """The weights that a filling inherits, as the state dict of its `DecoderModule`."""
        return self._calibrated(text).own_state()

    def task_of(self, text: str) -> ProxyTask:
        """The task of a filling's backbone and size.

        Raises:
            SearchError: there is none.
        """
        key = detector_key(text)
        task = self.tasks.get(key) or self.tasks.get((None, None))
        if task is None:
            known = "; ".join(map(key_name, self.tasks))
            raise SearchError(f"the text is for {key_name(key)}; expected one of: {known}")
        return task

    def _calibrated(self, text: str) -> BoundDecoder:
        """A filling with the shared weights, and its BatchNorms' statistics on some batches of meta-train."""
        decoder = self.bind(text)
        crops = self._crops(text, self.spec.calibration, _CALIBRATION)
        decoder.calibrate(batch.features for batch in self._loader(text, decoder)[1].batches(crops))
        return decoder

    def _loader(self, text: str, decoder: BoundDecoder) -> tuple[Method, CropLoader]:
        task = self.task_of(text)
        method = task.method(task.load(text))
        return method, task.loader(decoder.module, method)

    def _crops(self, text: str, batches: int, *stream: int) -> Iterator[list[Crop]]:
        task = self.task_of(text)
        return task.crop_sampler.sample(task.train, task.spec.batch_size, batches, mixed_seed(self.spec.seed, *stream))

    def _texts(self, step: int) -> list[Filled]:
        """The fillings that a step trains."""
        rng = random.Random(mixed_seed(self.spec.seed, _PATHS, step))
        samples = [self.space.sample(rng) for _ in range(self.spec.paths)]
        if not self.widths.decisions:
            return samples
        widths = [(self.widths.widest(s.indices), self.widths.narrowest(s.indices), s.indices) for s in samples]
        return [self.space.decode(indices) for each in widths for indices in dict.fromkeys(each)]

    def _lower(self, text: str) -> Graph:
        task = self.task_of(text)
        return task.load(text).lower(task.in_channels)

    def _initialise(self, widest: Graph) -> DecoderModule:
        """A module with random weights, which depend on the number of weights that there are already."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mixed_seed(self.spec.seed, _WEIGHTS, len(self.weights.parameters)))
            return DecoderModule(widest, self._classes).to(self._device)

    # ---------------------------------------------------------------------------------------- checkpoints

    @property
    def _identity(self) -> Mapping[str, Any]:
        tasks = {key_name(key): identity_of(task.spec) for key, task in self.tasks.items()}
        return {"space": self.space.source.text, "spec": self.spec.to_dict(), "tasks": tasks}

    def _save(self, optimizer: torch.optim.Optimizer) -> None:
        if self.path is not None:
            make_folder(self.path.parent)
            state = {"step": self.step, "weights": self.weights.state(), "optimizer": optimizer.state_dict()}
            save_checkpoint(self.path, {"format": FORMAT, "identity": dict(self._identity), **state})

    def load(self, path: Path) -> None:
        """Load the weights of a trained network, whatever tasks it has.

        Raises:
            SearchError: there is none, or its training is not finished.
            CheckpointError: the file cannot be read.
        """
        state = _load(path)
        if state["step"] < state["identity"]["spec"]["iterations"]:
            raise SearchError(
                f"{path} is not trained yet: it is at step {state['step']} of {state['identity']['spec']['iterations']}; "
                "go on with its search (--resume)"
            )
        self.step = state["step"]
        self.weights.load(state["weights"], self._device)

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        loaded = load_checkpoint(self.path) if self.path is not None else None
        if loaded is None:
            return
        state = loaded.state
        if state.get("format") != FORMAT or state["identity"] != dict(self._identity):
            raise SearchError(f"{loaded.path} is of another space, proxy task or training: remove it, or choose another folder")
        self.step = state["step"]
        self.weights.load(state["weights"], self._device)
        optimizer.param_groups[0]["params"].extend(self.weights.parameters.values())
        optimizer.load_state_dict(state["optimizer"])


def load_identity(path: Path) -> dict[str, Any]:
    """What a network was trained as: ``space``, its text; ``spec``; ``tasks``, the settings of the proxy tasks by name.

    Raises:
        SearchError: there is no file of one.
        CheckpointError: the file cannot be read.
    """
    return dict(_load(path)["identity"])


def _load(path: Path) -> dict[str, Any]:
    loaded = load_checkpoint(path)
    if loaded is None or loaded.state.get("format") != FORMAT:
        raise SearchError(f"{path} {'is no weight-sharing network' if loaded else 'does not exist'}")
    return loaded.state
