"""Time of one evaluation on our proxy task against a straightforward training loop, and of the rest of a search.

    python benchmarks/proxy.py --data voc:DIR [--samples 3] [--iterations 6] [--batch 8] [--size 384] [--weights FILE]

Both train the same decoders (random samples of the paper's FPN space with FCOS's head, and the published FPN with the published
head) at width 64 on crops of the same size, with Adam, for the same number of steps, and then compute the loss on the same
pictures of meta-val. The straightforward loop runs the frozen backbone in each step, computes targets for each batch, and uses
torchvision's deformable convolution and torch's other convolutions; its pictures are resized and in memory in advance, which
is to its advantage. Ours uses cached features, which are computed once a search and timed separately. They alternate in one
process with `--threads` threads; the backbone is `--backbone` with random weights.

"around an evaluation" is everything else in a search: propose, parse, check and write the journal.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torchvision
from torch import Tensor, nn

import nasdsl
from nasdsl import resources
from nasdsl.data import Transform, open_dataset
from nasdsl.detection.backbones import make_backbone
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.pyramid import shapes_of
from nasdsl.nn import DeformConv2d, DilatedDepthwiseConv2d
from nasdsl.training.proxy import ProxySpec, ProxyTask

GENOTYPES = resources.folder("genotypes")


def torchvisions(self: DeformConv2d, x: Tensor) -> Tensor:
    """`DeformConv2d.forward` on torchvision's function."""
    predicted = self.offset(x)
    third = predicted.shape[1] // 3
    offset, mask = predicted[:, : 2 * third], predicted[:, 2 * third :].sigmoid()
    stride, dilation = self.stride[0], self.dilation[0]
    padding = dilation * (self.kernel_size[0] - 1) // 2
    return torchvision.ops.deform_conv2d(x, offset, self.weight, self.bias, stride, padding, dilation, mask)


