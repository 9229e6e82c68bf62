"""Frames of videos with their times, as a video player shows them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.media import check_size
from utils.video_files import Video, open_video, open_video_at, shown_width

SLACK = 1.0  # seconds by which a whole file's length may differ from its last frame's time
SAME = 1e-6  # seconds within which two times are the same
FOLLOWED = "another recording begins after the first one and is not read: split the file"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        time: seconds since the video's start.
        pixels: [3, H, W] uint8, RGB, upright.
    """

    time: float
    pixels: Tensor


def read_frames(
    path: Path, say: Say, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, Image.Image]]:
    """Yield the number, counted from 1, and the upright RGB picture of each frame.

    Args:
        say: called with a line if the times of a video of constant rate have gaps, where frames may
            be missing, or if the file contains a recording that is not read.
        max_pixels: of a frame.

    Raises:
        UserError: if a part is damaged, so that the numbers of all later frames would be wrong, or
            if a frame is too large.
    """
    times = []
    with open_video(path, max_pixels) as video:
        for number, (time, frame) in enumerate(video.frames(), 1):
            _expect_whole(video)
            times.append(time)
            yield number, frame.to_image().rotate(frame.rotation, expand=True)
        _expect_whole(video)
        if video.followed():
            say(f"{path}: {FOLLOWED}")
    if gaps := find_gaps(times):
        say(
            f"{path}: {len(gaps)} gaps in its times, the first after frame {gaps[0]}: if frames "
            "are missing there, the boxes after it belong to other frames"
        )


def _expect_whole(video: Video) -> None:
    if damaged := video.damaged or video.incomplete:
        raise UserError(
            f"{video.path}: damaged video (near {damaged[0]:.2f} s): the numbers of its later "
            "frames are unknown"
        )


def find_gaps(times: list[float]) -> list[int]:
    """Return the numbers, counted from 1, of the frames after which frames may be missing.

    Gaps are reported only if 90 % of the intervals between frames are equal, since they vary in
    videos of phones.
    """
    if len(times) < 2:
        return []
    steps = np.diff(times)
    usual = np.median(steps)
    even = np.abs(steps - usual) < usual / 4
    return (np.flatnonzero(steps > 1.5 * usual) + 1).tolist() if even.mean() > 0.9 else []


def sample_frames(
    path: Path, every: float, after: float | None, say: Say, max_pixels: int = MAX_PIXELS
) -> Iterator[Frame]:
    """Yield the frames of a video that are later than `after`.

    The frames do not depend on `after`: if reading is interrupted and continued, the same frames
    are returned as without an interruption.

    Args:
        every: seconds. The first frame of each interval of this length since the start is used; 0:
            each frame.
        after: seconds since the start; None: from the first frame on.
        say: called with what is damaged or missing.
        max_pixels: of a frame.

    Raises:
        UserError: if the file is no video that can be read, or if a frame is too large.
    """
    with open_video_at(path, after, max_pixels) as (video, frames):
        seen = -math.inf if after is None else after
        span = -math.inf if after is None else _span(after, every)
        if video.others:
            say(f"video streams after the first, which are not read: {video.others}")
        for time, frame in frames:
            if time > seen + SAME and _span(time, every) > span:
                span = _span(time, every)
                yield Frame(time, video_pixels(video, frame, max_pixels))
            seen = max(time, seen)
        _report(video, after, seen, say)


def _report(video: Video, after: float | None, seen: float, say: Say) -> None:
    """Report what is wrong with a video.

    Args:
        seen: the second up to which it was read.
    """
    if damaged := [time for time in video.damaged if after is None or time > after]:
        say(f"{len(damaged)} damaged frames, near {_places(damaged)}")
    if video.unplaced:
        say(f"{video.unplaced} frames could not be placed in time")
    if video.followed():
        say(FOLLOWED)
    if video.length is not None and seen < video.length - SLACK:
        say(f"truncated: {max(seen, 0):.1f} of {video.length:.1f} s can be read")


def _places(times: list[float]) -> str:
    return ", ".join(f"{time:.2f}" for time in times[:5]) + f" s{' ...' if len(times) > 5 else ''}"


def read_frame(path: Path, time: float, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return the frame, [3, H, W] uint8, at a time that `sample_frames` has returned."""
    with open_video_at(path, time, max_pixels) as (video, frames):
        for second, frame in frames:
            if second > time - SAME:
                return video_pixels(video, frame, max_pixels)
    raise UserError(f"{path}: no frame at {time:.3f} s")


def video_seconds(path: Path, max_pixels: int = MAX_PIXELS) -> float | None:
    """Return the duration of a video according to its header, or None if it does not contain it."""
    with open_video(path, max_pixels) as video:
        return video.length


def samples_expected(
    path: Path, every: float, after: float = 0, max_pixels: int = MAX_PIXELS
) -> int:
    """Return the number of frames that `sample_frames` will yield according to the header."""
    with open_video(path, max_pixels) as video:
        rate = float(video.stream.average_rate or 25)
        left = max((video.length or 0) - after, 0)
        return round(left / max(every, 1 / rate))


def _span(time: float, every: float) -> float:
    """Return the number of the interval that contains a time."""
    return math.floor(time / every + SAME) if every else time


def video_pixels(video: Video, frame: Any, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return PyAV's frame of an open video, see `frame_pixels`."""
    return frame_pixels(video.path, frame, shown_width(video.stream, frame.width), max_pixels)


def frame_pixels(path: str | Path, frame: Any, width: int, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return PyAV's frame as [3, H, W] uint8, rotated as the file states.

    Args:
        width: see `shown_width`.
    """
    check_size(path, width, frame.height, max_pixels)
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24", width=width, height=frame.height))
    pixels, turns = pixels.permute(2, 0, 1), round(frame.rotation / 90) % 4
    return (pixels.rot90(turns, (1, 2)) if turns else pixels).contiguous()  # rot90 always copies
