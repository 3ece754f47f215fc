"""Detectors for inference: CUDA graphs (recorded on a CPU), memory formats, and `torch.compile`."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from lowest import imagines_a_gpu
from recorded_graphs import RecordingBackend
from small_detectors import confident_detector, random_images, target
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

import nasdsl
from nasdsl import resources
from nasdsl.detection import inference
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.inference import InferenceDetector
from nasdsl.nn.cuda_graphs import CALLS_BEFORE_CAPTURE

SETTLED = CALLS_BEFORE_CAPTURE + 1
IMAGES = torch.stack(random_images((64, 96), (64, 96))).float() / 255
PREDICTIONS = ("fcos(centerness=cls)", "retinanet(anchors=9)", "atss(centerness=box)", "gfl(bins=4)", "tal(bins=4)")


def recorded(detector: Any, **options: Any) -> tuple[InferenceDetector, RecordingBackend]:
    """A detector for inference whose graphs are recorded on a CPU."""
    fast = nasdsl.for_inference(detector, **options)
    backend = RecordingBackend()
    fast._graphs.backend = backend
    return fast, backend


@pytest.fixture(scope="module")
def detector() -> nasdsl.Detector:
    return confident_detector(norm=True)


def same(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    for one, other in zip(found, expected, strict=True):
        assert len(one["scores"]) == len(other["scores"]) > 0
        torch.testing.assert_close(one["scores"], other["scores"], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=tolerance, atol=100 * tolerance)
        torch.testing.assert_close(one["labels"], other["labels"])


def settle(fast: InferenceDetector, images: Tensor = IMAGES) -> None:
    with torch.no_grad():
        for _ in range(SETTLED):
            fast(images)


def settle_often(fast: InferenceDetector) -> None:
    for _ in range(4):
        settle(fast)


def test_a_graph_detects_the_same(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector)
    settle(fast)
    assert len(fast._graphs) == 1
    other = IMAGES.flip(3)
    with torch.no_grad():
        for images, sizes in ((IMAGES, None), (other, None), (other, [(50, 96), (64, 70)])):
            same(fast(images, sizes=sizes), detector(images, sizes=sizes))
    assert backend.log.count("replay") >= 3


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_methods_detect_the_same(predict: str) -> None:
    slow = confident_detector(predict)
    fast, _ = recorded(slow)
    settle(fast)
    with torch.no_grad():
        same(fast(IMAGES.flip(2)), slow(IMAGES.flip(2)))
    assert len(fast._graphs) == 1


@imagines_a_gpu
@pytest.mark.parametrize("predict", [p for p in PREDICTIONS if "retinanet" not in p])
def test_nothing_in_a_graph_waits_for_the_gpu(predict: str) -> None:
    # Tensors without values on a GPU that is not there: torch refuses what depends on values, and the copies are counted.
    fast = nasdsl.for_inference(confident_detector(predict))
    copies: list[str] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "lift_fresh" in str(func) or ("_to_copy" in str(func) and (kwargs or {}).get("device") is not None):
                copies.append(str(func))
            return func(*args, **(kwargs or {}))

    on_gpu = copy.deepcopy(fast)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for part in on_gpu.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(mode.from_tensor(weight).to("cuda"), requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = mode.from_tensor(buffer).to("cuda")
        images, sizes = torch.empty(2, 3, 64, 96, device="cuda"), torch.empty(2, 2, device="cuda")
        with Watch(), torch.no_grad():
            boxes, scores, labels = on_gpu._select(images, sizes)
    assert boxes.device.type == scores.device.type == labels.device.type == "cuda"
    assert not copies


def test_a_method_that_cannot_be_captured_leaves_the_maps_in_the_graph(
    detector: nasdsl.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fcos.level_candidates

    def waits(self: Fcos, predictions: Any) -> Any:
        assert sum(float(p.cls_logits.sum()) for p in predictions.values()) != 0
        return original(self, predictions)

    monkeypatch.setattr(Fcos, "level_candidates", waits)
    fast, backend = recorded(detector)
    settle(fast)
    assert len(fast._graphs) == 0
    settle(fast)
    assert len(fast._graphs) == 1
    with torch.no_grad():
        same(fast(IMAGES.flip(3)), detector(IMAGES.flip(3)))
    assert backend.log[-2:] == ["replay", "record"]


def test_a_method_with_a_detect_of_its_own_is_asked(detector: nasdsl.Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def detect(self: Fcos, predictions: Any, sizes: Any) -> Any:
        seen.append(len(sizes))
        return super(Fcos, self).detect(predictions, sizes)

    monkeypatch.setattr(Fcos, "detect", detect, raising=False)
    fast, _ = recorded(detector)
    settle(fast)
    assert seen == [2] * SETTLED
    assert len(fast._graphs) == 1


def test_the_maps_of_a_single_level_are_not_taken_for_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fcos, "detect", lambda self, *given: super(Fcos, self).detect(*given), raising=False)
    text = """decoder one { input c3\n fpn(width=16, norm=none) { output p3 = conv_3x3(c3) }
    head(width=16, norm=none, share=0) { conv_3x3 }\n predict fcos(centerness=cls) }"""
    slow = nasdsl.detector(nasdsl.loads(text), "tiny", classes=2, seed=0, score_threshold=0.0).eval()
    fast, _ = recorded(slow)
    settle(fast)
    with torch.no_grad():
        for one, other in zip(fast(IMAGES), slow(IMAGES), strict=True):  # boxes of nearly equal scores change places
            torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-3, atol=1e-5)
            assert one["boxes"].shape == other["boxes"].shape
    assert len(fast._graphs) == 1


def test_another_method_drops_the_graphs(detector: nasdsl.Detector) -> None:
    fast, _ = recorded(detector)
    settle(fast)
    fast.method = replace(fast.method, score_threshold=0.9999)  # type: ignore[type-var]  # a dataclass
    with torch.no_grad():
        assert not any(len(one["scores"]) for one in fast(IMAGES))
    settle(fast)
    assert len(fast._graphs) == 1


def test_sizes_and_batches_of_all_kinds(detector: nasdsl.Detector) -> None:
    fast, _ = recorded(detector)
    lists = [random_images((70, 90)), random_images((64, 80), (100, 64)), random_images((64, 64), (64, 64), (80, 64))]
    with torch.no_grad():
        for _ in range(3 * SETTLED + 1):  # the memory format is chosen again for larger ones, and then all are new
            for images in lists:
                same(fast(images), detector(images))
    assert len(fast._graphs) == 3
    assert len(fast.predict(random_images((64, 96))[0])) == len(detector.predict(random_images((64, 96))[0]))


def test_a_later_call_leaves_earlier_detections_alone(detector: nasdsl.Detector) -> None:
    fast, _ = recorded(detector)
    settle(fast)
    with torch.no_grad():
        first = fast(IMAGES)
        kept = copy.deepcopy(first)
        fast(IMAGES.flip(3))
    same(first, kept, 0)


def weight_of(fast: nasdsl.Detector) -> nn.Parameter:
    """A weight: that of the class logits."""
    return next(fast.decoder.head.cls_logits.parameters())


def test_weights_changed_in_place_are_seen(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector)
    settle(fast)
    with torch.no_grad():
        before = fast(IMAGES)[0]["scores"]
        fast.load_state_dict({name: value * 0.5 for name, value in fast.state_dict().items()})
        after = fast(IMAGES)[0]["scores"]
    assert not torch.allclose(before[:3], after[:3], atol=1e-3)
    assert backend.log[-2:] == ["replay", "record"]


@pytest.mark.parametrize("how", ["parameter", "data", "submodule", "to", "assign"])
def test_replaced_weights_drop_the_graphs(detector: nasdsl.Detector, how: str) -> None:
    fast, _ = recorded(detector)
    settle(fast)
    changed = weight_of(fast).detach() * 0.01
    match how:
        case "parameter":
            fast.decoder.head.cls_logits.weight = nn.Parameter(changed, requires_grad=False)
        case "data":
            weight_of(fast).data = changed
        case "submodule":
            fast.decoder.head.cls_logits = copy.deepcopy(fast.decoder.head.cls_logits)
            weight_of(fast).data.copy_(changed)
        case "to":
            fast.double()
            assert len(fast._graphs) == 0
        case _:
            fast.load_state_dict({**fast.state_dict(), "decoder.head.cls_logits.weight": changed}, assign=True)
    plain = copy.deepcopy(fast)
    with torch.no_grad():
        images = IMAGES.double() if how == "to" else IMAGES
        same(fast(images), plain(images))
    assert len(fast._graphs) == 0


def test_hooks_run(detector: nasdsl.Detector) -> None:
    fast, _ = recorded(detector)
    settle(fast)
    calls: list[nn.Module] = []
    hook = fast.decoder.fpn.register_forward_hook(lambda module, *_: calls.append(module))
    settle(fast)
    assert len(calls) == SETTLED
    hook.remove()
    settle(fast)
    assert len(calls) == SETTLED
    assert len(fast._graphs) == 1


def test_losses_in_training_mode(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector)
    settle(fast)
    calls = len(backend.log)
    losses = fast.train()(IMAGES, [target([[4, 4, 40, 40]]), target([[8, 8, 30, 50]])])
    assert set(losses) == {"classification", "bbox_regression", "bbox_ctrness"}
    assert len(backend.log) == calls


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save"])
def test_copies_have_graphs_of_their_own(detector: nasdsl.Detector, way: str) -> None:
    fast, _ = recorded(detector, precision="bfloat16")
    settle(fast)
    match way:
        case "pickle":
            other = pickle.loads(pickle.dumps(fast))
        case "deepcopy":
            other = copy.deepcopy(fast)
        case _:
            file = io.BytesIO()
            torch.save(fast, file)
            file.seek(0)
            other = torch.load(file, weights_only=False)
    assert len(other._graphs) == 0
    assert other.graphs
    assert other.precision == "bfloat16"
    weight_of(fast).data.zero_()
    other._graphs.backend = RecordingBackend()
    settle(other)
    with torch.no_grad():
        same(other(IMAGES), nasdsl.for_inference(detector, "bfloat16")(IMAGES))


def test_threads(detector: nasdsl.Detector) -> None:
    fast, _ = recorded(detector)
    batches = [IMAGES, IMAGES.flip(3), IMAGES[:1], IMAGES[:, :, :32]]
    with torch.no_grad():
        expected = [detector(batch) for batch in batches]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with torch.no_grad():
                for step in range(8):
                    which = (number + step) % len(batches)
                    same(fast(batches[which]), expected[which])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_graphs_can_be_switched_off(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector, graphs=False)
    settle(fast)
    settle(fast)
    assert "capture" not in backend.log
    assert not fast.graphs
    fast.graphs = True
    settle(fast)
    assert len(fast._graphs) == 1
    fast.graphs = False
    assert len(fast._graphs) == 0


def is_channels_last(fast: nasdsl.Detector) -> bool:
    weight = next(part.weight for part in fast.decoder.fpn.modules() if getattr(part, "kernel_size", None) == (3, 3))
    assert isinstance(weight, Tensor)
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_the_memory_format_is_chosen_in_inference_mode_too(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector)
    backend.times = lambda: float(fast.channels_last)
    for _ in range(SETTLED):
        with torch.inference_mode():
            fast(IMAGES)
    assert not fast.channels_last
    assert not any(weight.is_inference() for weight in fast.parameters())
    fast.load_state_dict(fast.state_dict())


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("faster", inference.LAYOUTS)
def test_the_faster_memory_format_is_taken(detector: nasdsl.Detector, faster: torch.memory_format, graphs: bool) -> None:
    fast, backend = recorded(detector, graphs=graphs)
    backend.times = lambda: 1.0 if fast.layout == faster else 2.0
    settle(fast)
    assert fast.layout == faster
    assert is_channels_last(fast) == (faster == torch.channels_last)
    with torch.no_grad():
        same(fast(IMAGES), detector(IMAGES))
    timed = len(backend.graphs)
    settle(fast, IMAGES.flip(3)[:1])  # a smaller one is not timed
    assert len(backend.graphs) == timed + graphs
    backend.times = lambda: 2.0 if fast.layout == faster else 1.0
    settle(fast, IMAGES.repeat(inference.RETIMED_AT, 1, 1, 1))
    assert fast.layout != faster


def test_a_detector_that_cannot_be_captured_stays_channels_last(detector: nasdsl.Detector) -> None:
    fast, backend = recorded(detector)
    backend.fails = RuntimeError("no memory")
    with pytest.warns(
        UserWarning, match="the detector runs without a CUDA graph, which would be faster: RuntimeError: no memory"
    ):
        settle_often(fast)
    assert fast.layout == torch.channels_last
    with torch.no_grad():
        same(fast(IMAGES), detector(IMAGES))


def test_the_dense_part_is_one_graph_of_the_compiler(detector: nasdsl.Detector) -> None:
    fast = nasdsl.for_inference(detector)
    compiled = torch.compile(fast.maps, backend="eager", fullgraph=True)
    images = fast.prepare(IMAGES).images
    with torch.no_grad():
        expected, found = fast.maps(images), compiled(images)
    for level, prediction in expected.items():
        for one, other in zip(prediction, found[level], strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.long
@pytest.mark.parametrize("name", ["bifpn", "efficientdet_d0", "nas_fcos", "nas_fpn", "retinanet", "yolox"])
def test_the_zoo_compiles_without_a_break(name: str) -> None:
    """Decoders with different ops and predictions: each takes the compiler some ten seconds."""
    detector = nasdsl.detector(nasdsl.load(f"zoo:{name}"), "tiny", classes=3, seed=0).eval()
    images = torch.rand(1, 3, 64, 96)
    for each in (detector, nasdsl.for_inference(detector)):
        torch._dynamo.reset()
        with torch.no_grad():
            told = torch._dynamo.explain(each.maps)(images)
            assert (told.graph_count, told.graph_break_count) == (1, 0)


SMALL = """decoder small {
  input c4, c5
  fpn(width=32, norm=bn) { output p4 = sum(c4, c5), p5 = dconv_3x3(c5) }
  head(width=32, norm=gn) { conv_3x3 }
  predict fcos
}"""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:`create_unbacked_symint` is deprecated:FutureWarning")  # torchvision's, in tracing its nms
@pytest.mark.parametrize("is_fast", [False, True])
def test_a_compiled_detector_detects_the_same(is_fast: bool) -> None:
    """The maps by the default compiler, which takes seconds for each kernel; all of it, with breaks, by a quick one."""
    detector = nasdsl.detector(nasdsl.loads(SMALL), "tiny", classes=3, seed=0, score_threshold=0.0).eval()
    each = nasdsl.for_inference(detector) if is_fast else detector
    images = torch.rand(2, 3, 96, 128)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(each.maps, fullgraph=True)(images)
        for one, other in zip(tree_leaves(each.maps(images)), tree_leaves(compiled), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        for found, expected in zip(torch.compile(each, backend="aot_eager")(images), each(images), strict=True):
            for key in ("boxes", "scores", "labels"):
                torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
class TestOnGpu:
    """Real graphs."""

    @pytest.mark.parametrize("predict", PREDICTIONS)
    @pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
    def test_detects_the_same(self, predict: str, precision: str) -> None:
        slow = confident_detector(predict).cuda()
        fast = nasdsl.for_inference(slow, precision)  # type: ignore[arg-type]  # one of them
        plain = nasdsl.for_inference(slow, precision, graphs=False)  # type: ignore[arg-type]  # one of them
        images = IMAGES.cuda()
        settle(fast, images)
        settle(fast, images)  # the anchors of RetinaNet are made on the CPU, so its maps alone are captured, later
        assert len(fast._graphs) == 1
        with torch.no_grad():
            plain._arrange(fast.layout)
            same(fast(images.flip(3)), plain(images.flip(3)), 1e-3)

    def test_streams(self) -> None:
        slow = confident_detector().cuda()
        fast = nasdsl.for_inference(slow, "float32")
        batches = [IMAGES.cuda().roll(8 * n, 3) for n in range(6)]
        with torch.no_grad():
            expected = [slow(batch) for batch in batches]
            settle(fast, batches[0])
            torch.cuda.synchronize()
            streams = [torch.cuda.Stream() for _ in range(3)]
            found = []
            for n, batch in enumerate(batches):
                with torch.cuda.stream(streams[n % 3]):
                    found.append(fast(batch))
            torch.cuda.synchronize()
        for one, other in zip(found, expected, strict=True):
            same(one, other, 1e-3)

    def test_the_zoo_is_captured(self) -> None:
        for name in ("fcos", "nas_fcos", "nas_fcos_128"):
            decoder = nasdsl.load(resources.folder("genotypes") / f"{name}.nas")
            fast = nasdsl.for_inference(nasdsl.detector(decoder, "resnet50", classes=91, seed=0).cuda(), "bfloat16")
            settle(fast, torch.rand(1, 3, 256, 320, device="cuda"))
            assert len(fast._graphs) == 1
