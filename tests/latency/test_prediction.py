"""Predicted latency: the pieces of decoders, the table, and sums of parts; with made-up times, and a few real ones."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "cli"))

import random_decoders
from in_process import invoke, refused

import nasdsl
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Areas, cost
from nasdsl.cli.latency_output import Whole, predicted_lines
from nasdsl.ir.graph import Graph
from nasdsl.latency import LatencyPredictor, measuring, predict_latency, probes
from nasdsl.latency.measuring import Effort, Measurer, PartTime, WholeTime
from nasdsl.latency.pieces import Part, parts_of
from nasdsl.latency.probes import Probe, make_probe, piece_probe, reference_piece
from nasdsl.latency.session import LatencyError, MissingRuntime
from nasdsl.latency.table import CORRECTED_FROM, Context, Correction, Table, fit_correction
from nasdsl.latency.timing import wall_timer
from nasdsl.layers import Input, Result, layer_cost

HERE = Context("onnxruntime", "1.0", 1, "a processor")
SIZE = (96, 160)


def made_up_seconds(key: str) -> float:
    return 1 + random.Random(key).random()


def made_up(context: Context, parts: Sequence[Part], pace: float | None) -> Iterator[tuple[Part, PartTime]]:
    """Times that depend on the key alone; the reference takes 2 ms."""
    for part in parts:
        yield part, PartTime(made_up_seconds(part.key), (2.0, 2.0, 2.0))


def lowered(text: str, backbone: str = "mobilenet_v2") -> Graph:
    return nasdsl.loads(text).lower(find_backbone(backbone).out_channels)


# -------------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("seed", range(30))
def test_the_parts_are_the_whole_decoder(seed: int) -> None:
    """Their costs are those of the cost table, which counts the graph by itself, and every node is in one piece."""
    text = random_decoders.text(seed) if seed % 2 else random_decoders.paper_text(seed)
    graph = lowered(text)
    read = Counter([source for node in graph.nodes for source in node.inputs] + list(graph.outputs.values()))
    areas = Areas(SIZE)
    macs: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for part in parts_of(graph, "mobilenet_v2", SIZE, 7):
        if part.piece is None:
            continue
        for before, node in zip((None, *part.piece.nodes), part.piece.nodes, strict=False):
            assert before is None or node.inputs == (before.id,)
            macs[part.section] += layer_cost(node.layer, node.operands, node.out, areas.area).macs
            nodes[node.id] += part.section == "fpn"
        if part.section == "fpn":
            assert all(read[node.id] == 1 for node in part.piece.nodes[:-1]), "what others read too is the result of a piece"
    table = cost(graph, SIZE, 7)
    assert macs["fpn"] == table.fpn.macs
    assert macs["head"] + macs["predict"] == table.head.macs
    assert +nodes == Counter(node.id for node in graph.nodes if not isinstance(node.layer, Input | Result))


def test_parts_that_cost_the_same_have_one_key() -> None:
    text = """decoder d { input c3, c4, c5
      fpn(width=32, norm=bn) { a = sep_3x3(c3); b = sep_3x3(a); c = sep_5x5(b)
        output p3 = add(a, c), p4 = conv_1x1(c4), p5 = conv_1x1(c5) }
      head(width=32) { conv_3x3 -> conv_3x3 } predict fcos(centerness=cls) }"""
    parts = list(parts_of(lowered(text), "mobilenet_v2", SIZE, 3))
    keys = {part.name: part.key for part in parts}
    assert keys["a.conv"] == keys["b.conv"] != keys["c.conv"]
    assert keys["b.conv"].startswith(
        "conv(width=32, k=3, groups=32) > conv(width=32, k=1) > norm(norm=bn) > act(function=relu)"
    )
    head = Counter(part.key for part in parts if part.section == "head")
    assert sorted(head.values()) == [4, 4, 4], "two towers of two layers on three levels"
    other = {part.key for part in parts_of(lowered(text), "mobilenet_v2", (96, 192), 3)}
    assert not other & set(keys.values()), "another size is another map everywhere"


# -------------------------------------------------------------------------------------------------------------- probes


def outputs_in_onnxruntime(probe: Probe) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(probe.onnx(), providers=["CPUExecutionProvider"])
    return session.run(None, {one.name: probe.inputs[one.name] for one in session.get_inputs()})  # type: ignore[no-any-return]


SMALL_LAYERS = """decoder d { input c3, c4
  fpn(width=32, norm=none) {
    a, b = split(c3)
    up = add(up_conv(c4, k=3), carafe(c4, k=3, compressed=8))
    gate = conv(c4, k=1, width=1)
    seen = norm(attention(conv_1x1(pixel_shuffle(conv_1x1(c4, width=64)))), norm=ln)
    by = conv(c4, k=1, width=2)
    output p3 = add(mul(concat(a, b), 0.5), up), p4 = add(weighted_add(mul(c4, gate), c3, by=by), seen)
  }
  head(width=32) { skip } predict fcos }"""


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (random_decoders.paper_text(4), {"resize", "deform_conv", "concat"}),
        (SMALL_LAYERS, {"split", "mul", "weighted_add", "up_conv", "carafe", "pixel_shuffle", "attention"}),
    ],
    ids=["paper", "small"],
)
def test_probes_compute_the_same_in_both_runtimes(text: str, kinds: set[str]) -> None:
    parts = {part.key: part for part in parts_of(lowered(text), "tiny", (64, 64), 3)}
    pieces = [part for part in parts.values() if part.piece is not None]
    assert kinds <= {part.key.split("(")[0] for part in pieces}
    for part in pieces:
        probe = make_probe(part, 2)
        with torch.inference_mode():
            expected = list(probe.function({name: torch.from_numpy(x) for name, x in probe.inputs.items()}).values())
        found = outputs_in_onnxruntime(probe)
        assert len(found) == len(expected) == (1 if part.piece and part.piece.repeats else 2)
        assert part.piece is not None
        for a, b in zip(found, expected, strict=True):
            assert a.shape == (1, part.piece.out.width, *part.piece.out_map)
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-3, atol=1e-4, err_msg=part.key)


def test_copies_have_weights_or_operands_of_their_own() -> None:
    import onnx

    graph = lowered(random_decoders.paper_text(4))
    parts = {part.key: part for part in parts_of(graph, "tiny", (64, 64), 3) if part.piece is not None}
    for part in parts.values():
        model = onnx.load_from_string(make_probe(part, 3).onnx())
        inputs = [one.name for one in model.graph.input if one.name != "like"]
        assert part.piece is not None
        assert len(inputs) == len(part.piece.operands) * (1 if part.piece.shares_operands else 3), part.key
        used = {one.name for one in model.graph.output}.union(*(node.input for node in model.graph.node))
        assert all(used & set(node.output) for node in model.graph.node), "each layer is needed for the result"
        same = Counter((node.op_type, tuple(node.input)) for node in model.graph.node)
        heavy = [count for (op, _), count in same.items() if op in ("Conv", "Add", "Resize", "Mul")]
        assert max(heavy, default=1) == 1, part.key


def test_backbone_and_postprocessing() -> None:
    first, *_, last = parts_of(lowered(random_decoders.paper_text(4)), "tiny", (64, 96), 3)
    backbone = make_probe(first)
    assert [x.shape for x in outputs_in_onnxruntime(backbone)][-1] == (1, 128, 2, 3)
    boxes, scores, labels = outputs_in_onnxruntime(make_probe(last))
    assert boxes.shape[2] == 4
    assert not scores.any()
    assert labels.dtype == np.int64
    with torch.inference_mode():
        found = make_probe(last).function({name: torch.from_numpy(x) for name, x in make_probe(last).inputs.items()})
    assert len(found[0]["scores"]) == 0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_real_measurement(runtime: str) -> None:
    """A convolution of sixteen times the work takes longer, in every runtime."""
    pytest.importorskip(runtime)
    parts = {part.name: part for part in parts_of(lowered(WIDE), "tiny", (128, 160), 3)}
    measurer = Measurer(Context.here(runtime, 1), Effort(rounds=3, fewer_rounds=3, whole_rounds=3, patience=0))
    small, large = (measurer.measure(parts[name]) for name in ("p4.conv", "p3.conv"))
    assert 0 < small.relative * 2 < large.relative
    assert all(reference > 0 for reference in small.references)


WIDE = """decoder wide { input c3, c4; fpn(width=64, norm=bn) { output p3 = conv_3x3(c3), p4 = conv_1x1(c4) }
head(width=64) { conv_3x3 } predict fcos(centerness=cls) }"""


# ------------------------------------------------------------------------------------------------------- the measuring


class Machine:
    """A made-up machine: an overhead for each session, a time for each copy, and stretches in which all is slower."""

    def __init__(self, slow: Callable[[float], float]) -> None:
        self.slow = slow
        self.now = 0.0

    def runner(self, copies: int, each: float, sensitivity: float = 1.0) -> Callable[[], float]:
        def run() -> float:
            factor = 1 + (self.slow(self.now) - 1) * sensitivity
            seconds = (0.001 + copies * each) * factor
            self.now += seconds
            return seconds

        return run


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], Measurer]:
    def use(machine: Machine) -> Measurer:
        def probe(copies: int, each: float, sensitivity: float) -> Any:
            class Made:
                def runner(self, runtime: str, threads: int) -> Callable[[], float]:
                    return machine.runner(copies, each, sensitivity)

            return Made()

        monkeypatch.setattr(measuring, "piece_probe", lambda piece, copies: probe(copies, 0.0005, 1.0))
        monkeypatch.setattr(measuring, "make_probe", lambda part, copies=1: probe(copies, 0.0003, 0.3))
        monkeypatch.setattr(measuring, "make_timer", lambda context: lambda run: run())
        monkeypatch.setattr(measuring.time, "sleep", lambda seconds: setattr(machine, "now", machine.now + seconds))
        return Measurer(HERE, pace=3.0)

    return use


def part() -> Part:
    return Part("fpn", "x", "x", reference_piece())


def test_the_overhead_of_a_session_is_not_the_parts(on_machine: Callable[[Machine], Measurer]) -> None:
    found = on_machine(Machine(lambda now: 1.0)).measure(part())
    assert found.relative == pytest.approx(0.1), "0.3 ms of 3 ms, without the millisecond of the session"
    assert found.references == pytest.approx([3.0] * Effort().rounds)


def test_a_part_that_takes_long_is_timed_alone(on_machine: Callable[[Machine], Measurer]) -> None:
    """As the backbone is: the millisecond of its session is in it."""
    measurer = on_machine(Machine(lambda now: 1.0))
    whole = measurer.measure(Part("backbone", "x", "x", None))
    assert whole.relative == pytest.approx(1.3 / 3)
    measurer.effort = replace(measurer.effort, alone=0.0)
    assert measurer.measure(part()).relative == pytest.approx(1.3 / 3)


def test_parts_are_timed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Context, float | None]] = []

    class Instead:
        def __init__(self, context: Context, pace: float | None) -> None:
            made.append((context, pace))

        def measure(self, part: Part) -> PartTime:
            return PartTime(len(part.key), (1.0,))

    monkeypatch.setattr(measuring, "Measurer", Instead)
    parts = [Part("fpn", name, name, None) for name in ("a", "bc")]
    found = list(measuring.measure_parts(HERE, parts, 3.0))
    assert found == [(parts[0], PartTime(1, (1.0,))), (parts[1], PartTime(2, (1.0,)))]
    assert made == [(HERE, 3.0)]


def test_rounds_on_a_disturbed_machine_do_not_count(on_machine: Callable[[Machine], Measurer]) -> None:
    """The part is less sensitive than the reference, so that ratios alone would be wrong by a sixth."""
    often = Machine(lambda now: 1.4 if now % 0.2 < 0.1 else 1.0)
    assert on_machine(often).measure(part()).relative == pytest.approx(0.1, rel=0.01)
    always = on_machine(Machine(lambda now: 1.4)).measure_whole(Machine(lambda now: 1.4).runner(10, 0.001))
    assert (always.disturbed, always.rounds) == (Effort().rounds,) * 2
    assert always.reference == pytest.approx(1.4 * 3.0)


# ----------------------------------------------------------------------------------------------------------- the table


def _add(path: Path, worker: int) -> None:
    table = Table(path)
    for number in range(8):
        with table.lock():
            table.add(HERE, {f"{worker} {number}": 1.0}, [2.0, 2.0])


def test_several_processes_fill_one_table(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "table.json"
    workers = [multiprocessing.get_context("fork").Process(target=_add, args=(path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(Table(path).times(HERE).relative) == 24
    content = json.loads(path.read_text())
    assert content["contexts"][0]["parts"]["0 0"] == {"relative": 1.0, "milliseconds": 2.0}


def test_contexts_are_not_mixed(tmp_path: Path) -> None:
    table = Table(tmp_path / "table.json")
    with table.lock():
        table.add(HERE, {"a": 3.0}, [2.0, 2.0, 4.0])
    two = Context("onnxruntime", "1.0", 2, "a processor")
    assert (table.times(HERE).milliseconds("a"), table.times(two).milliseconds("a")) == (6.0, None)
    with table.lock():
        table.add(two, {"a": 1.0}, [1.0, 1.0])
    assert Table(table.path).times(HERE).milliseconds("a") == 6.0
    assert table.times(two).milliseconds("a") == 1.0


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0, "contexts": []}', '{"format": 1, "contexts": [null]}'])
def test_a_file_that_is_no_table(content: str, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(content)
    with pytest.raises(LatencyError, match="no table of latencies"):
        Table(file).times(HERE)


@pytest.mark.parametrize("entry", ['{"context": {}}', "{}"])
def test_entries_of_other_programs_are_left_alone(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(f'{{"format": 1, "contexts": [{entry}]}}')
    assert Table(file).times(HERE).relative == {}


def test_the_correction_is_the_line_through_most_detectors(tmp_path: Path) -> None:
    sums = [4.0, 5.0, 7.0, 8.0, 10.0, 12.0, 13.0, 15.0]
    measured = [1.1 * x - 0.5 for x in sums]
    measured[3] *= 3  # a disturbed measurement
    found = fit_correction(sums, measured)
    assert (found.factor, found.constant) == pytest.approx((1.1, -0.5))
    assert found.error_after < 1e-9 < 0.03 < found.error_before
    table = Table(tmp_path / "table.json")
    for number, (x, y) in enumerate(zip(sums, measured, strict=True)):
        assert table.times(HERE).correction is None
        with table.lock():
            table.add_detector(HERE, f"detector {number}", x, y)
    kept = table.times(HERE).correction
    assert kept is not None
    assert vars(kept) == pytest.approx(vars(found))
    assert len(sums) == CORRECTED_FROM
    assert found.apply(20.0) == pytest.approx(21.5)


@pytest.mark.parametrize("sums", [[], [3.0], [3.0, 3.0]])
def test_one_detector_gives_no_correction(sums: list[float]) -> None:
    with pytest.raises(ValueError, match="needs detectors of two different times or more"):
        fit_correction(sums, [1.0 + x for x in range(len(sums))])


@pytest.mark.parametrize(
    "change", [{"references": 3}, {"references": [1.0]}, {"parts": {"a": {}}}, {"parts": []}, {"correction": {"factor": 1.0}}]
)
def test_a_damaged_entry_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    table = Table(file)
    with table.lock():
        table.add(HERE, {"a": 3.0}, [2.0, 2.0])
    content = json.loads(file.read_text())
    content["contexts"][0] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(LatencyError, match=rf"^{file} is a broken table of latencies \(.*\); delete it$"):
        Table(file).times(HERE)


def test_a_context_is_of_a_runtime_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LatencyError, match="0 threads; expected 1 or more"):
        Context.here("torch", 0)
    installed: dict[str, str] = {"onnxruntime-gpu": "1.2"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("nasdsl.latency.table.metadata.version", version)
    assert str(Context.here("onnxruntime", 2)) == "onnxruntime 1.2 on cpu, 2 threads"
    with pytest.raises(MissingRuntime, match=r"this needs the package openvino: pip install 'nasdsl\[openvino\]'"):
        Context.here("openvino", 1)


def test_the_clock_fits_runtime_and_threads() -> None:
    clocks = {(runtime, threads): measuring.make_timer(Context(runtime, "1", threads, "cpu"))
              for runtime in ("onnxruntime", "openvino", "torch") for threads in (1, 2)}  # fmt: skip
    assert {clocks[runtime, 2] for runtime in ("onnxruntime", "openvino", "torch")} == {wall_timer}
    assert clocks["openvino", 1] is measuring.process_timer
    assert clocks["onnxruntime", 1] is clocks["torch", 1] is measuring.thread_timer


# ------------------------------------------------------------------------------------------------------ the prediction


def predictor(tmp_path: Path, **options: Any) -> LatencyPredictor:
    table = tmp_path / "table.json"
    return LatencyPredictor(backbone="mobilenet_v2", size=SIZE, classes=3, table=table, measure_parts=made_up, **options)


def test_a_prediction_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    text = random_decoders.paper_text(1)
    progress: list[tuple[int, int]] = []
    found = predictor(tmp_path, on_part=lambda done, of: progress.append((done, of))).predict(text)
    parts = list(parts_of(lowered(text), "mobilenet_v2", SIZE, 3))
    assert found.milliseconds == pytest.approx(2 * sum(made_up_seconds(part.key) for part in parts), rel=1e-4)
    assert sum(found.sections.values()) == pytest.approx(found.milliseconds)
    assert list(found.sections) == ["backbone", "fpn", "head", "predict", "postprocess"]
    assert found.measured == len({part.key for part in parts}) == len(progress) == progress[-1][1]
    assert predictor(tmp_path).predict(text).measured == 0, "the table has them all"
    totals = [sum(part.milliseconds for part in group) for group in found.slowest(5)]
    assert totals == sorted(totals, reverse=True)
    assert len({part.key for group in found.slowest(5) for part in group}) == 5


@pytest.mark.usefixtures("made_up_times")
def test_a_prediction_by_one_call(tmp_path: Path) -> None:
    text = random_decoders.paper_text(1)
    options: dict[str, Any] = {"backbone": "mobilenet_v2", "size": SIZE, "classes": 3}
    found = predict_latency(text, **options, table=tmp_path / "one.json")
    assert found.milliseconds == predictor(tmp_path).predict(text).milliseconds


def test_what_another_process_has_measured_meanwhile_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, lock = random_decoders.paper_text(1), Table.lock
    expected = predictor(tmp_path / "other")(text)

    @contextmanager
    def late(self: Table) -> Iterator[None]:
        with lock(self):
            shutil.copy(tmp_path / "other" / "table.json", self.path)
            yield

    monkeypatch.setattr(Table, "lock", late)
    (tmp_path / "mine").mkdir()
    found = predictor(tmp_path / "mine").predict(text)
    assert (found.measured, found.milliseconds) == (0, expected)


def test_the_correction_is_in_the_prediction(tmp_path: Path) -> None:
    text = random_decoders.paper_text(1)
    plain = predictor(tmp_path).predict(text)
    table = Table(tmp_path / "table.json")
    context = Context.here("onnxruntime", 1)
    with table.lock():
        for number in range(CORRECTED_FROM):
            table.add_detector(context, str(number), 10.0 + number, 1.25 * (10.0 + number) + 3.0)
    found = predictor(tmp_path).predict(text)
    assert found.milliseconds == pytest.approx(1.25 * plain.milliseconds + 3.0 * 2)
    assert found.sections["other"] == pytest.approx(6.0)
    assert found.total == plain.total


def test_what_is_stated_goes_before_the_predictors_own(tmp_path: Path) -> None:
    text = random_decoders.paper_text(1)
    one = predictor(tmp_path)
    assert one.predict(text, "resnet50", (64, 64)).backbone == "resnet50"
    assert one(text) == one.predict(text).milliseconds == pickle.loads(pickle.dumps(one))(text)
    with pytest.raises(LatencyError, match="depends on its size; give one"):
        LatencyPredictor(backbone="tiny", table=tmp_path / "t.json").predict(text)
    with pytest.raises(LatencyError, match="unknown runtime 'tvm'; expected onnxruntime, openvino, torch"):
        LatencyPredictor("tvm", backbone="tiny", size=SIZE, table=tmp_path / "t.json").predict(text)


def test_a_prediction_from_the_table_needs_no_torch(tmp_path: Path) -> None:
    text = random_decoders.paper_text(1)
    expected = predictor(tmp_path)(text)
    code = (
        "import sys; from nasdsl.latency import LatencyPredictor; "
        f"print(LatencyPredictor(backbone='mobilenet_v2', size={SIZE}, classes=3, table=sys.argv[1])(sys.argv[2])); "
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "table.json"), text], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) == pytest.approx(expected)


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def made_up_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "measure_parts", made_up)


PREDICT = ("latency", "zoo:fcos", "--predict", "--backbone", "tiny", "--size", "64x64", "--width", "32", "--threads", "1")


@pytest.mark.usefixtures("made_up_times")
def test_the_command_shows_parts(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    shown = invoke(*PREDICT, "--table", table)
    assert shown.exit_code == 0, shown.output
    assert "zoo:fcos: tiny, 64x64, 80 classes; onnxruntime" in shown.output
    assert "conv(width=32, k=3, bias=True) > norm(norm=gn) > act(function=relu) [32x8x8 to 32x8x8]" in shown.output
    value = json.loads(invoke(*PREDICT, "--table", table, "--format", "json").stdout)
    assert value["predicted"]["milliseconds"] == pytest.approx(sum(value["predicted"]["sections"].values()))
    assert value["predicted"]["measured_parts"] == 0
    assert f"{value['predicted']['milliseconds']:.2f} ms for an image, predicted from" in shown.output
    assert "measured" not in value


def test_the_correction_and_a_machine_of_another_pace_are_said(tmp_path: Path) -> None:
    found = predictor(tmp_path).predict(random_decoders.paper_text(1))
    found = replace(found, milliseconds=8.0, correction=Correction(1.25, 0.5, 9, 0.3, 0.042))
    for slower, words in ((1.04, ""), (1.5, "(by the clock 15.00 ms: the machine took 1.50 times as long for the table's")):
        time = WholeTime(relative=5.0, milliseconds=15.0, reference=2.0 * slower, disturbed=0, rounds=9)
        lines = predicted_lines("zoo:fcos", found, tmp_path / "table.json", Whole(time, 2.0, {}))
        assert lines[3] == (
            "corrected as 9 measured detectors tell: 1.250 times the sum (their median error: 4.2%, without it 30.0%)"
        )
        assert lines[4] == "10.00 ms measured: the prediction is 20.0% below it"
        assert lines[5].startswith(words)


@pytest.mark.usefixtures("made_up_times")
def test_the_command_measures_beside_a_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    quick = Effort(rounds=3, fewer_rounds=3, slice_seconds=0.0, warmup_seconds=0.0, patience=0)
    monkeypatch.setattr(measuring, "Effort", lambda **options: quick)
    table = tmp_path / "table.json"
    shown = invoke(*PREDICT, "--table", table, "--measure")
    assert shown.exit_code == 0, shown.output
    assert " ms measured: the prediction is " in shown.output
    (kept,) = json.loads(table.read_text())["contexts"][0]["detectors"].items()
    assert kept[0].endswith("tiny, 64x64, 80 classes")
    assert kept[1]["measured"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.onnx", "--predict"], "--predict is for .nas files and zoo:NAME; x.onnx is a whole detector"),
        (["zoo:fcos", "--predict"], "give one by --backbone"),
        (["zoo:fcos", "--measure", "--backbone", "tiny"], "--measure goes with --predict"),
        (["zoo:fcos", "--predict", "--batch", "2", "--backbone", "tiny"], "leave --batch and --device out"),
        (["zoo:fcos", "--predict", "--backbone", "none"], "unknown backbone 'none'"),
        (["zoo:fcos", "--predict", "--backbone", "tiny", "--table", "README.md"], "README.md is no table of latencies"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert message in refused("latency", *arguments)


def test_why_openvino_cannot_run_a_part_is_said() -> None:
    """Its messages begin with where in its source they come from."""
    pytest.importorskip("openvino")
    broken: Any = SimpleNamespace(onnx=lambda: b"no model", inputs={})
    with pytest.raises(LatencyError, match=r"^openvino cannot run a part of a detector: (?!Exception from).+"):
        probes._in_openvino(broken, 1)


def test_layers_of_the_head_with_several_results_are_pieces_of_each_level() -> None:
    text = """block halves(x) -> (y) { a, b = split(x) y = concat(a, conv_1x1(b, width=16)) }
    decoder d { input c3, c4 fpn(width=32) { output p3 = c3, p4 = c4 } head(width=32) { halves } predict fcos }"""
    found = [part for part in parts_of(lowered(text), "mobilenet_v2", SIZE, 3) if part.section == "head"]
    keys = {part.key for part in found if "split(" in part.key}
    assert keys == {f"split(parts=2) [32x{size} to 16x{size}]" for size in ("12x20", "6x10")}


def test_pieces_are_timed_alone(tmp_path: Path) -> None:
    """The reference is a piece as any other."""
    assert reference_piece().repeats
    assert len(piece_probe(reference_piece(), 4).inputs) == 1
