"""Videos as frames with their times, as a player shows them. PyAV is needed here alone."""

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.optional import optional

REQUIREMENTS = "requirements-index.txt"
SLACK = 1.0  # seconds that a whole file's length may differ from its last frame's time
Say = Callable[[str], None]


@dataclass(frozen=True)
class Frame:
    """time: seconds since the video's start; pixels: [3, H, W] uint8, RGB, upright."""

    time: float
    pixels: Tensor


def read_frames(path: Path, say: Say) -> Iterator[tuple[int, Image.Image]]:
    """(number from 1 on, RGB picture) of each frame, upright.

    Args:
        say: is called with a gap in the times of a video that is else of one rate, where frames
            may be missing.
    Raises: UserError: if a part is damaged, since the numbers of all later frames would be wrong.
    """
    times: list[float] = []
    with _opened(path) as (container, stream):
        for packet in container.demux(stream):
            frames = packet.decode()
            if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                near = f"near {times[-1]:.2f} s" if times else "at its start"
                raise UserError(
                    f"{path}: damaged video ({near}): the numbers of its later frames are not known"
                )
            for frame in frames:
                times.append(frame.time if frame.time is not None else math.nan)
                yield len(times), frame.to_image().rotate(frame.rotation, expand=True)
    if gaps := _gaps(np.array(times)):
        say(
            f"{path}: {len(gaps)} gaps in its times, the first after frame {gaps[0]}: if frames "
            "are missing there, the boxes after it stand in wrong frames"
        )


def _gaps(times: np.ndarray) -> list[int]:
    """The numbers of the frames after which one or more are missing, in a video whose other frames
    follow each other in equal steps; none if the steps vary, as in the videos of phones."""
    steps = np.diff(times)
    usual = np.median(steps) if len(steps) else math.nan
    even = np.abs(steps - usual) < usual / 4
    return (np.flatnonzero(steps > 1.5 * usual) + 1).tolist() if even.mean() > 0.9 else []


def sample_frames(path: Path, every: float, after: float | None, say: Say) -> Iterator[Frame]:
    """The frames of a video later than `after`: the first of each span of `every` seconds, counted
    from its start, or each one (0). Where it was broken off and goes on decides nothing. say: is
    told what is damaged or missing. UserError where the file is no video that can be read."""
    with _opened(path) as (container, stream):
        seen = -math.inf if after is None else after
        span = -math.inf if after is None else _span(after, every)
        back = False
        for time, frame in _decoded(container, stream, seen, say):
            back |= after is None and time < seen
            if time > seen and _span(time, every) > span:
                span = _span(time, every)
                yield Frame(time, _pixels(frame, stream))
            seen = max(time, seen)
        if back:
            say("its times go back: frames left out")
        promised = _length(container, stream)
        if promised is not None and seen < promised - SLACK:
            say(f"cut short: {max(seen, 0):.1f} of {promised:.1f} s are there")


def read_frame(path: Path, time: float) -> Tensor:
    """[3, H, W] uint8: the frame at that second, as `sample_frames` gave it."""
    for frame in sample_frames(path, 0, time - 1e-3 if time > 0 else None, lambda said: None):
        return frame.pixels
    raise UserError(f"{path}: no frame at {time:.3f} s")


def samples_expected(path: Path, every: float, after: float = 0) -> int:
    """How many frames `sample_frames` will give, as far as the file's head tells."""
    with _opened(path) as (container, stream):
        rate = float(stream.average_rate or 25)
        left = max((_length(container, stream) or 0) - after, 0)
        return round(left / max(every, 1 / rate))


def _span(time: float, every: float) -> float:
    """Number of the span that a time falls into."""
    return math.floor(time / every + 1e-6) if every else time


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of moving pictures."""
    av = optional("av", str(path), REQUIREMENTS)
    try:
        with av.open(str(path.absolute()), metadata_errors="ignore") as container:
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                raise UserError(f"{path}: has no video stream")
            streams[0].thread_type = "AUTO"
            yield container, streams[0]
    except av.error.FileNotFoundError:
        raise UserError(f"{path}: missing video") from None
    except av.FFmpegError as error:
        system = error.errno in errno.errorcode and error.errno != errno.EINVAL  # not the file's
        fault = "cannot be read" if system else "damaged video"
        raise UserError(f"{path}: {fault} ({error.strerror})") from None


def _decoded(container, stream, after: float, say: Say) -> Iterator[tuple[float, Any]]:
    """(time, frame), from the last key frame before `after` on; damaged ones are passed over."""
    av = optional("av", "a video", REQUIREMENTS)
    start, number, bad = stream.start_time or 0, 0, []
    if after > 0 and stream.start_time is not None:
        container.seek(math.floor(after / stream.time_base) + start, stream=stream)
    time = 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            bad.append(time)
            continue
        for frame in frames:
            if frame.pts is not None:
                time = float((frame.pts - start) * stream.time_base)
            else:  # bare streams know no times
                time = number / float(stream.guessed_rate or 25)
            number += 1
            if frame.is_corrupt:
                bad.append(time)
            else:
                yield time, frame
    if bad:
        places = ", ".join(f"{time:.2f}" for time in bad[:5])
        say(f"{len(bad)} damaged frames, near {places} s{' ...' if len(bad) > 5 else ''}")


def _length(container, stream) -> float | None:
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1  # else it may be the sound's
    return container.duration / 1e6 if alone and container.duration else None


def _pixels(frame, stream) -> Tensor:
    """Pixels become square, as on a screen, and phones' videos upright."""
    width = max(round(frame.width * float(stream.sample_aspect_ratio or 1)), 1)
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24", width=width, height=frame.height))
    return pixels.permute(2, 0, 1).rot90(round(frame.rotation / 90) % 4, (1, 2)).contiguous()
