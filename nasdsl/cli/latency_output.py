"""Output of `nasdsl latency`: measured times, predicted ones, and both beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nasdsl.cli.output import echo_err, pluralize

if TYPE_CHECKING:
    from nasdsl.latency import Latency, PredictedLatency
    from nasdsl.latency.measuring import WholeTime
    from nasdsl.latency.prediction import PredictedPart
    from nasdsl.latency.session import Profile, Session

SHOWN_NODES = 10


class Measured(NamedTuple):
    """A measured latency, with what was measured.

    Attributes:
        file: as the user named it.
        sha256: of the file; None for a decoder at random weights.
        profile: None if the runtime does not tell.
        detections: mean number in an image; None for a decoder alone.
        image: file that was run on; None: images of the data set shapes.
        where: the machine.
    """

    file: str
    sha256: str | None
    session: Session
    found: Latency
    profile: Profile | None
    detections: float | None
    image: Path | None
    where: dict[str, Any]


class Whole(NamedTuple):
    """A whole detector that was measured beside its prediction.

    Attributes:
        time: what was measured.
        reference: milliseconds of the reference in the table.
        sections: profiled milliseconds by section, at the table's pace; empty if the runtime does not tell.
    """

    time: WholeTime
    reference: float
    sections: dict[str, float]

    @property
    def at_the_tables_pace(self) -> float:
        """Milliseconds on a machine that is as fast as when the table was filled."""
        return self.time.relative * self.reference

    @property
    def slower(self) -> float:
        """How much longer the reference took than in the table."""
        return self.time.reference / self.reference


def warn_unsteady(found: Latency) -> None:
    """Warn where another measurement may differ by much."""
    if not found.warm:
        echo_err("warning: the times had not settled by the end of the warm-up")
    if found.disturbed and not found.steady:
        echo_err(
            f"warning: not steady: {found.disturbed} of {pluralize(len(found.rounds), 'round')} were disturbed; close other "
            "programs and measure again"
        )


def warn_disturbed(found: WholeTime) -> None:
    """Warn where the machine was slower than when the table was filled."""
    if found.disturbed:
        echo_err(
            f"warning: the machine was disturbed in {found.disturbed} of {pluralize(found.rounds, 'round')}; close other "
            "programs and measure again"
        )


def measured_lines(measured: Measured) -> list[str]:
    """A measured latency for people."""
    file, sha256, session, found, profile, detections, image, where = measured
    height, width = session.size
    names = [session.metadata["decoder"]] if session.metadata.get("decoder") else []
    names += [f"digest {session.metadata['digest'][:12]}"] if session.metadata.get("digest") else []
    names += [f"sha256 {sha256[:12]}"] if sha256 else []
    source = image or "the data set shapes"
    per_image = "" if detections is None else f", {detections:.3g} detections in an image"
    lines = [
        f"{file}: {', '.join([*names, *session.notes])}",
        f"{session.runtime} {session.version} on {session.device}, {pluralize(session.threads, 'thread')}; batch of "
        f"{session.batch}, {height}x{width}, {source}{per_image}",
        "",
        f"{found.median:.2f} ms for an image (quartiles {found.lower_quartile:.2f} to {found.upper_quartile:.2f}), "
        f"{1000 / found.median:.1f} images a second",
        f"median of {len(found.rounds) - found.disturbed} rounds with {pluralize(found.runs, 'run')} in all, after "
        f"{pluralize(found.warmup_runs, 'run')} of warm-up; {pluralize(found.disturbed, 'disturbed round')} left out",
    ]
    if profile is not None and profile.sections:  # a runtime may have nothing left to execute
        lines += ["", *_profile_lines(profile)]
    load = f", load {where['load']}" if "load" in where else ""
    lines += ["", f"{where['cpu']}, {pluralize(where['cores'], 'core')}{load}; {where['system']}, Python {where['python']}"]
    return lines


def _profile_lines(profile: Profile) -> list[str]:
    """Milliseconds of a run by section, and of the slowest nodes."""
    total = sum(profile.sections.values()) or 1.0
    rows = [(name, "", value) for name, value in profile.sections.items()]
    shown = [(node.name, node.op, node.milliseconds) for node in profile.nodes[:SHOWN_NODES]]
    return [
        "where the time of a run goes (profiled runs of their own, which are slower):",
        *_table(rows, total),
        *(["", f"the slowest of {pluralize(len(profile.nodes), 'node')}:", *_table(shown, total)] if shown else []),
    ]


def measured_json(measured: Measured) -> dict[str, Any]:
    """A measured latency for programs."""
    file, sha256, session, found, profile, detections, image, where = measured
    return {
        "file": file,
        "sha256": sha256,
        "digest": session.metadata.get("digest"),
        "decoder": session.metadata.get("decoder"),
        "runtime": {"name": session.runtime, "version": session.version},
        "device": session.device,
        "threads": session.threads,
        "size": list(session.size),
        "image": str(image) if image else "shapes",
        "detections": detections,
        "machine": where,
        "milliseconds": found.to_dict(),
        "sections": profile.sections if profile else None,
        "nodes": [node._asdict() for node in profile.nodes] if profile else None,
        "notes": session.notes,
    }


def predicted_json(file: str, found: PredictedLatency, table: Path, whole: Whole | None) -> dict[str, Any]:
    """A predicted latency for programs."""
    context, correction = found.context, found.correction
    value: dict[str, Any] = {
        "file": file,
        "predicted": {
            "milliseconds": found.milliseconds,
            "sections": found.sections,
            "parts": [part._asdict() for part in found.parts],
            "measured_parts": found.measured,
            "correction": None if correction is None else vars(correction),
        },
        "runtime": {"name": context.runtime, "version": context.version},
        "device": "cpu",
        "threads": context.threads,
        "backbone": found.backbone,
        "size": list(found.size),
        "classes": found.classes,
        "table": str(table),
    }
    if whole is not None:
        value["measured"] = {
            "milliseconds": whole.at_the_tables_pace,
            "by_the_clock": whole.time.milliseconds,
            "disturbed_rounds": whole.time.disturbed,
            "sections": whole.sections,
        }
    return value


def predicted_lines(file: str, found: PredictedLatency, table: Path, whole: Whole | None) -> list[str]:
    """A predicted latency for people, beside the measured one if there is one."""
    height, width = found.size
    correction = found.correction
    lines = [
        f"{file}: {found.backbone}, {height}x{width}, {found.classes} classes; {found.context}",
        "",
        f"{found.milliseconds:.2f} ms for an image, predicted from {pluralize(len(found.parts), 'part')}",
    ]
    if correction is None:
        lines.append("their times are added without a correction: none is fitted before 8 detectors were measured (--measure)")
    else:
        lines.append(
            f"corrected as {pluralize(correction.detectors, 'measured detector')} tell: {correction.factor:.3f} times the sum "
            f"(their median error: {correction.error_after:.1%}, without it {correction.error_before:.1%})"
        )
    if whole is not None:
        error = found.milliseconds / whole.at_the_tables_pace - 1
        lines += [
            f"{whole.at_the_tables_pace:.2f} ms measured: the prediction is {abs(error):.1%} "
            f"{'above' if error > 0 else 'below'} it",
        ]
        if abs(whole.slower - 1) > 0.05:
            lines.append(
                f"(by the clock {whole.time.milliseconds:.2f} ms: the machine took {whole.slower:.2f} times as long for the "
                "table's reference as when the table was filled)"
            )
    measured = {} if whole is None else whole.sections
    if measured:
        lines += ["", "where the time goes, predicted and profiled (profiled runs are slower):"]
    else:
        lines += ["", "where the time goes:"]
    names = [*found.sections, *(name for name in measured if name not in found.sections)]
    wide = max(map(len, names))
    for name in names:
        beside = f"{measured.get(name, 0.0):9.3f} ms" if measured else ""
        lines.append(f"  {name:<{wide}}  {found.sections.get(name, 0.0):9.3f} ms  {beside}".rstrip())
    lines += ["", "the slowest parts:", *_parts(found.slowest(SHOWN_NODES), found.milliseconds)]
    return [*lines, "", f"table: {table}"]


def _parts(groups: Sequence[Sequence[PredictedPart]], total: float) -> list[str]:
    """Milliseconds of parts that are alike, how many there are, where the first one stands, and what they are."""
    rows = [(parts[0].name, f"x {len(parts)}", sum(part.milliseconds for part in parts), parts[0].key) for parts in groups]
    names, counts = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    return [
        f"  {name:<{names}}  {count:<{counts}} {value:9.3f} ms {value / total:6.1%}  {key}" for name, count, value, key in rows
    ]


def _table(rows: Sequence[tuple[str, str, float]], total: float) -> list[str]:
    names = max(len(name) for name, _, _ in rows)
    ops = max(len(op) for _, op, _ in rows)
    return [f"  {name:<{names}}  {op:<{ops}}  {value:9.3f} ms {value / total:6.1%}" for name, op, value in rows]
