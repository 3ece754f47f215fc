"""The weights that a decoder inherits from the weight-sharing network of a search, as the start of its training."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from nasdsl.detection.weights import SavedWeights
from nasdsl.search.config import read_config
from nasdsl.search.detectors import detector_key, key_name
from nasdsl.search.errors import SearchError
from nasdsl.search.supernet.spec import FILE, SupernetSpec
from nasdsl.search.supernet.training import Supernet, load_identity
from nasdsl.spaces import SpaceError, loads_space
from nasdsl.training.proxy import ProxySpec, ProxyTask
from nasdsl.training.proxy.extraction import make_frozen_backbone


def is_supernet(folder: Path) -> bool:
    """Whether this is the folder of a search that was evaluated by a weight-sharing network."""
    return (folder / FILE).is_file()


def inherited_weights(folder: str | Path, text: str, *, device: str = "auto", quiet: bool = False) -> SavedWeights:
    """The weights that a decoder inherits from the weight-sharing network of a search, with those of its frozen backbone.

    They are what the search has scored the decoder with: the statistics of its BatchNorms are measured on the search's data,
    whose features are computed again if they are not in its cache any more.

    Args:
        folder: of the search.
        text: of the decoder, a filling of the search's space, such as ``best.nas`` or the text of a trial.
        device: on which the statistics are measured; ``auto`` is a GPU if there is one.
        quiet: show no progress.

    Returns:
        weights for `nasdsl.detector`.

    Raises:
        SearchError: there is no such network, its training is not finished, or the decoder is none of its space.
        CheckpointError: its file cannot be read.
        ProxyError, DataError, BackboneError: see `nasdsl.training.proxy.ProxyTask`.
    """
    path = Path(folder) / FILE
    identity, key = load_identity(path), detector_key(text)
    tasks: dict[str, dict[str, Any]] = identity["tasks"]
    key = key if key_name(key) in tasks else (None, None)
    if key_name(key) not in tasks:
        raise SearchError(f"the decoder is for {key_name(detector_key(text))}; {path} is for {'; '.join(tasks)}")
    found = {**tasks[key_name(key)], "cache": _cache(Path(folder)), "device": device}
    task = ProxyTask(ProxySpec(**found), quiet=quiet)
    backbone = None if key[0] is not None else task.spec.backbone
    space = loads_space(identity["space"], backbone=backbone, classes=len(task.classes))
    # Decoders of other sizes and backbones are not scored: they only show which decisions are widths.
    others = itertools.product(space.backbones or (None,), space.sizes or (None,))
    supernet = Supernet(space, {**dict.fromkeys(others, task), key: task}, SupernetSpec(**identity["spec"]), quiet=quiet)
    supernet.load(path)
    try:
        decoder = supernet.state_of(text)
    except SpaceError as error:
        raise SearchError(f"{path} has weights for the decoders of its space alone, which this is none of: {error}") from None
    weights = {f"backbone.{name}": value for name, value in make_frozen_backbone(task.spec).state_dict().items()}
    weights |= {f"decoder.{name}": value.cpu() for name, value in decoder.items()}
    config = {
        "decoder": task.load(text).source.text,
        "backbone": {"name": task.spec.backbone},
        "classes": list(task.classes),
    }
    return SavedWeights(path, weights, config)


def _cache(folder: Path) -> str:
    """The folder of the search's features, by default that in its own."""
    proxy = (read_config(folder) or {}).get("proxy") or {}
    return str(proxy.get("cache") or folder / "features")
