"""Random decoders in all forms that compute: module, source, ONNX, .pt2, folded, channels last; costs as torch counts them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import random_decoders
import torch
from agreement import CLASSES, check_macs, check_parameters, check_source, lowered
from exported_decoders import built, check, difference, features, own_difference, predictions, session

from nasdsl.backends.inference import for_inference
from nasdsl.backends.module import DecoderModule, build
from torture.subject import Case, Report, Subject

EXACT = 1e-6
"""Largest relative difference of two forms in double precision: there is no rounding to speak of, but in heads of some 40
layers and more, where each GroupNorm enlarges what the last one made of it. There it is twice what other roundings make."""

PROGRAM_EVERY = 25
"""One of so many decoders goes through ``torch.export``, which takes half a minute for most; the other forms take less than a
second together. An odd number, so that the paper's are among them."""


def text(number: int) -> str:
    """The text of a case: three of four use the whole language, the others are the paper's."""
    return random_decoders.paper_text(number) if number % 4 == 3 else random_decoders.text(number)


def size_of(number: int) -> tuple[tuple[int, int], int]:
    """Height and width that no stride divides, and how many images."""
    rng = random.Random(f"size {number}")
    return (rng.randint(65, 140), rng.randint(65, 140)), rng.randint(1, 2)


def compare(number: int, report: Report) -> None:
    """Compare all forms of the decoder of a case."""
    compare_forms(text(number), number, report, with_program=number % PROGRAM_EVERY == 5)


def compare_forms(written: str, number: int, report: Report, *, with_program: bool = False) -> None:
    """Compare all forms of a decoder.

    Args:
        written: the decoder's text.
        number: of the case, which decides the sizes of the images.
        with_program: whether the program of ``torch.export`` is one of the forms.
    """
    report.about(written)
    graph, table = lowered(written)
    torch.manual_seed(0)  # the source's is made with the same
    module = build(graph, CLASSES).eval()
    check_parameters(graph, table, module)
    check_macs(graph, table, module)
    report.count("costs equal to torch's, node by node")
    check_source(graph, module)
    report.count("sources equal, bit for bit")
    module = built(written)
    if not all(value.isfinite().all() for value in predictions(module, features(module, *size_of(number))).values()):
        report.count("predictions that float32 cannot hold, left out of what follows")  # they differ by no number
        return
    _onnx(module, number)
    report.count("ONNX files equal")
    if with_program:
        _program(module, number)
        report.count("programs of torch.export equal")
    _folded(module, number, report)
    report.count("folded and channels last equal")


def _onnx(module: DecoderModule, number: int) -> None:
    from nasdsl.backends.onnx import onnx_model

    check(module, session(onnx_model(module).SerializeToString()), [size_of(number)])


def _program(module: DecoderModule, number: int) -> None:
    from nasdsl.backends.torch_export import trace

    with torch.no_grad():
        check(module, trace(module).module(), [size_of(number)])


def _folded(module: DecoderModule, number: int, report: Report) -> None:
    """In double precision, so that the smallest mistake shows."""
    module = module.double()
    given = {name: value.double() for name, value in features(module, *size_of(number)).items()}
    laid_out = {name: value.to(memory_format=torch.channels_last) for name, value in given.items()}
    expected = predictions(module, given)
    found = {"folded": predictions(for_inference(module), given)}
    found["channels last"] = predictions(module.to(memory_format=torch.channels_last), laid_out)
    bound = EXACT
    for form, results in found.items():
        for name, tensor in results.items():
            worst = difference(tensor, expected[name], 1)
            if worst > bound == EXACT:
                bound = max(EXACT, 2 * own_difference(module, given, expected, {}))
                report.count("results that double precision rounds by more than 1e-6", bound > EXACT)
            assert worst <= bound, (form, name, worst, bound)


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared: no case writes a file."""
    torch.set_num_threads(1)
    yield compare


SUBJECT = Subject("differential", "decoders", 2000, start, hang=600, per_process=200)
