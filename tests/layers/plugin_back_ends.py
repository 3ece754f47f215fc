"""The example package of docs/plugins.md in every back end, where it is installed.

Nothing here imports the package: texts find its primitives by its entry point.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.diagrams.dot import emit_dot
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.onnx import export_onnx
from nasdsl.backends.source import emit_source
from nasdsl.backends.torch_export import OLDEST_TORCH, export_program
from nasdsl.latency.pieces import parts_of
from nasdsl.latency.probes import piece_probe
from nasdsl.layers import Cost, CustomLayer
from nasdsl.spaces import load_space

CHANNELS = {"c3": 24, "c4": 40, "c5": 56}
CLASSES = 3
SIZES = ((200, 216), (104, 56), (96, 128))  # odd maps at every level, at some, at none


def features(size: tuple[int, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(size[0])
    shapes = {name: [math.ceil(n / 2 ** int(name[1])) for n in size] for name in CHANNELS}
    return {name: torch.randn(2, CHANNELS[name], *shape, generator=generator) for name, shape in shapes.items()}


def flat(predictions: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
    return [tensor for level in predictions.values() for tensor in level]


def built(text: str) -> DecoderModule:
    """A module none of whose weights has a value that hides something."""
    module = nasdsl.loads(text).build(CHANNELS, CLASSES).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(0.5 + noise if "var" in name or "norm" in name else 0.2 * (noise - 0.5))
    return module


def close(found: list[Tensor], expected: list[Tensor], what: str) -> None:
    assert len(found) == len(expected), what
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape, (what, a.shape, b.shape)
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4, msg=lambda m: f"{what}: {m}")


def check_cost(text: str, module: DecoderModule) -> None:
    """Parameters are the module's, multiply-accumulates those that torch counts, published FLOPs those of the rule."""
    decoder = nasdsl.loads(text)
    graph = decoder.lower(CHANNELS)
    table = cost(graph, (200, 216), CLASSES)
    total = table.fpn.params + table.head.params
    assert total == sum(p.numel() for p in module.parameters()), total
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module({name: value[:1] for name, value in features((200, 216)).items()})
    assert counter.get_total_flops() == 2 * (table.fpn.macs + table.head.macs)
    node = next(n for n in graph.nodes if n.layer.kind == "learned_up" and n.out.level == 4)
    assert node.layer.cost(node.operands, node.out, 13 * 14) == Cost(25 * 32 * 182, 26 * 32, 26 * 32 * 182)


