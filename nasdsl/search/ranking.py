"""The ranking of a search: its best decoders by AP after full training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from nasdsl.files import read_json
from nasdsl.search.errors import SearchError
from nasdsl.search.trial import OK

FORMAT: Final = "nasdsl ranking 1"
_ADDED: Final = ("macs_total", "params_total")
"""Fields that rankings of earlier versions lack."""
WAITING: Final = "waiting"
"""Verdict on a decoder that is not trained yet."""


@dataclass(frozen=True)
class RankingEntry:
    """A decoder and the result of its full training.

    Attributes:
        name: of its folder: ``trial_12``, or the name of a decoder trained beside the search's.
        trial, proxy_rank, reward: of the search, ranks from 1; None for a decoder trained beside.
        verdict: ``ok``, ``waiting``, ``diverged`` or ``failed: reason``.
        ap, ap50: COCO's, between 0 and 1.
        macs, params: of fpn and head as trained, for one image of the size that the text names, or of the ranking's.
        seconds: of training without evaluations, summed over interruptions.
        text: of the decoder as trained.
        folder: of the run, relative to the ranking's.
        error: why there is no AP.
        macs_total, params_total: the same with the backbone; None in rankings of earlier versions.
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
    macs_total: int | None = None
    params_total: int | None = None

    @property
    def from_search(self) -> bool:
        """Whether it is a trial of the search; False for a decoder trained beside."""
        return self.trial is not None


@dataclass(frozen=True)
class Ranking:
    """Decoders by AP, best first, followed by those that are not trained yet and those that failed.

    Attributes:
        split: part of the data that AP is measured on.
        size: height and width of the image that costs are counted for.
        entries: one for each decoder, in this order.
    """

    split: str
    size: tuple[int, int]
    entries: tuple[RankingEntry, ...]

    def __post_init__(self) -> None:
        order = {OK: 0, WAITING: 1}
        ranked = sorted(self.entries, key=lambda entry: (order.get(entry.verdict, 2), -(entry.ap or 0.0)))
        object.__setattr__(self, "entries", tuple(ranked))

    @property
    def best(self) -> RankingEntry | None:
        """The trial with the best AP; None if no trial has one."""
        return next((entry for entry in self.entries if entry.from_search and entry.verdict == OK), None)

    def get(self, name: str) -> RankingEntry | None:
        """The entry with this name; None if there is none.

        Args:
            name: of a decoder: ``trial_81``, or that of its file.
        """
        return next((entry for entry in self.entries if entry.name == name), None)

    def with_entry(self, entry: RankingEntry) -> Ranking:
        """The ranking with the entry of the same name replaced.

        Args:
            entry: the new one.
        """
        return replace(self, entries=tuple(entry if old.name == entry.name else old for old in self.entries))

    def write(self, path: Path) -> None:
        """Write the ranking atomically.

        Args:
            path: of a JSON file.

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
    """Read a ranking; None if there is no file.

    Args:
        path: of a JSON file that `Ranking.write` wrote.

    Raises:
        SearchError: the file cannot be read, or is not a ranking.
    """
    try:
        value = read_json(path)
        if value["format"] != FORMAT:
            raise ValueError(f"its format is {value['format']!r}, expected {FORMAT!r}")
        height, width = value["size"]
        return Ranking(value["split"], (height, width), tuple(_read_entries(value["entries"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} cannot be read as a ranking: {error}; remove it and resume") from None


def _read_entries(values: Iterable[Mapping[str, Any]]) -> Iterable[RankingEntry]:
    names = [field.name for field in fields(RankingEntry)]
    for value in values:
        yield RankingEntry(**{name: value[name] for name in names if name in value or name not in _ADDED})
