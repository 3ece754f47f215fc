"""How decoders, spaces and trials show themselves in a notebook: pictures, tables and charts.

IPython asks for the functions of `FORMATTERS` by the names of the types, so that importing `nasdsl` in a notebook still imports
nothing else. Detections show themselves (`nasdsl.detection.detections`). Pages need no network and follow the notebook's own
colours; what comes from texts and files is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nasdsl.decoder import Decoder
    from nasdsl.search.results import Trials
    from nasdsl.search.trial import Trial
    from nasdsl.spaces import Space

MOST_TRIALS: Final = 5
"""Trials in the table of a search."""
MOST_CHARTS: Final = 4
MOST_DECISIONS: Final = 60
_CELL: Final = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"


def decoder_html(decoder: Decoder) -> str:
    """The picture of a decoder and its cost, for the detector that its text names or else ResNet-50 and 800x1088."""
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends import diagrams
    from nasdsl.backends.requirements import DEFAULT_SIZE
    from nasdsl.decoder import REFERENCE_BACKBONE

    size = decoder.size or DEFAULT_SIZE
    backbone = decoder.backbone or REFERENCE_BACKBONE
    table = decoder.cost(size, backbone)
    graph = decoder.lower(find_backbone(backbone).out_channels)
    try:
        picture = _image(diagrams.render_folding(diagrams.fold_graph(graph, table, None), "svg"), "svg+xml", decoder.name)
    except diagrams.RenderError as error:  # no Graphviz: the text instead
        picture = f"<pre>{escape(decoder.source.text)}</pre><p>{escape(str(error))}</p>"
    parts = {"backbone": table.backbone, "fpn": table.fpn, "head": table.head, "total": table.total}
    rows = [(name, _amount(part.macs), _amount(part.params)) for name, part in parts.items()]
    about = (
        f"<b>{escape(decoder.name)}</b> on {escape(backbone)}, {size[0]}x{size[1]}, digest <code>{decoder.digest[:12]}</code>"
    )
    return f"<div>{picture}<p>{about}</p>{_table(('part', 'MACs', 'parameters'), rows)}</div>"


def space_html(space: Space) -> str:
    """The decisions of a space, with its text."""
    from nasdsl.spaces.size import space_size

    rows = [
        (str(domain.index), domain.role or domain.name or domain.kind, str(domain.size), _joined(domain.alternatives))
        for domain in space.domains[:MOST_DECISIONS]
    ]
    more = len(space.domains) - len(rows)
    return (
        f"<div><p><b>{escape(space.name)}</b>: {len(space.domains)} decisions, {space_size(space.size)} decoders</p>"
        f"{_table(('decision', 'of', 'alternatives', ''), rows)}"
        + (f"<p>and {more} decisions more</p>" if more else "")
        + _folded("text", f"<pre>{escape(space.source.text)}</pre>")
        + "</div>"
    )


def trials_html(trials: Trials) -> str:
    """The best trials of a search, its charts and the picture of its best decoder."""
    from nasdsl.report.formatting import count
    from nasdsl.report.search.charts import charts
    from nasdsl.report.search.data import stage_of

    counts = ", ".join(f"{number:,} {verdict}" for verdict, number in trials.counts.items() if number)
    parts = [f"<p><b>{count(len(trials), 'trial')}</b>{f': {counts}' if counts else ''}</p>"]
    best = trials.top(MOST_TRIALS)
    if best:
        parts.append(_table(("trial", "reward", "MACs", "parameters", "decisions"), [_row(trial) for trial in best]))
        drawn = charts(stage_of(trials))[:MOST_CHARTS]
        parts += [f'<div style="display:inline-block;max-width:100%">{_chart(chart)}</div>' for chart in drawn]
        parts.append(_folded(f"best decoder, trial {best[0].number}", _trial_picture(best[0])))
    return f"<div>{''.join(parts)}</div>"


def trial_html(trial: Trial) -> str:
    """The figures of a trial and the picture of its decoder."""
    rows = [
        (name, value) for name, value in zip(("trial", "reward", "MACs", "parameters", "decisions"), _row(trial), strict=True)
    ]
    rows += [("verdict", trial.verdict), ("seconds", f"{trial.seconds:.1f}")]
    return f"<div>{_table((), rows)}{_trial_picture(trial)}</div>"


class Difference:
    """What has changed from one decoder to another, as a picture.

    Args:
        before, after: the decoders.
        backbone: whose features both read; None: that of `after`'s text, or resnet50.
    """

    def __init__(self, before: Decoder, after: Decoder, backbone: str | None = None) -> None:
        self.before, self.after, self.backbone = before, after, backbone

    def _repr_html_(self) -> str:
        from nasdsl.backbones import backbone as find_backbone
        from nasdsl.backends import diagrams
        from nasdsl.decoder import REFERENCE_BACKBONE

        name = self.backbone or self.after.backbone or REFERENCE_BACKBONE
        channels = find_backbone(name).out_channels
        first, second = ((decoder.lower(channels), decoder.cost(None, name)) for decoder in (self.before, self.after))
        title = f"from {self.before.name} to {self.after.name}"
        return _image(diagrams.render_diff(*first, *second, "svg"), "svg+xml", title)


FORMATTERS: Final[Mapping[tuple[str, str], Callable[[Any], str]]] = {
    ("nasdsl.decoder", "Decoder"): decoder_html,
    ("nasdsl.spaces.space", "Space"): space_html,
    ("nasdsl.search.results", "Trials"): trials_html,
    ("nasdsl.search.trial", "Trial"): trial_html,
}
"""Functions that give the HTML of a value, by module and name of its type."""


def register(shell: Any) -> None:
    """Register `FORMATTERS` with a running IPython."""
    formatter = shell.display_formatter.formatters["text/html"]
    for (module, name), function in FORMATTERS.items():
        formatter.for_type_by_name(module, name, function)


# ------------------------------------------------------------------------------------------------------ pieces


def _trial_picture(trial: Trial) -> str:
    from nasdsl.decoder import loads
    from nasdsl.diagnostics import DiagnosticError

    try:
        return decoder_html(loads(str(trial.text), f"trial {trial.number}"))
    except DiagnosticError as error:  # rejected: it does not check
        return f"<pre>{escape(str(error))}</pre>"


def _row(trial: Trial) -> tuple[str, ...]:
    from nasdsl.report.formatting import reward

    figures = trial.figures
    return (
        str(trial.number), reward(trial.reward), _amount(figures.get("macs")), _amount(figures.get("params")),
        " ".join(map(str, trial.indices)),
    )  # fmt: skip


def _amount(value: float | None) -> str:
    from nasdsl.report.formatting import amount

    return amount(value)


def _joined(words: Sequence[str], longest: int = 120) -> str:
    text = " | ".join(words)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in head)
    lines = ["".join(f'<td style="{_CELL}">{escape(value)}</td>' for value in row) for row in rows]
    header = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<table>{header}<tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _chart(chart: Any) -> str:
    """A chart as a picture: a notebook need not have Vega, nor a network."""
    import vl_convert

    from nasdsl.report.chart_files import VEGA_LITE, standalone

    svg = vl_convert.vegalite_to_svg(standalone(chart), vl_version=VEGA_LITE)
    return _image(svg.encode(), "svg+xml", chart.title)


def _image(data: bytes, kind: str, title: str) -> str:
    """A picture as an element of its own, whose identifiers and styles cannot meet those of the notebook."""
    encoded = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{encoded}" alt="{escape(title)}" style="max-width:100%;background:white">'
