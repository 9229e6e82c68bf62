"""Videos as a video player shows them: frames, times, rotation and damage."""

import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from tests.videos import VIDEOS, number_in, write_numbered, write_video
from utils.errors import UserError
from utils.sources import PICTURE, VIDEO, walk
from utils.video_clock import Clock
from utils.videos import (
    FOLLOWED,
    find_gaps,
    read_frame,
    read_frames,
    sample_frames,
    samples_expected,
)

LEFT, RIGHT = (200, 30, 30), (30, 30, 200)


def shades(count: int) -> list[np.ndarray]:
    """Return frames, each lighter than the one before."""
    return [np.full((48, 64, 3), 8 * i, np.uint8) for i in range(count)]


def read(path: Path, every: float = 0, after: float | None = None) -> tuple[list, list, list]:
    """Return times and mean values of the frames, and the printed lines."""
    said: list[str] = []
    frames = list(sample_frames(path, every, after, said.append))
    return [round(f.time, 3) for f in frames], [int(f.pixels.float().mean()) for f in frames], said


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
def test_every_frame_or_one_each_so_often(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name, shades(24))
    times, seen, said = read(tmp_path / name)
    assert times == pytest.approx([i / 10 for i in range(24)]) and said == []
    np.testing.assert_allclose(seen, 8 * np.arange(24), atol=4)
    assert read(tmp_path / name, 0.5)[0] == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert read(tmp_path / name, 0.25)[0] == pytest.approx(
        [0, 0.3, 0.5, 0.8, 1, 1.3, 1.5, 1.8, 2, 2.3]
    )
    assert read(tmp_path / name, 0.001)[0] == times
    assert read(tmp_path / name, 99)[0] == [0]
    assert samples_expected(tmp_path / name, 0.5) == 5
    assert samples_expected(tmp_path / name, 0.5, after=1.4) == 2


@pytest.mark.parametrize("every", [0, 0.25, 0.5, 0.001])
def test_broken_off_anywhere_the_same_frames_follow(tmp_path: Path, every: float) -> None:
    times = np.cumsum([0, 0.04, 0.3, 0.02, 0.11, 0.7, 0.01, 0.05, 0.6, 0.02, 0.2, 0.31, 0.04])
    write_video(tmp_path / "x.mp4", shades(13), times)
    whole = read(tmp_path / "x.mp4", every)[:2]
    assert every or whole[0] == pytest.approx(times.tolist())
    for i, time in enumerate(whole[0]):
        assert read(tmp_path / "x.mp4", every, time)[:2] == (whole[0][i + 1 :], whole[1][i + 1 :])


