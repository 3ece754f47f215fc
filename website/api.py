"""Pages of the Python interface: which names they have. What they say are the docstrings, shown by mkdocstrings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Final


@dataclass(frozen=True, slots=True)
class Module:
    """A page.

    Attributes:
        name: of the module that users import from.
        about: a sentence or two above its names.
        names: what it documents, with spaces between; empty for all of ``__all__``.
        leaves_out: names of ``__all__`` that another page has, or that no docstring can describe.
    """

    name: str
    about: str
    names: str = ""
    leaves_out: str = ""

    def documented(self) -> tuple[str, ...]:
        """The names that the page has an entry for."""
        if self.names:
            return tuple(self.names.split())
        left_out = self.leaves_out.split()
        return tuple(name for name in import_module(self.name).__all__ if name not in left_out)


MODULES: Final = (
    Module(
        "nasdsl",
        "All that most users need. Importing it imports nothing else; torch is imported where a name needs it. "
        "`nasdsl.__version__` is the version. `nasdsl.search(…)` is [`nasdsl.search.search`][].",
        leaves_out="__version__ search",
    ),
    Module("nasdsl.spaces", "Decoders with holes: see [the language](../language.md#holes-search-spaces)."),
    Module(
        "nasdsl.spaces.adapters", "Spaces as problems of other optimizers: see [strategies](../strategies.md#optuna-and-neps)."
    ),
    Module("nasdsl.search", "Search a space, from Python: see [search](../search.md)."),
    Module(
        "nasdsl.search.strategies",
        "What proposes texts: see [strategies](../strategies.md), and [how to add one](../add.md#a-strategy).",
        "make_strategy Strategy FrontStrategy Aims StrategyError mutation.mutate strategy.base_state strategy.load_base_state",
    ),
    Module(
        "nasdsl.search.supernet.start",
        "Weights for a training, "
        "from [a search with one network for all samples](../search.md#a-training-that-starts-with-inherited-weights).",
        "inherited_weights",
    ),
    Module(
        "nasdsl.data",
        "Images with boxes: see [training](../training.md#your-own-images), and [how to add a form](../add.md#a-form-of-data).",
        "open_dataset find_splits Dataset Sample read_image DataError UnreadableImage BrokenData Skipped source.Source "
        "source.Contents source.choose_classes dataset.RecordBuilder layouts.Listing",
    ),
    Module(
        "nasdsl.training",
        "Train a detector: see [training](../training.md).",
        "train TrainingResult Recipe find_recipe predict Predictions",
    ),
    Module(
        "nasdsl.evaluation",
        "Metrics of detections, in the forms of COCO.",
        "evaluate Evaluation coco_metrics CocoMetrics voc_metrics VocMetrics precision_recall Curve confusion_matrix "
        "ConfusionMatrix best_threshold BestThreshold image_errors ImageErrors GroundTruth EvaluationError",
    ),
    Module(
        "nasdsl.latency",
        "Milliseconds, measured and predicted: see [latency](../latency.md).",
        "measure_latency measure_latencies Latency Protocol predict_latency PredictedLatency LatencyPredictor "
        "artifact.open_session",
    ),
    Module(
        "nasdsl.grammar_export",
        "Grammars for constrained decoding: see [language models](../language-models.md).",
        "language_grammar space_grammar GrammarError",
    ),
    Module("nasdsl.report.search", "The page about a search: see [search](../search.md#the-report).", "page read_search"),
    Module(
        "nasdsl.report.training",
        "The page about a training: see [training](../training.md#the-report).",
        "page read_training write_report",
    ),
    Module(
        "nasdsl.layers",
        "What [a primitive of your own](../plugins.md) is made of.",
        "primitive CustomLayer Feature Features Cost FREE LayerError PrimitiveError",
    ),
    Module(
        "nasdsl.predictions",
        "What [a kind of prediction of your own](../plugins.md#kinds-of-prediction-of-your-own) says without torch.",
        "prediction PredictionKind PredictedMap BoxForm PredictionError",
    ),
    Module(
        "nasdsl.detection",
        "What [a kind of prediction of your own](../plugins.md#kinds-of-prediction-of-your-own) computes with.",
        "method.Method method.LossTerm fcos.Fcos locations.LocationTargets pyramid.Predictions pyramid.flatten_levels "
        "pyramid.one_hot postprocess.decode_boxes losses.paired_iou distributions.quality_focal_loss",
    ),
    Module(
        "nasdsl.ir",
        "The graph, which [back ends](../add.md#a-back-end) are functions of.",
        "Graph Node HeadGraph Tower HeadLayer Prediction Removed verify VerifyError",
    ),
    Module("nasdsl.backends.cost", "Costs: what `Decoder.cost` returns.", "CostTable PartCost ValueCost"),
    Module("nasdsl.backends.onnx.writer", "What the `onnx` method of a primitive writes with.", "Writer"),
)
"""The pages in the order of the navigation."""


def pages() -> dict[str, str]:
    """Markdown by place: the list of the modules, and a page for each."""
    rows = []
    found = {}
    for module in MODULES:
        names = module.documented()
        shown = ", ".join(f"[`{name}`][{module.name}.{name}]" for name in names)
        rows.append(f"| [`{module.name}`]({module.name}.md) | {shown} |")
        entries = "\n\n".join(f"::: {module.name}.{name}{_further(f'{module.name}.{name}')}" for name in names)
        found[f"api/{module.name}.md"] = f"# {module.name}\n\n{module.about}\n\n{entries}\n"
    about = (
        "# Python\n\nWhat a program may rely on. All that these pages do not name may change.\n\n"
        + "\n".join(["| module | names |", "|---|---|", *rows])
    )  # fmt: skip
    return {"api/index.md": about + "\n", **found}


def _further(name: str) -> str:
    """What stands below an entry: of a recipe its settings, which the command line takes its help from too."""
    if name != "nasdsl.training.Recipe":
        return ""
    from nasdsl.training import RECIPES, SETTINGS

    defaults = RECIPES["published"].to_dict()
    rows = [f"| `{setting}` | {meaning} | `{json.dumps(defaults[setting])}` |" for setting, meaning in SETTINGS.items()]
    return "\n\n" + "\n".join(["| setting | meaning | default |", "|---|---|---|", *rows])


def entries() -> Iterator[str]:
    """The dotted names that have an entry."""
    for module in MODULES:
        yield from (f"{module.name}.{name}" for name in module.documented())
