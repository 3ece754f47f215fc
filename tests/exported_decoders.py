"""Predictions of a decoder in another form against those of its module, in which no weight has a value that hides something."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import name_free_weights
import random_decoders
import torch
from torch import Tensor

import nasdsl
from nasdsl.backends.module import DecoderModule, Prediction
from nasdsl.nn import DeformConv2d, Scale, SelfAttention2d, WeightedAdd
from nasdsl.predictions import Fcos

CHANNELS = random_decoders.CHANNELS
SIZES = [((200, 333), 1), ((75, 109), 3), ((31, 300), 2)]
"""Height, width and batch; no stride divides the sizes, and the coarsest maps of the last two are one pixel high."""

BOUND = 1e-4
"""Largest difference of a prediction, relative to it, and absolute where it is below 1.

Float32 itself does not compute all of them so exactly, least where each GroupNorm of a head divides what the last one left of 2
channels: with oneDNN's convolutions on an AVX-512 CPU, torch's own results of ATSS at width 64 are 2.9e-4 from those in double
precision, those of TOOD 2.1e-4. What differs by more is compared with double precision, from which it may be `TIMES` as far as
torch's own, whose weights may be rounded otherwise.

One result says little of how exact float32 can be: where a GroupNorm divides by next to nothing, the results of 4 modules whose
weights differ by one rounding are 3 to 46 times as far from double precision as those of the module itself (in the 8 of 357
random decoders that onnxruntime computed less exactly than torch by more than the factor of two), and those of 40 half as far
again.
"""

TIMES = 4
"""How much farther from double precision than the worst of torch's results another runtime may be.

Its sums have errors of several roundings. Of 2,000 random decoders and 1,446 mutants two were more than twice as far: 2.05
times as far as the worst of 5 modules, and 2.6 times as far as the worst of 25 (a GroupNorm over 8 numbers). In the 8 decoders
above, an epsilon of 1e-4 in the place of 1e-5 is 90 to 5,600 times as far.
"""

ROUNDED = 24
"""Modules with weights that are rounded otherwise."""

Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def built(text: str) -> DecoderModule:
    """The module in eval mode, no weight of it at a value that hides something."""
    module = nasdsl.loads(text).build(CHANNELS, 3)
    name_free_weights.set_weights(module)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, DeformConv2d):
                weight, bias = part.offset.weight, part.offset.bias
                assert bias is not None
                i = torch.arange(weight.numel(), dtype=torch.float64)
                weight.copy_((2 * torch.sin(0.71 * i) / math.sqrt(weight[0].numel())).view_as(weight))
                bias.copy_(1.5 * torch.sin(torch.arange(bias.numel())))
            elif isinstance(part, SelfAttention2d):  # so that attention is far from uniform
                part.query.weight.mul_(4)
                part.query.bias.mul_(20)
            elif isinstance(part, Scale | WeightedAdd):
                part.weight.add_(0.4 * torch.sin(1 + torch.arange(part.weight.numel())))
        for parameter in getattr(module.head, "scale", {}).values():
            parameter.fill_(0.8)
    return module.eval()


def features(module: DecoderModule, size: tuple[int, int], batch: int) -> dict[str, Tensor]:
    return name_free_weights.features(size, {name: CHANNELS[name] for name in module.fpn.input_levels}, batch)


def check(
    module: DecoderModule,
    run: Run,
    sizes: Sequence[tuple[tuple[int, int], int]] = SIZES,
) -> None:
    """Compare predictions, as `BOUND` says; boxes that are counted in strides are compared in strides."""
    in_strides = isinstance(module.graph.predict, Fcos) and module.graph.predict.boxes == "relu"
    units = {f"{level}.bbox_reg": 2**k if in_strides else 1 for level, k in module.graph.levels.items()}
    for size, batch in sizes:
        given = features(module, size, batch)
        expected = predictions(module, given)
        with torch.no_grad():
            found = run(given)
        assert list(found) == list(expected)
        exact, own = None, 0.0
        for name, tensor in expected.items():
            assert found[name].shape == tensor.shape, (name, size)
            worst, bound = difference(found[name], tensor, units.get(name, 1)), BOUND
            if worst > bound:
                if exact is None:
                    exact = predictions(deepcopy(module).double(), {key: x.double() for key, x in given.items()})
                    own = own_difference(module, given, exact, units)
                worst, bound = difference(found[name], exact[name], units.get(name, 1)), max(BOUND, TIMES * own)
            assert worst <= bound, (name, size, batch, worst, bound)


def own_difference(
    module: DecoderModule, given: Mapping[str, Tensor], exact: Mapping[str, Tensor], units: Mapping[str, float]
) -> float:
    """How far torch's results are from exact ones, with the module's weights and with their neighbours."""
    generator = torch.Generator().manual_seed(0)
    modules = [module]
    for _ in range(ROUNDED):
        rounded = deepcopy(module)
        with torch.no_grad():
            for parameter in rounded.parameters():
                up = torch.randint(0, 2, parameter.shape, generator=generator).bool()
                limit = torch.where(up, math.inf, -math.inf)
                parameter.copy_(torch.nextafter(parameter, limit.to(parameter.dtype)))
        modules.append(rounded)
    return max(
        difference(found, exact[name], units.get(name, 1)) for one in modules for name, found in predictions(one, given).items()
    )


def predictions(form: Callable[[Any], Mapping[str, Prediction]], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By level and name, as an exported model has them."""
    with torch.no_grad():
        return {
            f"{level}.{name}": tensor
            for level, prediction in form(given).items()
            for name, tensor in prediction._asdict().items()
            if tensor is not None
        }


def difference(found: Tensor, expected: Tensor, unit: float) -> float:
    """The largest difference of two predictions, relative to the expected value, or to `unit` where that is smaller."""
    return float(((found - expected).abs() / expected.abs().clamp(min=unit)).max())


def session(model: bytes) -> Run:
    """An ONNX model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    ready = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in ready.get_outputs()]

    def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        results = ready.run(names, {name: tensor.numpy() for name, tensor in given.items()})
        return {name: torch.from_numpy(result) for name, result in zip(names, results, strict=True)}

    return run
