"""The ranking of a search: what its best decoders came to when they were fully trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from nasdsl.search.errors import SearchError
from nasdsl.search.trial import OK

FORMAT: Final = "nasdsl ranking 1"
WAITING: Final = "waiting"
"""The verdict on a decoder that is not trained yet."""


@dataclass(frozen=True)
class Entry:
    """A decoder and what its training came to.

    Attributes:
        name: of its folder: ``trial_12``, or that of a decoder trained beside.
        trial, proxy_rank, reward: of the search, ranks from 1; None for a decoder trained beside.
        verdict: ``ok``, ``waiting``, ``diverged`` or ``failed: reason``.
        ap, ap50: COCO's, fractions of 1.
        macs, params: of fpn and head as they were trained, for one image of the ranking's size.
        seconds: of training, evaluations aside, before and after breaks.
        text: of the decoder as it was trained.
        folder: of the run, relative to that of the ranking.
        error: why there is no AP.
    """

    name: str
    trial: int | None
    proxy_rank: int | None
    reward: float | None
    verdict: str
    ap: float | None
    ap50: float | None
    macs: int | None
    params: int | None
    seconds: float
    text: str
    folder: str
    error: str | None

    @property
    def found(self) -> bool:
        """Whether the search found it; False for a decoder trained beside."""
        return self.trial is not None


@dataclass(frozen=True)
class Ranking:
    """Decoders by AP, best first; those not trained yet behind them, failed ones last.

    Attributes:
        split: of the data, which AP is of.
        size: height and width that `Entry.macs` is for.
    """

    split: str
    size: tuple[int, int]
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        order = {OK: 0, WAITING: 1}
        ranked = sorted(self.entries, key=lambda entry: (order.get(entry.verdict, 2), -(entry.ap or 0.0)))
        object.__setattr__(self, "entries", tuple(ranked))

    @property
    def best(self) -> Entry | None:
        """The best of those that the search found; None where none of them has an AP."""
        return next((entry for entry in self.entries if entry.found and entry.verdict == OK), None)

    def named(self, name: str) -> Entry | None:
        """The entry of this name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def changed(self, entry: Entry) -> Ranking:
        """The ranking with another entry in the place of that of the same name."""
        return replace(self, entries=tuple(entry if old.name == entry.name else old for old in self.entries))

    def write(self, path: Path) -> None:
        """Write it; the file appears when it is whole.

        Raises:
            SearchError: it cannot be written.
        """
        from nasdsl.files import write_json

        value = {"format": FORMAT, "metric": "AP", "split": self.split, "size": list(self.size)}
        try:
            write_json(path, {**value, "entries": [asdict(entry) for entry in self.entries]})
        except OSError as error:
            raise SearchError(f"cannot write {path}: {error.strerror or error}") from error


def read_ranking(path: str | Path) -> Ranking | None:
    """A ranking from its file; None where there is none.

    Raises:
        SearchError: the file cannot be read, or is none of a ranking.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']!r}, expected {FORMAT!r}")
        height, width = value["size"]
        return Ranking(value["split"], (height, width), tuple(_entries(value["entries"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} cannot be read as a ranking: {error}; remove it and resume") from None


def _entries(values: Iterable[Mapping[str, Any]]) -> Iterable[Entry]:
    names = [field.name for field in fields(Entry)]
    for value in values:
        yield Entry(**{name: value[name] for name in names})
