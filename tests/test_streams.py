"""Live cameras as sources: their names, their frames, and errors."""

import sys
import threading
import time
from pathlib import Path

import pytest

from engine.cameras import sources
from engine.cameras.sources import Camera, LiveCameras, name_cameras, recorded_rounds
from tests.crowds import moving
from tests.streams import (
    begin_mjpeg,
    free_port,
    http_server,
    jpeg,
    rtsp_server,
    send_frame,
    why_no_rtsp,
)
from tests.videos import number_in, write_numbered, write_video
from utils import streams
from utils.addresses import shown_address, without_secrets
from utils.errors import UserError
from utils.locks import locked
from utils.media import check_size
from utils.streams import BEHIND, JUMP, Pace, Schedule, stream_frames
from utils.videos import frame_pixels
from utils.wall_clock import WallClock

SECRET = "rtsp://anna:p@ss:word@127.0.0.1:{}/user=anna_password=word?token=word"
PATIENCE = 30  # seconds
NEW = "not open yet"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(sources, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(streams, "SILENT", 0.5)


def watch(source: str, until) -> tuple[list[tuple[int, int]], list[str]]:
    """Read a camera until until(sizes, reasons) is true. All threads end.

    The arguments are the sizes of the frames, width and height, and the reasons why there was no
    picture.
    """
    pytest.importorskip("av")
    sizes: list[tuple[int, int]] = []
    reasons: list[str] = []
    with LiveCameras([Camera("hall", source)], WallClock()) as cameras:
        began = time.monotonic()
        for shots in cameras.rounds():
            for shot in shots:
                size = shot.pixels.shape[2], shot.pixels.shape[1]
                sizes += [size] if sizes[-1:] != [size] else []
            lost = cameras.readers[0].lost
            reasons += [lost] if lost and reasons[-1:] != [lost] else []
            if until(sizes, reasons) or time.monotonic() - began > PATIENCE:
                break
    assert not any(one.name.startswith("camera ") for one in threading.enumerate())
    return sizes, reasons


def test_addresses_are_shown_without_secrets(tmp_path: Path, monkeypatch) -> None:
    address = SECRET.format(554)
    assert shown_address(address) == "rtsp://127.0.0.1:554"
    assert shown_address("http://camera/video?password=x") == "http://camera"
    assert shown_address("http://[::1]:80/x") == "http://[::1]:80"
    assert shown_address("rtsp://anna:12/w@camera/x") == "rtsp://***"
    for odd in "/?# '\"":
        assert "1" not in shown_address(f"rtsp://anna:1{odd}1@camera/x")
        assert "1" not in without_secrets(f"--name=hall=rtsp://anna:1{odd}1@camera/x")
    assert without_secrets(f"a={address}") == "a=rtsp://127.0.0.1:554"
    monkeypatch.setattr(sys, "argv", ["watch", address, f"hall={address}", "rtsp://u:an'na@h"])
    with locked(tmp_path / "lock", "it"):
        found = (tmp_path / "lock").read_text()
    assert "anna" not in found and "na@" not in found and "rtsp://h" in found
    (camera,) = name_cameras([address])
    assert camera == Camera("127.0.0.1", address)
    assert streams.shown(address) == address[:7] + "127.0.0.1:554"


def test_names_of_cameras(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = tmp_path / "front door.mp4"
    write_video(video, moving(2))
    cameras = name_cameras(
        ["http://h/a=1", "http://h/b", "/dev/video0", f"hall={video}", str(video)]
    )
    assert [one.name for one in cameras] == ["h", "h-2", "video0", "hall", "front door"]
    for wrong in (["a=/dev/x", "a=/dev/y"], ["../a=/dev/x"], ["ftp://u:p@h/x"], ["missing.mp4"]):
        with pytest.raises(UserError) as error:
            name_cameras(wrong)
        assert "u:p" not in str(error.value)


def test_nothing_secret_is_printed_of_a_camera_that_is_not_there(capsys) -> None:
    address = SECRET.format(free_port())
    _, reasons = watch(address, lambda _, reasons: bool(set(reasons) - {NEW}))
    assert len(set(reasons) - {NEW}) == 1
    said = "".join(capsys.readouterr()) + "".join(reasons)
    assert "hall" in said and "anna" not in said and "word" not in said


def test_a_file_is_played_at_its_pace_and_ends(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", moving(6))  # the last frame is due after half a second
    began = time.monotonic()
    with LiveCameras([Camera("a", str(tmp_path / "a.mp4"))], WallClock()) as cameras:
        times = [shot.time for shots in cameras.rounds() for shot in shots]
    assert cameras.readers[0].received == 6 and cameras.readers[0].ended
    assert times == sorted(times) and time.monotonic() - began > 0.45


def test_a_camera_that_sends_another_size_dies_in_mid_frame_and_is_silent(capsys) -> None:
    connections = []

    def answer(handler, _) -> None:
        connections.append(1)
        begin_mjpeg(handler)
        size = (64, 48) if len(connections) % 2 else (48, 64)
        for _ in range(8):
            send_frame(handler, jpeg(size))
            time.sleep(0.02)
        if len(connections) % 2:
            send_frame(handler, jpeg(size), 0.5)  # and the connection breaks off
        else:
            time.sleep(2)  # longer than SILENT

    with http_server(answer) as address:
        sizes, _ = watch(address, lambda sizes, _: len(sizes) >= 3)
    assert len(sizes) >= 3 and set(sizes) == {(64, 48), (48, 64)}
    said = [line for line in capsys.readouterr().err.splitlines() if "no picture" in line]
    assert any("does not answer" in line for line in said) and len(said) <= len(connections)


def test_a_camera_of_large_frames_is_named_once(monkeypatch, capsys) -> None:
    cameras = LiveCameras([Camera("hall", "")], WallClock(), max_pixels=9)
    (reader,) = cameras.readers
    sizes = iter([(2, 9), (2, 9), (2, 4), (2, 4), (2, 9)])
    monkeypatch.setattr(sources, "frame_pixels", lambda name, size, *_: check_size(name, *size, 9))
    seen = []
    for size in sizes:
        reader._put(size, 0)
        seen.append(cameras._shot(0) is not None)
    assert seen == [False, False, True, True, False]
    said = capsys.readouterr().err.splitlines()
    assert ["no picture" in line for line in said] == [True, False, True]


def test_pace() -> None:
    pace = Pace()
    assert pace.lag(0.0, 100.0) == 0
    assert pace.lag(1.0, 101.0) == pytest.approx(0, abs=0.01)
    assert pace.lag(1.1, 103.1) == pytest.approx(2, abs=0.01)  # two seconds of frames wait
    assert pace.lag(5.1, 105.1) == pytest.approx(0, abs=0.01)
    assert pace.lag(10_000.0, 10_110.0) < 1  # a camera whose clock is slow by a thousandth


def test_schedule_of_a_segmented_stream() -> None:
    schedule = Schedule()
    assert schedule.wait(7.0, 100.0) == 0
    assert schedule.wait(7.5, 100.0) == 0.5  # the second frame of a segment
    assert schedule.wait(8.0, 100.5) == pytest.approx(0.5, abs=0.01)
    late = 101.0 + 4 * BEHIND  # the next segment came late: what follows keeps its pace
    assert [schedule.wait(8.0, late), schedule.wait(8.5, late)] == [0, 0.5]
    assert schedule.wait(9.0 + 2 * JUMP, late + 1) == 0
    assert schedule.wait(0.0, late + 1) == 0
    assert schedule.wait(0.4, late + 1) == pytest.approx(0.4)


def test_the_clock_is_set_back() -> None:
    wall, steady = [1000.0], [0.0]
    clock = WallClock(1005.0, lambda: wall[0], lambda: steady[0])
    read = []
    for wall[0], steady[0] in ((1001, 1), (1010, 10), (500, 11), (502, 13), (2000, 14)):
        read.append(clock.now())
    assert read == [1006, 1015, 1016, 1018, 2000]


@pytest.mark.slow
def test_a_playlist_that_grows_is_read_at_its_pace(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("av")
    monkeypatch.setattr(streams, "SILENT", PATIENCE)
    rate, count = 20, 96
    form = {"hls_time": "0.5", "hls_list_size": "0"}
    written = tmp_path / "written.m3u8"
    write_numbered(written, count, "libx264", rate, "hls", container=form)
    head, *segments = written.read_text().split("#EXTINF:")
    requests = []

    def answer(handler, _) -> None:
        name = handler.path.partition("?")[0].strip("/")
        if name == "live.m3u8":  # three segments at first, and one more at each request
            requests.append(name)
            data = "#EXTINF:".join([head, *segments[: 2 + len(requests)]]).encode()
        else:
            data = (tmp_path / name).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    seen = []
    with http_server(answer) as address:
        for frame, width in stream_frames(f"{address}/live.m3u8?token=word", threading.Event()):
            number = number_in(frame_pixels(written, frame, width))
            seen.append((time.monotonic(), number))
    assert len(requests) >= len(segments) - 2 > 3
    began, first = seen[0]  # what is read to find the streams is not decoded
    assert [number for _, number in seen] == list(range(first, count)) and first < count / 2
    assert all(moment - began >= (number - first) / rate - 0.05 for moment, number in seen)


@pytest.mark.slow
def test_a_real_rtsp_server(tmp_path: Path) -> None:
    if reason := why_no_rtsp():
        pytest.skip(f"no RTSP server: {reason}")
    for name, size in (("a", 40), ("b", 80)):
        frames = [frame[:, :size] for frame in moving(30)]
        write_video(tmp_path / f"{name}.mp4", frames, codec="libx264")
    for name, size in (("a", (40, 64)), ("b", (80, 64))):
        with rtsp_server(tmp_path / f"{name}.mp4", free_port()) as address:
            assert watch(address, lambda sizes, _: bool(sizes))[0] == [size]


def test_a_truncated_recording_is_named(tmp_path: Path, capsys) -> None:
    pytest.importorskip("av")
    path = tmp_path / "hall.mp4"
    write_video(path, moving(40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shots = [shot for some in recorded_rounds([Camera("hall", str(path))], 0.0, 4) for shot in some]
    assert 0 < len(shots) < 40
    assert capsys.readouterr().err.startswith(f"{path}: ")
