"""Videos as a player shows them: which frames, at what times, how turned, and what is damaged."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.videos import write_video
from utils.errors import UserError
from utils.videos import read_frame, sample_frames, samples_expected

LEFT, RIGHT = (200, 30, 30), (30, 30, 200)


def shades(count: int) -> list[np.ndarray]:
    """Frames that grow lighter from one to the next."""
    return [np.full((48, 64, 3), 8 * i, np.uint8) for i in range(count)]


def read(path: Path, every: float = 0, after: float | None = None) -> tuple[list, list, list]:
    """Times and shades of the frames, and what was told."""
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
    with pytest.raises(UserError, match="no frame at 9.000 s"):
        read_frame(tmp_path / "x.mp4", 9)


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
    assert said[-1].startswith("cut short: ") and said[-1].endswith("of 5.9 s are there")
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
    with pytest.raises(UserError, match="sound.mp4: has no video stream"):
        read(tmp_path / "sound.mp4")
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(UserError, match="text.mp4: damaged video"):
        read(tmp_path / "text.mp4")
    (tmp_path / "empty.mkv").touch()
    with pytest.raises(UserError, match="empty.mkv: damaged video"):
        read(tmp_path / "empty.mkv")
