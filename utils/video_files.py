"""Video files, decoded from a given second on. No other module opens them with PyAV.

Seeks are not reliable: in MPEG-TS and MPEG-PS, and sometimes in fragmented MP4 and FLV, PyAV seeks
beyond the requested position or returns other times than without a seek (findings/pyav_seek.sh).
Therefore a seek is made only in an MP4 that lists all its samples. Any other file is read from its
start, at about 300 MB per second, but decoded only from the last key frame before the requested
second. In both cases the time of the first decoded frame is checked. If it is too late, decoding
begins further back, and finally at the start.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.media import check_size
from utils.optional import optional
from utils.video_clock import Clock

REQUIREMENTS = "requirements-index.txt"
# The demuxers that may read a file. Others read playlists, which name further files and addresses.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,obu,"
    "ivf,flv,live_flv,asf,ogg,mxf,dv,mjpeg,mpjpeg,yuv4mpegpipe,rm,nut,dhav,gxf,wtv,nsv"
)

MARGIN = 2e-3  # seconds; decoding begins at least this long before the requested frames
WINDOW = 2  # seconds within which frames are stored in another order than they are shown in
LEAP = 10  # seconds; a larger step forward may be the return from a wrong time
NUDGE = Fraction(1, 100_000)  # seconds between frames that share one time
WAITING = 64 << 20  # bytes of packets that are kept until the requested second is reached
# Of recordings in these forms that were joined byte by byte, FFmpeg reads the first alone.
FIRST_ONLY = ("mov", "flv", "asf")
PADDING = 8 << 20  # pixels that a decoder may add to a frame; FFmpeg's limit includes them
NO_DECODER = "has a video stream of an unknown codec"
HEAD = 12  # bytes with which recordings of one kind begin


class Video:
    """An open video file.

    Attributes:
        damaged: seconds at which a frame could not be decoded.
        incomplete: seconds at which a packet is marked as incomplete; it may have been decoded.
        unplaced: number of frames whose time is wrong or unknown.
        others: number of further video streams.
    """

    def __init__(self, path: Path, container: Any, stream: Any, others: int):
        self.path, self.container, self.stream, self.others = path, container, stream, others
        self._end = 0  # of the packets read so far, in bytes of the file; 0: unknown
        self.damaged: list[float] = []
        self.incomplete: list[float] = []
        self.unplaced = 0
        self._joints: set[int] = set()  # pts at which another recording begins
        self._start = stream.start_time or 0
        self._step = 1 / Fraction(stream.guessed_rate or stream.average_rate or 25)  # seconds
        # Neither format stores pts. FFmpeg derives them, wrongly if frames are reordered.
        self._no_pts = container.format.name in ("avi", "asf") and stream.codec_context.has_b_frames

    @property
    def length(self) -> float | None:
        """Return the duration in seconds according to the header, or None if the header does not
        contain it."""
        if self.stream.duration is not None:
            return float(self.stream.duration * self.stream.time_base)
        alone = len(self.container.streams) == 1  # otherwise it may be that of the sound
        return self.container.duration / 1e6 if alone and self.container.duration else None

    def followed(self) -> bool:
        """Return True if another recording follows the packets that were read."""
        if not self._end or not self.container.format.name.startswith(FIRST_ONLY):
            return False
        with open(self.path, "rb") as file:
            head, before = file.read(HEAD), b""
            file.seek(self._end)
            while block := file.read(1 << 20):
                if head in before + block:
                    return True
                before = block[-HEAD:]
        return False

    def frames(self, second: float | None = None) -> Iterator[tuple[float, Any]]:
        """Yield (seconds since the start, PyAV's frame) in order of time.

        Args:
            second: decoding begins at a key frame that is not later; None: at the start.
        """
        av = optional("av", str(self.path), REQUIREMENTS)
        last: Fraction | None = None
        shift = None
        for packet in self._packets(second):
            try:
                frames = self._decoded(packet)
            except av.error.InvalidDataError:
                self.damaged.append(float(last or 0))
                continue
            for frame in frames:
                ticks = frame.pts
                if self._no_pts:  # dts grow at the same rate
                    shift = (ticks or 0) - (frame.dts or 0) if shift is None else shift
                    ticks = None if frame.dts is None else frame.dts + shift
                last = self._time_of(ticks, frame.duration, last)
                if frame.is_corrupt:
                    self.damaged.append(float(last))
                else:
                    yield float(last), frame

    def _decoded(self, packet: Any) -> list[Any]:
        """Return the frames that a packet completes.

        Where a new recording begins, the frames of the previous one are completed first. Otherwise
        some decoders drop them and the new ones.
        """
        before: list[Any] = []
        if packet.pts in self._joints:
            before = self.stream.codec_context.decode(None)
            self.stream.codec_context.flush_buffers()
        return before + packet.decode()

    def _time_of(self, ticks: int | None, duration: int, last: Fraction | None) -> Fraction:
        """Return the second at which a frame is shown.

        Args:
            ticks: time of the frame, or None.
            duration: of one frame, in ticks; 0: unknown.
            last: second of the previous frame, or None.
        """
        tick = Fraction(self.stream.time_base)
        if ticks is None:
            step = duration * tick or self._step
            return Fraction(0) if last is None else last + step
        time = (ticks - self._start) * tick
        if last is not None and time <= last:
            self.unplaced += time + NUDGE * 100 < last
            return last + NUDGE
        return time

    def _packets(self, second: float | None) -> Iterator[Any]:
        """Return the packets from the key frame before `second` on, or from an earlier one."""
        tick = self.stream.time_base
        packets = self._placed(
            Clock(round(self._step / tick), round(WINDOW / tick), round(LEAP / tick))
        )
        if second is None or self._no_pts:
            return packets
        target = self._start + int(second / tick)
        if "mp4" in self.container.format.name and self.stream.frames:  # all samples are listed
            self.container.seek(target, stream=self.stream)
            return packets
        return _from_key_frame(packets, target)

    def _placed(self, clock: Clock) -> Iterator[Any]:
        for packet in self.container.demux(self.stream):
            if clock.place(packet) and packet.is_keyframe:
                self._joints.add(packet.pts)
            self._end = max(self._end, (packet.pos or 0) + packet.size if packet.size else 0)
            self.unplaced += bool(self._joints and packet.is_discard)  # by another's edit list
            if packet.is_corrupt and packet.pts is not None:
                self.incomplete.append(float((packet.pts - self._start) * self.stream.time_base))
            yield packet


def _from_key_frame(packets: Iterator[Any], target: int) -> Iterator[Any]:
    """Skip the packets before the last key frame whose time is at most `target`, in ticks."""
    kept: list[Any] = []
    size = 0
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None and packet.pts <= target:
            kept, size = [], 0
        kept.append(packet)
        size += packet.size
        time = packet.pts if packet.dts is None else packet.dts
        if packet.pts is None or time > target or size > WAITING:
            break
    yield from kept
    yield from packets


@contextmanager
def open_video(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Video]:
    """Open the first video stream of a file.

    Raises:
        UserError: if the file is missing, damaged or no video, or its frames have more than
            `max_pixels` pixels.
    """
    av = optional("av", str(path), REQUIREMENTS)
    limit = str(max_pixels + PADDING)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "max_pixels": limit,
    }
    try:
        with av.open(str(path.absolute()), metadata_errors="ignore", options=options) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                raise UserError(f"{path}: has no video stream")
            stream = streams[0]
            if stream.codec_context is None:
                raise UserError(f"{path}: {NO_DECODER}")
            _check_size(path, stream, max_pixels)
            stream.codec_context.options = {"max_pixels": limit}
            stream.thread_type = "AUTO"
            yield Video(path, container, stream, len(streams) - 1)
    except av.error.FileNotFoundError:
        raise UserError(f"{path}: missing video") from None
    except av.FFmpegError as error:
        system = error.errno in errno.errorcode and error.errno != errno.EINVAL  # not the file's
        fault = "cannot be read" if system else "damaged video"
        raise UserError(f"{path}: {fault} ({error.strerror})") from None


def is_video(path: Path) -> bool:
    """Return True if the file can be opened as a video, whatever its name."""
    try:
        with open_video(path):
            return True
    except UserError:
        return False


@contextmanager
def open_video_at(
    path: Path, after: float | None, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Video, Iterator]]:
    """Open a video and decode it from a position before the second `after` on.

    Yields:
        The video and its (second, frame) pairs. The first pair is earlier than `after`, or the
        first one of the video.
    """
    back = MARGIN
    while after is not None and after > back:
        with open_video(path, max_pixels) as video:
            frames = video.frames(after - back)
            first = next(frames, None)
            if first is not None and first[0] <= after - MARGIN:
                yield video, chain([first], frames)
                return
        back = max(2 * back, 1.0)
    with open_video(path, max_pixels) as video:
        yield video, video.frames()


def _check_size(path: Path, stream: Any, max_pixels: int) -> None:
    """Refuse frames that are too large or too narrow, before any is decoded."""
    context = stream.codec_context
    if not context.width or not context.height:  # unknown, or too large
        raise UserError(
            f"{path}: expected frames of at most {max_pixels:,} pixels (INPUT.MAX_PIXELS), found "
            "larger ones or none"
        )
    check_size(path, shown_width(stream, context.width), context.height, max_pixels)


def shown_width(stream: Any, width: int) -> int:
    """Return the width of frames with square pixels, as a player shows them."""
    return max(round(width * float(stream.sample_aspect_ratio or 1)), 1)