class Straightforward:
    """A straightforward implementation of the proxy task."""

    def __init__(self, spec: ProxySpec, train: list[int], val: list[int]) -> None:
        self.spec, self.train, self.val = spec, train, val
        data = open_dataset(spec.data, spec.split)
        transform = Transform(spec.size, spec.longest)
        self.classes = len(data.classes)
        self.items = {picture: transform(data[picture]) for picture in [*train, *val]}
        self.backbone = make_backbone(spec.backbone, spec.backbone_weights).eval().requires_grad_(False)

    def crop(self, picture: int, draw: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        image, target = self.items[picture]
        size = self.spec.size
        image = nn.functional.pad(image, (0, max(0, size - image.shape[-1]), 0, max(0, size - image.shape[-2])))
        room = [length - size for length in image.shape[-2:]]
        top, left = (int(torch.randint(n + 1, (), generator=draw)) if draw else n // 2 for n in room)
        image = image[:, top : top + size, left : left + size]
        boxes = target["boxes"] - torch.tensor([left, top, left, top])
        boxes = boxes.clamp(0, size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, labels = boxes[kept], target["labels"][kept]
        if draw and torch.rand((), generator=draw) < 0.5:
            image = image.flip(-1)
            boxes = torch.stack([size - boxes[:, 2], boxes[:, 1], size - boxes[:, 0], boxes[:, 3]], 1)
        return self.backbone.normalize(image), {"boxes": boxes, "labels": labels}

    def losses(self, decoder: nn.Module, method: Fcos, pictures: list[int], draw: torch.Generator | None) -> Tensor:
        images, targets = zip(*(self.crop(picture, draw) for picture in pictures), strict=True)
        with torch.no_grad():
            features = self.backbone(torch.stack(images))
        predictions = decoder(features)
        size = (self.spec.size, self.spec.size)
        found = method.losses(predictions, method.targets(shapes_of(predictions), size, targets))
        return torch.stack(list(found.values())).sum()

    def __call__(self, text: str) -> float:
        """The loss on meta-val."""
        spec, draw = self.spec, torch.Generator().manual_seed(0)
        decoder, method = nasdsl.loads(text).build(self.backbone.out_channels, self.classes), Fcos()
        optimizer = torch.optim.Adam(decoder.parameters(), spec.learning_rate)
        for _ in range(spec.iterations):
            chosen = torch.randint(len(self.train), (spec.batch_size,), generator=draw).tolist()
            loss = self.losses(decoder, method, [self.train[i] for i in chosen], draw)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        decoder.eval()
        with torch.no_grad():
            batches = [self.val[i : i + spec.batch_size] for i in range(0, len(self.val), spec.batch_size)]
            return float(sum(self.losses(decoder, method, batch, None) for batch in batches) / len(batches))


class TrialTime(NamedTuple):
    """Seconds of a trial, and of its parts.

    Attributes:
        seconds: in all; validation as of meta-val of `meta_val` pictures.
        step: of one training step, the others of the trial aside.
        validation: of that meta-val.
        gpu_gigabytes: most memory of the GPU; 0 on a CPU.
    """

    seconds: float
    step: float
    validation: float
    gpu_gigabytes: float


def make_task(
    data: str = "shapes:64",
    *,
    size: int = 384,
    batch: int = 200,
    iterations: int = 300,
    backbone: str = "resnet50",
    **settings: Any,
) -> ProxyTask:
    """A proxy task with the paper's sizes, and its features in memory, on a GPU if there is one.

    Args:
        data: as for `nasdsl.data.open_dataset`; the number of pictures says nothing about the time, as long as they fit.
        settings: others of `ProxySpec`, such as ``precision="float32"``.
    """
    return ProxyTask(
        ProxySpec(
            data, backbone=backbone, size=size, longest=size * 5 // 3, batch_size=batch, iterations=iterations,
            **{"memory_limit": 2**62, **settings},
        ),
        quiet=True,
    )  # fmt: skip


def time_trial(task: ProxyTask, text: str, meta_val: int = 1715) -> TrialTime:
    """Evaluate a decoder once and time it. The first trial of a task also computes targets, and a GPU's kernels are compiled.

    Args:
        meta_val: pictures that the validation is extrapolated to; the paper's by default.
    """
    on_gpu = task.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(task.device)
        torch.cuda.reset_peak_memory_stats(task.device)
    details = task(text).details
    training = details["seconds"] - details["validation"]
    validation = details["validation"] * meta_val / len(task.val)
    gigabytes = torch.cuda.max_memory_reserved(task.device) / 2**30 if on_gpu else 0.0
    return TrialTime(training + validation, training / task.spec.iterations, validation, gigabytes)


def around(spec: ProxySpec, trials: int = 100) -> dict[str, float]:
    """Seconds per trial that a search of the FPN space spends besides evaluations, by strategy."""
    found = {}
    for strategy in ("random", "evolution", "ppo", "bayes"):
        space = nasdsl.load_space(GENOTYPES / "spaces" / "nas_fcos_fpn.nas", backbone=spec.backbone, classes=20).with_width(64)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            nasdsl.search(space, lambda text: -float(len(text) % 97), strategy, trials, out=Path(folder) / "run", quiet=True)
            found[strategy] = (time.perf_counter() - start) / trials
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="such as coco:DIR")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=24, help="of the data; a third of them is meta-val")
    parser.add_argument("--samples", type=int, default=3, help="of the FPN space")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    spec = ProxySpec(
        given.data,
        given.split,
        backbone=given.backbone,
        size=given.size,
        longest=given.size * 5 // 3,
        iterations=given.iterations,
        batch_size=given.batch,
        val_share=1 / 3,
    )
    start = time.perf_counter()
    task = ProxyTask(spec, quiet=True)
    made = time.perf_counter() - start
    train, val = task.train[: given.pictures * 2 // 3], task.val[: given.pictures // 3]
    task.train, task.val = train, val
    space = nasdsl.load_space(GENOTYPES / "spaces" / "nas_fcos_fpn.nas", backbone=given.backbone, classes=len(task.classes))
    texts = {f"FPN sample {n}": str(space.with_width(64).sample(seed=n)) for n in range(given.samples)}
    texts["nas_fcos"] = nasdsl.load(GENOTYPES / "nas_fcos.nas").with_width(64).source.text
    plain = Straightforward(spec, train, val)
    print("| decoder | ours, s | straightforward, s | ratio |\n|---|---|---|---|")
    ratios, ours_of = [], []
    for name, text in texts.items():
        start = time.perf_counter()
        task(text)
        ours = time.perf_counter() - start
        with (
            mock.patch.object(DeformConv2d, "forward", torchvisions),
            mock.patch.object(DilatedDepthwiseConv2d, "forward", nn.Conv2d.forward),
        ):
            start = time.perf_counter()
            plain(text)
            theirs = time.perf_counter() - start
        ratios.append(theirs / ours)
        ours_of.append(ours)
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {ratios[-1]:.1f} |", flush=True)
    print(
        f"\nmedian ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}); {given.iterations} steps of "
    )
    print(
        f"{given.batch} crops of {given.size}x{given.size}, {len(val)} pictures of meta-val, {given.backbone}, {given.data}; "
    )
    print(
        f"features of {len(task.features.layout.padded_sizes)} pictures made in {made:.0f} s; {os.cpu_count()} CPU cores,",
        end=" ",
    )
    print(f"{torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}\n")
    print("| around an evaluation | ms a trial | of 300 steps of ours |\n|---|---|---|")
    whole = statistics.median(ours_of) / given.iterations * 300
    for strategy, seconds in around(spec).items():
        print(f"| {strategy} | {1e3 * seconds:.1f} | {100 * seconds / whole:.3f} % |", flush=True)


if __name__ == "__main__":
    main()
