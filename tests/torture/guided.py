"""Coverage-guided fuzzing with atheris: rounds of texts, each made of one that reached new lines of the compiler.

A round is a process of libFuzzer's own, which begins with the texts that earlier rounds have kept. It needs the extra ``fuzz``.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from torture.subject import Case, Report, Subject

TEXTS = 2000
"""Of a round."""
MAX_LENGTH = 4000
CORPUS = Path(__file__).parents[2] / "build" / "torture" / "corpus"
"""The texts that reached something new; not part of the repository."""


def fuzz(corpus: Path, folder: Path, number: int, texts: int = TEXTS) -> subprocess.CompletedProcess[str]:
    """Run a round. A text in which something is wrong is left in `folder`, in a file whose name begins with ``crash``."""
    options = [
        f"-runs={texts}",
        f"-seed={number + 1}",
        f"-max_len={MAX_LENGTH}",
        "-timeout=60",
        "-report_slow_units=60",
        "-rss_limit_mb=900",
    ]
    command = [sys.executable, "-m", "torture.guided", str(corpus), *options, f"-artifact_prefix={folder}/"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Make the first texts of the corpus where there are none."""
    from torture import fuzz_texts

    CORPUS.mkdir(parents=True, exist_ok=True)
    if not any(CORPUS.iterdir()):
        for number, text in enumerate(fuzz_texts.seeds()):
            (CORPUS / f"seed{number}").write_bytes(text.encode(errors="surrogatepass")[:MAX_LENGTH])

    def case(number: int, report: Report) -> None:
        if find_spec("atheris") is None:
            report.count("rounds left out, because atheris is not installed")
            return
        before = len(list(CORPUS.iterdir()))
        done = fuzz(CORPUS, folder, number)
        report.count("rounds")
        report.count("texts", TEXTS)
        report.count("texts kept, which reached new lines", len(list(CORPUS.iterdir())) - before)
        for path in folder.iterdir():
            report.about(path.read_bytes().decode(errors="replace"))
            path.unlink()
            report.finding(f"{path.name.partition('-')[0]}: {done.stderr[-1500:]}")
        if done.returncode and not report.findings:
            report.finding(f"the round ended with code {done.returncode}: {done.stderr[-1500:]}")

    yield case


SUBJECT = Subject("guided", "rounds of 2,000 texts", 100, start, hang=3600, per_process=20)


def _main() -> None:
    import atheris

    with atheris.instrument_imports(include=["nasdsl"]):
        from torture import exercise
    from torture import fuzz_texts

    def one(data: bytes) -> None:
        report = Report()
        exercise.exercise(data.decode(errors="replace"), random.Random(0), report, editor=len(data) % 8 == 0)
        if report.findings:
            raise AssertionError(report.findings)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            changed: bytes = atheris.Mutate(data, most)
            return changed
        seeds = fuzz_texts.seeds()
        how = fuzz_texts.gently if rng.random() < 0.5 else lambda r, t: fuzz_texts.mutated(r, t, lambda: r.choice(seeds))
        return how(rng, data.decode(errors="replace")).encode(errors="replace")[:most]

    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