def check_values(module: DecoderModule) -> None:
    """The two primitives against what their descriptions say, in plain torch."""
    given = features(SIZES[0])
    fpn = module.fpn
    with torch.no_grad():
        x = fpn.get_submodule("c3.conv")(given["c3"])
        split = next(part for name, part in fpn.named_modules() if name.endswith("bands"))
        low, detail = split(x)
        torch.testing.assert_close(detail / 1.5 + low.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :25, :27], x)
        up = next(part for name, part in fpn.named_modules() if name.endswith("learned_up"))
        grown = up(low, size=(25, 27))
        whole = low.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :25, :27]
        k = up.weight.shape[-1]
        torch.testing.assert_close(grown, F.conv2d(whole, up.weight, up.bias, padding=k // 2, groups=32))


def check_exports(text: str, module: DecoderModule, out: Path) -> None:
    import onnxruntime

    namespace: dict[str, Any] = {"__name__": "written"}
    source = emit_source(module.graph, CLASSES, text=text)
    assert "pyramid_bands" not in source.replace("nasdsl-pyramid-bands", "")
    assert source.count("class UpConv(") == 1, "once, however many primitives need it"
    exec(compile(source, "written.py", "exec"), namespace)
    written = namespace["Decoder"]()
    written.load_state_dict(module.state_dict())
    written.eval()
    export_onnx(module, out / "banded.onnx")
    traces = tuple(map(int, torch.__version__.split(".")[:2])) >= OLDEST_TORCH
    if traces:
        export_program(module, out / "banded.pt2")
        program = torch.export.load(out / "banded.pt2").module()
    session = onnxruntime.InferenceSession(out / "banded.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for size in SIZES:
            given = features(size)
            expected = flat(module(given))
            close(flat(written(given)), expected, f"source at {size}")
            if traces:
                close(list(program(given).values()), expected, f"torch.export at {size}")
            found = session.run(None, {name: value.numpy() for name, value in given.items()})
            close([torch.from_numpy(np.asarray(x)) for x in found], expected, f"ONNX at {size}")


def check_identity(text: str) -> None:
    decoder = nasdsl.loads(text)
    again = nasdsl.loads(decoder.canonical)
    assert (again.digest, again.canonical) == (decoder.digest, decoder.canonical)
    renamed = text.replace("low, detail", "a, b").replace("(low)", "(a)").replace("detail)", "b)")
    assert nasdsl.loads(renamed).digest == decoder.digest
    swapped = text.replace("low, detail", "detail, low")
    for other in (text.replace("gain=1.5", "gain=1.25"), text.replace("k=5", "k=3"), swapped.replace("add(", "sum(")):
        assert nasdsl.loads(other).digest != decoder.digest
    assert nasdsl.loads(text.replace("gain=1.5", "gain=3 / 2.0")).digest == decoder.digest


def check_picture(text: str) -> None:
    graph = nasdsl.loads(text).lower(CHANNELS)
    table = cost(graph, (200, 216), CLASSES)
    drawn = diagram(graph, table)
    boxes = {box.name: box for lane in drawn.lanes for box in lane.boxes}
    assert boxes["m3"].family == boxes["m4"].family == "custom", "inside of a call too"
    assert boxes["p5"].family == "convolution"
    arrows = {(a.source, a.target) for a in drawn.arrows}
    assert {("low", "m4"), ("low", "m3")} <= arrows, "both results come from the box of the split"
    changes = {(a.source, a.target): a.levels for a in drawn.arrows}
    assert (changes["low", "m4"], changes["low", "m3"], changes["m4", "m3"]) == (0, 0, -1), "no resize where there is none"
    assert "custom primitive" in emit_dot(graph, table)


def check_space(folder: Path) -> None:
    space = load_space(folder / "banded_space.nas")
    assert space.size == 8
    digests = set()
    for number, sample in enumerate(space.samples(8, seed=0)):
        assert space.encode(sample) == list(sample.indices)
        decoder = nasdsl.loads(sample)
        digests.add(decoder.digest)
        if number < 3:
            figures = space.figures(sample.indices)
            table = decoder.cost()
            assert figures is not None
            assert figures.params == table.fpn.params + table.head.params
            assert next(iter(figures.macs.values())) == table.fpn.macs + table.head.macs
    assert 3 < len(digests) <= 8


def check_probes(text: str) -> None:
    """Parts with the primitives can be timed by themselves."""
    from nasdsl.backbones import backbone

    graph = nasdsl.loads(text).lower(backbone("tiny").out_channels)
    found = {}
    for part in parts_of(graph, "tiny", (200, 216), CLASSES):
        if part.piece is not None and isinstance(part.piece.nodes[0].layer, CustomLayer):
            found[part.key] = part.piece
    assert len(found) == 5  # bands, learned_up twice in the fpn, and in the head at p4 and p5: at p3 it is as in the fpn
    for piece in found.values():
        for runtime in ("torch", "onnxruntime"):
            piece_probe(piece, 2).runner(runtime, 1)()


def main(folder: Path, out: Path) -> None:
    """Check all back ends.

    Args:
        folder: with the example's texts.
        out: to write to.
    """
    text = (folder / "banded.nas").read_text(encoding="utf-8")
    module = built(text)
    check_cost(text, module)
    check_values(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracers
        check_exports(text, module, out)
    check_identity(text)
    check_picture(text)
    check_space(folder)
    check_probes(text)
