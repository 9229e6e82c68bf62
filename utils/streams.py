"""Frames of live streams: RTSP, HTTP (MJPEG, HLS), and cameras of this machine, by PyAV.

The thread of a stream decodes every frame, because frames depend on earlier ones, and keeps the
newest. Frames of a segmented stream (HLS) and of a file are due at the pace at which they were
recorded. If decoding is too slow, frames between key frames are skipped until it has caught up.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from utils.addresses import is_address, shown_address
from utils.errors import UserError, reason_of
from utils.limits import MAX_PIXELS
from utils.optional import optional
from utils.video_files import NO_DECODER, PADDING, REQUIREMENTS, open_video, shown_width

SCHEMES = ("rtsp", "rtsps", "http", "https")
PROTOCOLS = "rtsp,rtp,srtp,udp,tcp,tls,http,https,httpproxy,hls,crypto"
FORMATS = (
    "rtsp,hls,mpjpeg,mjpeg,jpeg_pipe,image2,mpegts,flv,mov,mp4,matroska,webm,video4linux2,v4l2"
)
OPEN, SILENT = 10.0, 5.0  # seconds to wait for a connection, and for the next frame
BEHIND = 0.5  # seconds after which frames are skipped
DRIFT = 1e-3  # maximum relative difference between the clocks of a camera and of this machine
JUMP = 10.0  # seconds; a larger step in a stream's times is no pause between two frames
DEVICE = "/dev/"


def is_stream(source: str) -> bool:
    """Return whether a source is read as a live stream. All others are files."""
    return is_address(source) or source.startswith(DEVICE)


def shown(source: str) -> str:
    """Return the printable name of a source."""
    return shown_address(source) if is_address(source) else source


class Pace:
    """The lateness of a frame, from its time in the stream.

    A stream begins when its first frame arrives. If a frame arrives before it is due, the beginning
    is moved back; DRIFT moves it forward.
    """

    def __init__(self) -> None:
        self.began = math.inf
        self.checked = -math.inf

    def lag(self, second: float, now: float) -> float:
        """Return by how many seconds the frame of `second` is late at the time `now`."""
        drift = 0.0 if math.isinf(self.checked) else DRIFT * (now - self.checked)
        self.began, self.checked = min(self.began + drift, now - second), now
        return now - second - self.began


class Schedule:
    """The time at which a frame of a segmented stream is due, from its time in the stream.

    A segment arrives at once, and its frames are due at the pace at which they were recorded; by
    DRIFT faster, so that what has arrived does not accumulate. The pace begins anew at a frame that
    is late, since it had to be waited for, and where the times jump.
    """

    def __init__(self) -> None:
        self.began = -math.inf
        self.asked = -math.inf

    def wait(self, second: float, now: float) -> float:
        """Return the seconds from `now` until the frame of `second` is due."""
        passed = 0.0 if math.isinf(self.asked) else now - self.asked
        self.began, self.asked = self.began - DRIFT * passed, now
        early = self.began + second - now
        if not -BEHIND <= early <= JUMP:
            self.began, early = now - second, 0.0
        return max(early, 0.0)


def stream_frames(
    source: str, stop: Event, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Any, int]]:
    """Yield (PyAV's frame, its width with square pixels) of a live stream until it ends or `stop`
    is set.

    A stream must not be used after its container has been closed; frames may.

    Args:
        max_pixels: larger frames are not decoded.

    Raises:
        UserError: if it cannot be opened, breaks off, or sends nothing for SILENT seconds.
    """
    with open_stream(source, max_pixels) as (container, stream):
        av = optional("av", shown(source), REQUIREMENTS)
        segmented, schedule, pace = container.format.name == "hls", Schedule(), Pace()
        context = stream.codec_context
        for packet in container.demux(stream):
            if stop.is_set():
                return
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # a damaged frame; the next ones may be whole
                frames = []
            for frame in frames:
                now = time.monotonic()
                if segmented and frame.time is not None:
                    stop.wait(schedule.wait(frame.time, now))
                elif frame.time is not None:
                    late = pace.lag(frame.time, now) > BEHIND
                    context.skip_frame = "NONKEY" if late else "DEFAULT"
                yield frame, shown_width(stream, frame.width)


def file_frames(path: Path, stop: Event, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, int]]:
    """Yield (PyAV's frame, its width with square pixels) of a file at the pace at which it was
    recorded."""
    with open_video(path, max_pixels) as video:
        video.stream.codec_context.thread_count = 1  # each camera has a thread; more cost time
        began: float | None = None
        for second, frame in video.frames():
            now = time.monotonic()
            began = now - second if began is None else began
            if stop.wait(max(began + second - now, 0)):
                return
            yield frame, shown_width(video.stream, frame.width)


@contextmanager
def open_stream(source: str, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Any, Any]]:
    """Open a live stream; yield PyAV's container and its first video stream.

    Raises:
        UserError: as in stream_frames. The message does not contain the address.
    """
    av = optional("av", shown(source), REQUIREMENTS)
    device = source.startswith(DEVICE)
    options = {} if device else {"protocol_whitelist": PROTOCOLS, "format_whitelist": FORMATS}
    if source.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # with UDP, lost packets damage frames
    limit = str(max_pixels + PADDING)
    options |= {"fflags": "nobuffer", "flags": "low_delay", "max_pixels": limit}
    form = {"format": "video4linux2"} if device else {}
    try:
        with av.open(
            source, metadata_errors="ignore", options=options, timeout=(OPEN, SILENT), **form
        ) as container:
            if not container.streams.video:
                raise UserError("has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UserError(NO_DECODER)
            stream.codec_context.options = {"max_pixels": limit}
            stream.codec_context.thread_count = 1  # several threads delay frames
            yield container, stream
    except UserError:
        raise
    except av.FFmpegError as error:
        silent = isinstance(error, (av.error.ExitError, av.error.TimeoutError))
        raise UserError("does not answer" if silent else error.strerror) from None
    except (OSError, ValueError) as error:
        raise UserError(reason_of(error).replace(source, shown(source))) from None
