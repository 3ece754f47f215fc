"""Videos: what is written is read again, with its times; rotation; broken files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nasdsl.data.video import UnreadableVideo, VideoReader, VideoWriter

pytest.importorskip("av")


def frames(count: int, size: tuple[int, int]) -> list[Tensor]:
    """Smooth colours that differ in each frame, bright at the upper left."""
    height, width = size
    rows, columns = torch.linspace(1, 0.2, height).view(-1, 1), torch.linspace(1, 0.2, width).view(1, -1)
    shades = [torch.stack([rows * columns, rows.expand(size) * (n + 1) / count, columns.expand(size)]) for n in range(count)]
    return [(255 * shade).to(torch.uint8) for shade in shades]


def write(path: Path, images: list[Tensor], times: list[float]) -> Path:
    with VideoWriter(path) as writer:
        for image, time in zip(images, times, strict=True):
            writer.write(image, time)
    return path


@pytest.mark.parametrize("size", [(48, 64), (33, 49)], ids=str)
def test_there_and_back(size: tuple[int, int], tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.1, 0.5, 0.54]
    images = frames(5, size)
    path = write(tmp_path / "bär.mp4", images, times)
    assert [file.name for file in tmp_path.iterdir()] == ["bär.mp4"]
    with VideoReader(path) as video:
        assert video.frames == 5
        read = list(video.read())
    assert [frame.number for frame in read] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in read] == pytest.approx(times, abs=1e-4)
    height, width = size
    for image, frame in zip(images, read, strict=True):
        assert frame.image.shape[1:] == (height + height % 2, width + width % 2)
        assert (frame.image[:, :height, :width].float() - image.float()).abs().mean() < 6
    with VideoReader(path) as video:
        assert [frame.number for frame in video.read(every=3)] == [0, 3]


def test_ten_minutes_of_film_have_exact_times(tmp_path: Path) -> None:
    """Frame rates of television are not whole numbers."""
    times = [n * 1001 / 30000 for n in (0, 1, 2, 17_999)]
    with VideoReader(write(tmp_path / "a.mp4", frames(4, (16, 16)), times)) as video:
        assert [frame.time for frame in video.read()] == pytest.approx(times, abs=1e-6)


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_a_turned_video(matrix: tuple[int, int, int, int], turns: int, tmp_path: Path) -> None:
    """Phones write the frames as the sensor has them, and a matrix by which players turn them."""
    (image,) = frames(1, (48, 64))
    path = write(tmp_path / "a.mp4", [image], [0.0])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    with VideoReader(path) as video:
        (frame,) = video.read()
    expected = torch.rot90(image, turns, (1, 2))
    assert frame.image.shape == expected.shape
    assert (frame.image.float() - expected.float()).abs().mean() < 6


def test_broken_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames(3, (48, 64)), [0.0, 0.1, 0.2])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:200])
    for name in ("text.mp4", "empty.mp4", "cut.mp4"):
        with pytest.raises(UnreadableVideo, match=rf"{name}: not a video of a known format: \S"):
            VideoReader(tmp_path / name)
    with pytest.raises(UnreadableVideo, match=r"gone\.mp4: no such file"):
        VideoReader(tmp_path / "gone.mp4")


def test_a_video_that_is_broken_from_some_frame_on(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randint(256, (3, 48, 64), generator=generator, dtype=torch.uint8) for _ in range(8)]
    whole = write(tmp_path / "a.mp4", noise, [number / 10 for number in range(8)]).read_bytes()
    start = whole.index(b"mdat") + 4
    half = start + int.from_bytes(whole[start - 8 : start - 4], "big") // 2
    for at, says in ((start, "its first frame cannot be decoded: "), (half, r"cannot be decoded after frame \d+: ")):
        (tmp_path / "b.mp4").write_bytes(whole[:at] + bytes(3000) + whole[at + 3000 :])
        with VideoReader(tmp_path / "b.mp4") as video, pytest.raises(UnreadableVideo, match=rf"b\.mp4: {says}\S"):
            list(video.read())


def _encoded(path: Path, count: int, codec: str, **options: str) -> Path:
    import av

    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        for number, image in enumerate(frames(count, (48, 64))):
            frame = av.VideoFrame.from_ndarray(image.permute(1, 2, 0).numpy().copy(), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("form", "codec", "expected"),
    [("avi", "mpeg4", 5), ("matroska", "mpeg4", 5), ("mpegts", "mpeg2video", 5), ("m4v", "mpeg4", None)],
)
def test_the_number_of_frames_where_the_file_does_not_say_it(
    form: str, codec: str, expected: int | None, tmp_path: Path
) -> None:
    with VideoReader(_encoded(tmp_path / "a.video", 5, codec, format=form)) as video:
        assert video.frames == expected
        assert [frame.number for frame in video.read()] == [0, 1, 2, 3, 4]


def test_files_without_frames(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        stream = container.add_stream("aac", rate=8000)
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(UnreadableVideo, match=r"a\.mp4: it has no images, only sound or data"):
        VideoReader(tmp_path / "a.mp4")
    with (
        VideoReader(_encoded(tmp_path / "b.avi", 0, "mpeg4")) as video,
        pytest.raises(UnreadableVideo, match=r"b\.avi: it has no frame that can be decoded"),
    ):
        list(video.read())


def test_an_installation_without_the_usual_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.data.video._CODECS", ("no_such_encoder", "mpeg4"))
    images = frames(3, (48, 64))
    with VideoReader(write(tmp_path / "a.mp4", images, [0.0, 0.1, 0.2])) as video:
        read = list(video.read())
    for image, frame in zip(images, read, strict=True):
        assert (frame.image.float() - image.float()).abs().mean() < 6


def test_what_was_written_before_an_error_is_kept(tmp_path: Path) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "a.mp4") as writer:
            writer.write(frames(1, (48, 64))[0], 0.0)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    with VideoReader(tmp_path / "a.mp4") as video:
        assert len(list(video.read())) == 1
    with VideoWriter(tmp_path / "none.mp4"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