def test_one_frame_by_its_time(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", shades(24))
    for frame in sample_frames(tmp_path / "x.mp4", 0.3, None, print):
        assert torch.equal(read_frame(tmp_path / "x.mp4", frame.time), frame.pixels)
    with pytest.raises(UserError, match="9.000 s"):
        read_frame(tmp_path / "x.mp4", 9)


def numbered(path: Path, after: float | None = None) -> list[tuple[float, int]]:
    """Return (time, shown number) of each frame later than `after`."""
    return [(f.time, number_in(f.pixels)) for f in sample_frames(path, 0, after, lambda _: None)]


def check_every_place(path: Path, count: int, places: int) -> None:
    """Check that all frames are read in order, and that reading can continue from each given
    time."""
    whole = numbered(path)
    assert [number for _, number in whole] == list(range(count))
    assert all(a[0] < b[0] for a, b in pairwise(whole))
    for i in sorted({*range(0, count, max(count // places, 1)), 1, count - 2, count - 1}):
        assert numbered(path, whole[i][0]) == whole[i + 1 :]
        assert number_in(read_frame(path, whole[i][0])) == i


# One container for each kind of failure; the slow test reads all of them at all positions.
QUICK = (
    *("fragments.mp4", "thousands.mkv", "h264.avi", "h264.ts", "x.m2ts", "mpeg2.mpg"),
    *("h264.mpg", "x.vob", "h264.flv"),
)


@pytest.mark.parametrize("name", QUICK)
def test_a_run_that_goes_on_loses_no_frame(tmp_path: Path, name: str) -> None:
    write_numbered(tmp_path / name, 30, **VIDEOS[name])
    check_every_place(tmp_path / name, 30, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_a_run_that_goes_on_anywhere_loses_no_frame(tmp_path: Path, name: str) -> None:
    write_numbered(tmp_path / name, 40, **VIDEOS[name])
    check_every_place(tmp_path / name, 40, 40)


JOINED = (
    *("h264.ts", "x.m2ts", "mpeg2.mpg", "h264.mpg", "h264.mkv", "vp9.webm", "mpeg4.avi"),
    *("x.h264", "x.mjpeg"),
)


@pytest.mark.parametrize("name", JOINED)
def test_joined_recordings_continue_the_clock(tmp_path: Path, name: str) -> None:
    for part, count in (("a", 15), ("b", 20)):
        write_numbered(tmp_path / f"{part}_{name}", count, **VIDEOS[name])
    path = tmp_path / name
    path.write_bytes(b"".join((tmp_path / f"{part}_{name}").read_bytes() for part in "ab"))
    whole = numbered(path)
    assert [number for _, number in whole] == [*range(15), *range(20)]
    steps = np.diff([time for time, _ in whole])
    steps /= np.median(steps)
    # FFmpeg doubles the duration of the last frame of an MPEG-PS.
    assert steps.min() > 0.9 and steps.max() < 2.1
    for i in (3, 14, 15, 30):
        assert numbered(path, whole[i][0]) == whole[i + 1 :]


def placed(pts: list[int | None], keys: set[int], step: int = 10) -> list[int]:
    """Return the times that a clock assigns to packets.

    Args:
        keys: numbers of the key frames.
    """
    clock = Clock(step, window=50, leap=100)
    packets = [
        SimpleNamespace(pts=time, dts=time, duration=0, is_keyframe=i in keys)
        for i, time in enumerate(pts)
    ]
    for packet in packets:
        clock.place(packet)
    return [packet.pts for packet in packets]


def test_a_clock_never_goes_back() -> None:
    every = set(range(9))
    assert placed([0, 10, 10, 20, 900], every) == [0, 10, 10, 20, 900]
    assert placed([50, 60, 0, 10, 20], every) == [50, 60, 70, 80, 90]
    assert placed([50, 60, 0, 10, 0, 10], every) == [50, 60, 70, 80, 90, 100]
    assert placed([500, 510, 0, 530, 540], every) == [500, 510, 520, 530, 540]  # one wrong time
    assert placed([0, 40, 20, 10, 30], {0}) == [0, 40, 20, 10, 30]  # B frames
    assert placed([0, 40, 20, 10, 30, 0, 30], {0, 5}) == [0, 40, 20, 10, 30, 50, 80]
    assert placed([0, None, None, 0], {0, 3}) == [0, None, None, 30]


def test_a_second_stream_is_mentioned(tmp_path: Path) -> None:
    frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in "ab"]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for stream in streams:
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    _, _, said = read(tmp_path / "x.mkv")
    assert len(said) == 1 and "streams" in said[0] and "1" in said[0]


@pytest.mark.parametrize("name", ["h264.ts", "h264.mkv"])
def test_missing_frames_are_told(tmp_path: Path, name: str) -> None:
    """Boxes with frame numbers depend on this."""
    write_numbered(tmp_path / name, 30, **VIDEOS[name])
    said: list[str] = []
    assert len(list(read_frames(tmp_path / name, said.append))) == 30 and not said
    with av.open(str(tmp_path / name)) as source, av.open(str(tmp_path / f"x{name}"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux(video=0)):
            if packet.size and i not in range(17, 22):
                packet.stream = stream
                out.mux(packet)
    assert len(list(read_frames(tmp_path / f"x{name}", said.append))) == 25
    assert len(said) == 1 and " gaps " in said[0]


def test_gaps_count_where_frames_come_at_one_rate() -> None:
    assert find_gaps([0, 0.1, 0.2, 0.3]) == find_gaps([0.0]) == find_gaps([]) == []
    assert find_gaps([i / 10 for i in range(40) if i not in (7, 20, 21)]) == [7, 19]
    assert find_gaps(np.cumsum([0.04, 0.3, 0.02, 0.11, 0.7]).tolist()) == []


@pytest.mark.parametrize("content", ["ffconcat version 1.0\nfile x.mp4\n", "#EXTM3U\nx.mp4\n"])
def test_a_playlist_is_no_video(tmp_path: Path, content: str) -> None:
    """A playlist could contain any file or address."""
    write_video(tmp_path / "x.mp4", shades(3))
    (tmp_path / "list.mp4").write_text(content)
    with pytest.raises(UserError, match="damaged video"):
        read(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["plain.mp4", "x.mov", "h264.flv", "x.wmv"])
def test_a_recording_after_the_first_is_reported(tmp_path: Path, name: str) -> None:
    """Two recordings were concatenated. In these forms FFmpeg reads only the first one."""
    write_numbered(tmp_path / name, 12, **VIDEOS[name])
    assert read(tmp_path / name)[2] == []
    (tmp_path / f"two_{name}").write_bytes((tmp_path / name).read_bytes() * 2)
    times, _, said = read(tmp_path / f"two_{name}")
    assert (len(times), said) == (12, [FOLLOWED])


def test_frames_too_large_or_too_narrow_are_not_decoded(tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", shades(3))
    too_few = {"max_pixels": 64 * 48 - 1}
    for reading in (
        lambda: list(sample_frames(tmp_path / "x.mp4", 0, None, print, **too_few)),
        lambda: list(read_frames(tmp_path / "x.mp4", print, **too_few)),
        lambda: read_frame(tmp_path / "x.mp4", 0, **too_few),
        lambda: samples_expected(tmp_path / "x.mp4", 1, **too_few),
    ):
        with pytest.raises(UserError, match="INPUT.MAX_PIXELS"):
            reading()
    assert read_frame(tmp_path / "x.mp4", 0, 64 * 64).shape == (3, 48, 64)
    narrow = [np.zeros((224, 16, 3), np.uint8)] * 3
    write_video(tmp_path / "y.mp4", narrow, aspect=Fraction(1, 4))
    with pytest.raises(UserError, match="4 x 224"):
        read(tmp_path / "y.mp4")


def test_a_video_named_explicitly_needs_no_suffix(tmp_path: Path) -> None:
    """In a folder, files with an unknown suffix are left out."""
    write_numbered(tmp_path / "x.h264", 3, **VIDEOS["x.h264"])
    for name in ("camera.dat", "camera"):
        shutil.copy(tmp_path / "x.h264", tmp_path / name)
        assert [one.kind for one in walk([tmp_path / name], "SOURCE", (PICTURE, VIDEO))[0]] == [
            VIDEO
        ]
    assert [one.name for one in walk([tmp_path], "SOURCE", (PICTURE, VIDEO))[0]] == ["x.h264"]
    (tmp_path / "notes.dat").write_text("no video")
    assert walk([tmp_path / "notes.dat"], "SOURCE", (PICTURE, VIDEO))[0] == []


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_phones_videos_are_upright(tmp_path: Path, rotation: int) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:, :32], upright[:, 32:], upright[:12] = LEFT, RIGHT, 128
    stored = np.rot90(upright, -rotation // 90)
    write_video(tmp_path / "x.mp4", [stored] * 3, rotation=rotation)
    shown = next(sample_frames(tmp_path / "x.mp4", 0, None, print)).pixels
    assert shown.shape == (3, 48, 64)
    difference = (shown.permute(1, 2, 0).numpy().astype(int) - upright).__abs__()
    assert difference.mean() < 12


def test_cut_short_keeps_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    write_video(tmp_path / "x.mp4", list(noise))
    content = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    times, _, said = read(tmp_path / "cut.mp4")
    assert 20 < len(times) < 40
    assert "5.9 s" in said[-1]
    (tmp_path / "head.mp4").write_bytes(content[:300])
    with pytest.raises(UserError, match="head.mp4: (damaged|has no) video"):
        read(tmp_path / "head.mp4")


def test_damaged_frames_are_named_and_passed_over(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    write_video(tmp_path / "x.avi", list(noise), codec="mjpeg")
    content = bytearray((tmp_path / "x.avi").read_bytes())
    for i in (20, 40):
        place = [j for j in range(len(content)) if content[j : j + 3] == b"\xff\xd8\xff"][i]
        content[place : place + 2000] = bytes(2000)
    (tmp_path / "x.avi").write_bytes(content)
    times, _, said = read(tmp_path / "x.avi")
    assert 50 <= len(times) <= 58
    assert "damaged frames, near 1.9" in said[0]


def test_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="sound.mp4: "):
        read(tmp_path / "sound.mp4")
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(UserError, match="text.mp4: damaged video"):
        read(tmp_path / "text.mp4")
    (tmp_path / "empty.mkv").touch()
    with pytest.raises(UserError, match="empty.mkv: damaged video"):
        read(tmp_path / "empty.mkv")
