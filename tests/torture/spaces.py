"""Random search spaces: each filling is the decoder that is written down by hand, has its figures, and is read back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from random_spaces import random_space

from nasdsl.backbones import backbone
from nasdsl.backends.cost import cost
from nasdsl.decoder import Decoder, loads
from nasdsl.diagnostics import DiagnosticError
from nasdsl.spaces import loads_space
from torture.subject import Case, Report, Subject

FILLINGS = 4
"""Of each space."""

SIZE, CLASSES = (800, 1088), 80


def compare(number: int, report: Report) -> None:
    """Compare fillings of the space of a case with what is written without the package's help."""
    made = random_space(number)
    report.about(made.text)
    try:
        space = loads_space(made.text)
    except DiagnosticError as error:
        if any(problem.code != "NAS410" for problem in error.diagnostics if problem.severity == "error"):
            raise
        report.count("beyond the limits of the language")
        return
    report.count("spaces")
    rng = random.Random(number)
    for _ in range(FILLINGS):
        filled = space.decode([rng.randrange(len(domain)) for domain in space.domains])
        report.about(f"{made.text}\n{filled.indices}")
        expected, decoder = _decoder(made.filled(space, filled.indices)), _decoder(str(filled))
        figures = space.figures(filled.indices)
        if expected is None or decoder is None or figures is None:
            assert expected is decoder is figures, "not all ways say that the filling cannot be built"
            report.count("fillings that cannot be built")
            continue
        assert decoder.digest == expected.digest, "the filling is another decoder than the one that is written turn by turn"
        table = cost(decoder.lower(backbone("resnet50").out_channels), SIZE, CLASSES).decoder
        assert (figures.macs, figures.params) == ({SIZE: table.macs}, table.params), "the filling has other figures"
        again = space.decode(space.encode(str(filled)))  # of fillings that are the same decoder, one of them
        assert loads(str(again)).digest == decoder.digest, "what was read back is another decoder"
        report.count("fillings that agree")


def _decoder(text: str) -> Decoder | None:
    try:
        return loads(text)
    except DiagnosticError:
        return None


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared: no case writes a file."""
    yield compare


SUBJECT = Subject("spaces", "spaces", 20_000, start, hang=120, megabytes=500, per_process=1000)
