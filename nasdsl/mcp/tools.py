"""What the server offers. Each public method of `Toolbox` is a tool; its docstring is what a language model reads about it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final, Literal

from nasdsl import resources
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends import diagrams
from nasdsl.backends.cost import to_json
from nasdsl.backends.requirements import DEFAULT_SIZE
from nasdsl.decoder import REFERENCE_BACKBONE, Decoder, check_source, load_source
from nasdsl.diagnostics import Source, printable, render_all
from nasdsl.diagnostics import explain as explain_code
from nasdsl.diagnostics.catalogue import CODES
from nasdsl.folder import Folder
from nasdsl.grammar_export import language_grammar, space_grammar
from nasdsl.image_size import SIZE_FORM, parse_size
from nasdsl.search.run import SearchRun, load_trials
from nasdsl.semantics.files import read_source, zoo_file
from nasdsl.spaces import Space, load_space_source

MAX_TEXT: Final = 200_000
"""Characters of a text that is given to a tool, or saved."""

MAX_RESULT: Final = 1_000_000
"""Characters of a diagram, a grammar or a text that a tool gives."""

MAX_JOURNAL: Final = 200_000_000
"""Bytes of the largest journal that is read."""

MAX_LAYERS: Final = 1_000
"""Layers of the largest decoder that is drawn."""

MAX_SAMPLES: Final = 100
"""Samples of one call."""

ATTEMPTS: Final = 20_000
"""Fillings that are drawn for one sample at the most."""

MAX_SHOWN: Final = 100
"""Diagnostics of one call; the others are counted."""


class ToolFailure(ValueError):
    """What a tool cannot do, as a message for the one who called it."""


class Toolbox:
    """The tools over one folder.

    Every tool takes a decoder, or a space, as ``text``, or as ``path``: a .nas file in the folder, or ``zoo:NAME``.

    Raises:
        FolderError: a path lies outside of the folder, or is not to be written.
        ToolFailure: an argument has no meaning, or something is too large.
        DiagnosticError: the text has errors.
        ValueError, OSError: other errors of the package; see `nasdsl.cli.errors.exit_on_error`.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def check(self, text: str = "", path: str = "") -> dict[str, Any]:
        """Report every mistake of a decoder or search space in the language .nas, with its place and how to mend it.

        Give `text`, or `path`: a .nas file in the served folder, or zoo:NAME. `ok` says whether there is no error; warnings
        may remain. `report` has the messages with the lines they point at; `explain` says more about a code.
        """
        source, file = self._source(text, path)
        problems = check_source(source, path=file, root=self._root(file)).problems
        shown = problems[:MAX_SHOWN]
        return {
            "ok": not any(problem.severity == "error" for problem in problems),
            "errors": sum(problem.severity == "error" for problem in problems),
            "warnings": sum(problem.severity == "warning" for problem in problems),
            "report": render_all(shown, color=False) if shown else "nothing to report",
            "diagnostics": [problem.to_json() for problem in shown],
        }

    def explain(self, code: str = "") -> str:
        """Explain a diagnostic code such as NAS201, with a wrong and a right example. Without a code, list all codes."""
        if not code:
            return "\n".join(f"{entry.code}  {entry.title}" for entry in CODES.values())
        found = explain_code(code)
        if found is None:
            raise ToolFailure(f"there is no diagnostic {printable(code[:40])!r}; without a code, `explain` lists all of them")
        return found

    def cost(self, text: str = "", path: str = "", backbone: str = "", size: str = "", classes: int = 80) -> dict[str, Any]:
        """Exact multiply-accumulates and parameters of a decoder for one image: of backbone, fpn, head, and each value.

        `backbone` is a name such as resnet50 or mobilenet_v2, `size` the image's height x width in pixels such as 800x1088. By
        default they are those that the text names, else resnet50 and 800x1088.
        """
        decoder = self._decoder(text, path)
        size_, classes_ = _size(size), _between("classes", classes, 1, 100_000)
        table = decoder.cost(size_, backbone or None, classes_)
        return {
            "name": decoder.name,
            "digest": decoder.digest,
            "backbone": backbone or decoder.backbone or REFERENCE_BACKBONE,
            "size": list(size_ or decoder.size or DEFAULT_SIZE),
            "classes": classes_,
            **to_json(table),
        }

    def render(self, text: str = "", path: str = "", backbone: str = "", size: str = "") -> str:
        """Draw a decoder as a diagram: the text of an SVG picture with its values by level, and their costs."""
        decoder = self._decoder(text, path)
        name = backbone or decoder.backbone or REFERENCE_BACKBONE
        graph = decoder.lower(find_backbone(name).out_channels)
        layers = len(graph.nodes)
        if layers > MAX_LAYERS:
            raise ToolFailure(f"{decoder.name} has {layers:,} layers; at most {MAX_LAYERS:,} are drawn")
        table = decoder.cost(_size(size), name)
        return _bounded("the picture", diagrams.render(graph, table, "svg").decode())

    def sample(
        self, text: str = "", path: str = "", n: int = 1, seed: int = 0, backbone: str = "", classes: int = 80
    ) -> dict[str, Any]:
        """Random decoders of a search space, each a text on one line that keeps the space's requirements."""
        space = self._space(text, path, backbone, classes)
        count = _between("n", n, 1, MAX_SAMPLES)
        found = []
        rng = random.Random(seed)
        for _ in range(count):
            filled = space.sample(rng, attempts=ATTEMPTS)
            found.append({"text": str(filled), "indices": list(filled.indices)})
        return {"space": space.name, "decisions": len(space.domains), "fillings": space.size, "samples": found}

    def grammar(
        self,
        text: str = "",
        path: str = "",
        format: Literal["lark", "gbnf", "llguidance"] = "gbnf",
        layout: Literal["line", "free"] = "line",
    ) -> str:
        """The grammar of the language .nas, or with a search space that of its fillings, for constrained decoding."""
        if not text and not path:
            return language_grammar(format)
        return _bounded("the grammar", space_grammar(self._space(text, path), format, layout))

    def zoo(self, name: str = "") -> dict[str, Any]:
        """List the decoders and search spaces that come with nasdsl; with `name`, give the text of that one."""
        if name:
            found = Path(zoo_file(f"zoo:{name}"))
            return {"name": name, "kind": resources.kind(found), "text": found.read_text(encoding="utf-8")}
        return {"entries": resources.zoo_entries()}

    def search_status(self, folder: str, top: int = 5) -> dict[str, Any]:
        """How a search in the served folder stands, also while it runs: its trials by result, and the best decoders so far."""
        count = _between("top", top, 0, 50)
        run = self.folder.path(folder)
        names = [run, *(stage for stage in sorted(run.iterdir()) if stage.is_dir())] if run.is_dir() else []
        stages = [place for place in names if self._journal(place) is not None]
        if not stages:
            raise ToolFailure(f"{printable(folder)} is no search: it has no {SearchRun(run).journal.name}")
        return {"stages": [self._stage(place, count) for place in stages]}

    def save(self, path: str, text: str) -> dict[str, Any]:
        """Save a text as a .nas file in the served folder, and check it. A file of this name is replaced."""
        if len(text) > MAX_TEXT:
            raise ToolFailure(f"the text has {len(text):,} characters; at most {MAX_TEXT:,} are saved")
        written = self.folder.write(path, text)
        return {"saved": written.relative_to(self.folder.root).as_posix(), **self.check(path=path)}

    # ------------------------------------------------------------------------------------------- what tools share

    def _source(self, text: str, path: str) -> tuple[Source, Path | None]:
        """The text that a tool was given, and its file."""
        if bool(text) == bool(path):
            raise ToolFailure("expected `text` or `path`, and not both" if text else "expected `text`, or `path`")
        if text:
            if len(text) > MAX_TEXT:
                raise ToolFailure(f"the text has {len(text):,} characters; at most {MAX_TEXT:,} are read")
            return Source("<text>", text), None
        file = Path(zoo_file(path)) if path.startswith("zoo:") else self.folder.path(path)
        return read_source(file, name=path), file

    def _root(self, file: Path | None) -> Path | None:
        """The folder that files which a text uses must not leave."""
        if file is None:
            return None
        return self.folder.root if file.is_relative_to(self.folder.root) else resources.folder("genotypes")

    def _decoder(self, text: str, path: str) -> Decoder:
        source, file = self._source(text, path)
        return load_source(source, file, self._root(file))

    def _space(self, text: str, path: str, backbone: str = "", classes: int = 80) -> Space:
        source, file = self._source(text, path)
        classes = _between("classes", classes, 1, 100_000)
        return load_space_source(source, file, backbone=backbone or None, classes=classes, root=self._root(file))

    def _journal(self, place: Path) -> Path | None:
        """The journal of a stage; None if there is none."""
        name = SearchRun(place).journal.relative_to(self.folder.root).as_posix()
        journal = self.folder.path(name)
        if not journal.is_file():
            return None
        if journal.stat().st_size > MAX_JOURNAL:
            raise ToolFailure(f"{name} has {journal.stat().st_size / 1e6:.0f} MB; at most {MAX_JOURNAL / 1e6:.0f} are read")
        return journal

    def _stage(self, place: Path, top: int) -> dict[str, Any]:
        trials = load_trials(place)
        best = [
            {
                "trial": trial.number,
                "reward": trial.reward,
                "score": trial.score,
                "digest": trial.digest,
                "figures": dict(trial.figures),
                "text": str(trial.text),
            }
            for trial in trials.top(top)
        ]
        return {
            "folder": place.relative_to(self.folder.root).as_posix(),
            "strategy": trials.start.get("strategy"),
            "objective": trials.start.get("objective"),
            "trials": len(trials),
            "results": dict(trials.counts),
            "best": best,
        }


def _size(size: str) -> tuple[int, int] | None:
    if not size:
        return None
    found = parse_size(size)
    if found is None:
        raise ToolFailure(f"size is {printable(size[:40])!r}; expected {SIZE_FORM}")
    return found


def _between(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise ToolFailure(f"{name} is {value}; expected {least:,} to {most:,}")
    return value


def _bounded(what: str, text: str) -> str:
    if len(text) > MAX_RESULT:
        raise ToolFailure(f"{what} has {len(text):,} characters; at most {MAX_RESULT:,} are given")
    return text
