"""Videos: frames evenly spread from files, animations and folders, and the encoders."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.colour_grid import ColourGrid
from mmkgc_cli.extraction.contract import EncoderOptions, InputOptions, Skip
from mmkgc_cli.extraction.files import File
from mmkgc_cli.extraction.media import PooledFrames, find_videos
from mmkgc_cli.extraction.video_models import VideoModel, video_model
from mmkgc_cli.extraction.videos import Clip, frames, middles
from tests.extraction.media_models import FRAMES, WIDTH, tiny_videomae, tiny_vit
from tests.extraction.test_files import graph_of, write, zipped
from tests.extraction.test_pictures import animation, encoded

CODECS = {"a.mp4": "mpeg4", "b.mp4": "libx264", "c.webm": "libvpx-vp9", "d.avi": "mpeg4"}
STEP = 5  # of grey between frames


def grey_picture(level: int) -> Image.Image:
    return Image.new("RGB", (48, 32), (level, level, level))


def video(path: Path, count: int = 50, codec: str = "mpeg4") -> Path:
    """A video with frame i in grey level 5 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for i in range(count):
            for packet in stream.encode(av.VideoFrame.from_image(grey_picture(STEP * i))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def clip(*paths: Path) -> Clip:
    return Clip(
        tuple(
            File(str(p), p.stat().st_size, lambda key: Path(key).open("rb"), str(p)) for p in paths
        )
    )


def number(frame: Image.Image) -> int:
    return round(float(np.asarray(frame).mean()) / STEP)


@given(st.integers(1, 400), st.integers(1, 40))
def test_frames_are_in_the_middle_of_equal_parts(total: int, count: int) -> None:
    result = middles(total, count)
    assert result == [int(np.floor((i + 0.5) * total / count)) for i in range(count)]
    assert result == sorted(result)
    assert result[0] >= 0
    assert result[-1] < total
    # As far from the start as from the end.
    assert abs(result[0] - (total - 1 - result[-1])) <= 1


@pytest.mark.parametrize("name", CODECS)
def test_frames_of_a_video_are_those_in_the_middles(name: str, tmp_path: Path) -> None:
    path = video(tmp_path / name, codec=CODECS[name])
    assert frames(clip(path), 8, number) == middles(50, 8) == [3, 9, 15, 21, 28, 34, 40, 46]


def test_a_video_of_fewer_frames_gives_some_twice(tmp_path: Path) -> None:
    assert frames(clip(video(tmp_path / "a.mp4", 3)), 6, number) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_a_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(animation(["black", "red", "lime", "white"], suffix))
    result = frames(clip(path), 2, lambda frame: np.asarray(frame)[0, 0].tolist())
    assert result == [[255, 0, 0], [255, 255, 255]]


def test_a_folder_of_pictures_is_a_video_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    files = {f"Q1/frame{i}.png": encoded(grey_picture(STEP * i)) for i in range(12)}
    files["Q2/a/1.png"] = files["Q2/b/1.png"] = encoded(grey_picture(0))
    files["Q2/c.gif"] = animation(["black", "white"])
    for source in (write(tmp_path / "videos", files), zipped(tmp_path / "videos.zip", files)):
        result = find_videos(graph_of(["Q1", "Q2"]), InputOptions(source))
        (entry,) = result.inputs["Q1"]
        assert entry.origin.endswith("Q1/frame0.png and 11 more")
        assert frames(entry.load().source, 4, number) == middles(12, 4) == [1, 4, 7, 10]
        assert len(result.inputs["Q2"]) == 3


def test_an_unreadable_frame_is_reported_by_name(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(grey_picture(i)) for i in range(4)} | {"2.png": b"broken"}
    folder = write(tmp_path, files)
    with pytest.raises(Skip, match=r"^frame .*2.png: not a picture"):
        frames(clip(*sorted(folder.iterdir())), 4, number)


@pytest.mark.parametrize("name", CODECS)
def test_a_truncated_video_is_skipped_or_almost_complete(name: str, tmp_path: Path) -> None:
    path = video(tmp_path / name, codec=CODECS[name])
    data = path.read_bytes()
    for end in range(0, len(data), max(1, len(data) // 25)):
        path.write_bytes(data[:end])
        try:
            result = frames(clip(path), 8, number)
        except Skip as reason:
            assert "\n" not in str(reason)
            continue
        assert result[-1] >= 0.7 * 50, (end, len(data))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "^the file is empty$"),
        (b"plain words, no video at all" * 50, "damaged, truncated or not a video"),
        (b"\x1a\x45\xdf\xa3" + b"\0" * 200, "damaged, truncated or not a video"),
    ],
)
def test_files_that_are_not_videos_are_skipped(
    content: bytes, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(Skip, match=reason):
        frames(clip(path), 4, number)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("start", ["#EXTM3U\n#EXTINF:1,\n", "ffconcat version 1.0\nfile "])
def test_playlists_open_no_other_file(start: str, tmp_path: Path) -> None:
    secret = video(tmp_path / "secret.mp4")
    path = tmp_path / "x.mp4"
    path.write_text(f"{start}{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(Skip, match="damaged, truncated or not a video"):
        frames(clip(path), 4, number)


def test_a_file_with_sound_alone_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "x.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    with pytest.raises(Skip, match="has no pictures, only sound or text"):
        frames(clip(path), 4, number)


def test_a_package_that_is_missing_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "a.mp4")
    gif = tmp_path / "a.gif"
    gif.write_bytes(animation(["black", "white"]))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(frames(clip(gif), 2, number)) == 2
    with pytest.raises(DataError, match=r"pip install 'mmkgc\[video\]'"):
        frames(clip(path), 2, number)


# ---------------------------------------------------------------- encoders


def test_pooled_frames_are_the_mean_of_the_vectors_of_frames(tmp_path: Path) -> None:
    encoder = PooledFrames(ColourGrid())
    result = encoder.prepare(clip(video(tmp_path / "a.mp4", 32)))
    level = STEP * np.mean(middles(32, 16)) / 255
    assert result.shape == (encoder.width,)
    assert np.abs(result - level).max() < 0.01
    assert encoder.metadata.pooling.endswith("mean over frames")
    assert "16 equal parts" in encoder.metadata.preprocess


def test_a_video_model_sees_its_number_of_frames_in_order(tmp_path: Path) -> None:
    from transformers import VideoMAEModel

    folder = tiny_videomae(tmp_path / "model")
    encoder = video_model(str(folder), EncoderOptions(device="cpu"))
    assert isinstance(encoder, VideoModel)
    assert (encoder.count, encoder.width, encoder.metadata.pooling) == (FRAMES, WIDTH, "mean")
    path = video(tmp_path / "a.mp4")
    pixels = np.stack(frames(clip(path), FRAMES, encoder.pixels))[None]
    with torch.no_grad():
        model = VideoMAEModel.from_pretrained(folder).eval()
        expected = model(torch.from_numpy(pixels)).last_hidden_state.mean(1)[0]
    assert np.allclose(encoder.prepare(clip(path)), expected, atol=1e-5)
    backwards = encoder.vector(list(pixels[0][::-1]))
    assert np.abs(backwards - expected.numpy()).max() > 1e-4


def test_a_vision_model_encodes_frame_by_frame(tmp_path: Path) -> None:
    encoder = video_model(str(tiny_vit(tmp_path / "model")), EncoderOptions(device="cpu"))
    assert isinstance(encoder, PooledFrames)
    assert encoder.prepare(clip(video(tmp_path / "a.mp4"))).shape == (WIDTH,)


@pytest.mark.parametrize("name", CODECS)
def test_a_decoder_starts_no_threads(name: str, tmp_path: Path) -> None:
    """They call back into Python and may wait for the thread that waits for them."""

    path = video(tmp_path / name, codec=CODECS[name])
    during: list[str] = []

    def keep(picture: Image.Image) -> int:
        during.extend(file.read_text() for file in Path("/proc/self/task").glob("*/comm"))
        return number(picture)

    frames(clip(path), 8, keep)
    assert during
    assert not [thread for thread in during if thread.startswith("av:")]
