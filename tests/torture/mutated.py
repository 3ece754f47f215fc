"""Mutants that check, in all forms that compute: what the checker lets through is compiled, counted, run and exported."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import random_decoders
import torch
from agreement import CLASSES, SIZE

from nasdsl.backends.cost import cost
from nasdsl.decoder import check_source, loads
from nasdsl.diagnostics import DiagnosticError, Source, is_message
from nasdsl.ir import MissingFeature
from nasdsl.spaces import SpaceError
from nasdsl.spaces.space import load_space_source
from torture import fuzz_texts
from torture.differential import compare_forms
from torture.subject import Case, Report, Subject

MAX_MACS, MAX_PARAMETERS, MAX_LAYERS = 3_000_000_000, 20_000_000, 300
"""Of a decoder, for an image of `SIZE`; more would only take longer and more memory."""


def text(number: int, report: Report) -> str:
    """The text of a case: the first mutant that checks and is not too large, with its holes filled."""
    rng = random.Random(f"mutated {number}")

    def right() -> str:
        return random_decoders.text(rng.randrange(100_000)) if rng.random() < 0.3 else rng.choice(fuzz_texts.seeds())

    while True:
        written = fuzz_texts.gently(rng, right()) if rng.random() < 0.8 else fuzz_texts.mutated(rng, right(), right)
        report.about(written)
        checked = check_source(Source("t.nas", written)).architecture
        if checked is None:
            report.count("mutants with errors, left out")
            continue
        try:
            if checked.open_holes:
                written = load_space_source(Source("t.nas", written)).sample(rng, attempts=20)
            graph = loads(written).lower(random_decoders.CHANNELS)
        except (DiagnosticError, SpaceError, ValueError, MissingFeature) as error:
            if not isinstance(error, DiagnosticError | SpaceError | MissingFeature) and not is_message(error):
                raise
            report.count("not for the tests' backbone, or no filling found, left out")
            continue
        total = cost(graph, SIZE, CLASSES).decoder
        if len(graph.nodes) <= MAX_LAYERS and total.macs <= MAX_MACS and total.params <= MAX_PARAMETERS:
            return written
        report.count("too large, left out")


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared: no case writes a file."""
    torch.set_num_threads(1)

    def case(number: int, report: Report) -> None:
        compare_forms(text(number, report), number, report)

    yield case


SUBJECT = Subject("mutated", "mutants that check", 5000, start, hang=600, per_process=200)
