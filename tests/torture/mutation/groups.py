"""Groups of mutants: of which sources, and which tests are to notice them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torture.records import ROOT


@dataclass(frozen=True)
class Group:
    """What is mutated together.

    Attributes:
        sources: files and folders, by patterns below the root of the sources.
        tests: that are run, of which each mutant gets those that run its line.
        aim: number of mutants, drawn at random; None: all.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    aim: int | None = 80

    def paths(self) -> list[Path]:
        """The files to mutate, in order."""
        return sorted(path for pattern in self.sources for path in ROOT.glob(pattern))


GROUPS = {
    "journal": Group(
        ("nasdsl/search/journal.py", "nasdsl/files.py", "nasdsl/lock.py"),
        ("tests/search/test_search_journal.py", "tests/test_files.py", "tests/test_lock.py"),
        None,
    ),
    "layers": Group(
        ("nasdsl/layers/[!p]*.py",),  # without plugins.py: packages are tried in processes of their own, which have no mutant
        (
            "tests/layers/test_custom_layers.py", "tests/layers/test_custom_results.py", "tests/layers/test_layer_costs.py",
            "tests/nn/test_attention.py", "tests/nn/test_upsampling.py", "tests/backends/test_small_layers.py",
            "tests/backends/test_layer_errors.py", "tests/backends/test_module.py", "tests/ir", "tests/semantics",
            "tests/diagnostics/test_golden_messages.py", "tests/diagnostics/test_catalogue.py",
        ),
    ),
    "semantics": Group(
        ("nasdsl/semantics/*.py",),
        (
            "tests/semantics", "tests/diagnostics/test_golden_messages.py", "tests/diagnostics/test_catalogue.py", "tests/ir",
            "tests/spaces/test_space.py", "tests/spaces/test_holes_everywhere.py", "tests/spaces/test_depth_holes.py",
            "tests/layers/test_custom_layers.py", "tests/layers/test_custom_results.py", "tests/backends/test_level_widths.py",
            "tests/backends/test_shared_ops.py", "tests/backends/test_given_offsets.py", "tests/backends/test_folding.py",
            "tests/test_detector_statement.py",
        ),
    ),
    "spaces": Group(
        ("nasdsl/spaces/*.py",),
        (
            "tests/spaces/test_alternative_weights.py", "tests/spaces/test_space.py", "tests/spaces/test_distinct.py",
            "tests/spaces/test_holes_everywhere.py", "tests/spaces/test_depth_holes.py",
            "tests/grammar/test_space_grammar.py", "tests/backends/test_small_layers.py", "tests/layers/test_custom_results.py",
        ),
    ),
    "targets": Group(
        (
            "nasdsl/predictions/*.py",
            *(
                f"nasdsl/detection/{name}.py"
                for name in (
                    "atss", "distributions", "fcos", "gfl", "locations", "losses", "positives", "pyramid", "retinanet", "tal",
                )
            ),
        ),
        (
            "tests/predictions", "tests/torture/test_short.py::test_targets_equal_slow_ones",
            "tests/export/test_export_predictions.py::test_text_digest_cost_and_weights",
            "tests/export/test_export_predictions.py::test_whole_detectors_as_onnx_and_source",
            *(
                f"tests/detection/test_{name}.py"
                for name in (
                    "assignment", "distributions", "fcos", "fcos_targets", "losses", "positives", "pyramid", "retinanet",
                    "detections", "postprocess",
                )
            ),
        ),
    ),
}  # fmt: skip
