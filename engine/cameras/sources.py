"""Cameras: their names, and threads that keep the newest frame of each."""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import merge
from itertools import islice
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from torch import Tensor

from utils.addresses import host_of, is_address
from utils.errors import UserError
from utils.limits import MAX_PIXELS
from utils.names import free_name
from utils.streams import SCHEMES, file_frames, is_stream, shown, stream_frames
from utils.video_files import open_video
from utils.videos import frame_pixels, sample_frames
from utils.wall_clock import WallClock

NAME = re.compile(r"[\w][\w .-]{0,59}")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a lost camera is tried again
STEADY = 10.0  # seconds after which a camera counts as back
ROUND = 0.25  # seconds after which a round without frames ends


@dataclass(frozen=True)
class Camera:
    """A camera.

    Attributes:
        name: its name.
        source: its address, device or file. An address may contain a password.
    """

    name: str
    source: str


@dataclass(frozen=True)
class Shot:
    """A frame of a camera.

    Attributes:
        camera: its position among the cameras.
        time: seconds since 1970.
        pixels: [3, H, W] uint8.
    """

    camera: int
    time: float
    pixels: Tensor


def name_cameras(sources: Sequence[str], max_pixels: int = MAX_PIXELS) -> list[Camera]:
    """Return the cameras that arguments of the form SOURCE or NAME=SOURCE describe.

    A camera without a name is named after its file, device or host. If that name is taken, a number
    is appended.

    Args:
        max_pixels: of a file's frame.

    Raises:
        UserError: if two cameras have the same name, or an argument is no source.
    """
    cameras: dict[str, Camera] = {}
    for argument in sources:
        given, source = _split(argument)
        _check(source, max_pixels)
        name = given or free_name(_usual_name(source), cameras.__contains__)
        if not NAME.fullmatch(name):
            raise UserError(
                f"--name {name}: expected letters, digits, spaces, '_', '.' and '-', at most 60"
            )
        if name in cameras:
            raise UserError(f"--name {name}: expected once, found twice")
        cameras[name] = Camera(name, source)
    return list(cameras.values())


def _split(argument: str) -> tuple[str, str]:
    """Split NAME=SOURCE; without a name, return "" for it. An address may contain "="."""
    name, equals, source = argument.partition("=")
    if not equals or is_address(argument) or Path(argument).exists():
        return "", argument
    return name, source


def _check(source: str, max_pixels: int) -> None:
    if is_address(source) and source.partition("://")[0].lower() not in SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UserError(f"SOURCE {shown(source)}: expected {schemes}, a device or a file")
    if not is_stream(source):
        with open_video(Path(source), max_pixels):
            pass


def _usual_name(source: str) -> str:
    name = host_of(source) if is_address(source) else Path(source).stem
    return re.sub(r"[^\w .-]", "_", name).strip(" .-")[:50] or "camera"


class Reader(Thread):
    """The thread of one camera.

    It keeps only the newest frame. After the loss of a stream it reconnects, with growing pauses
    between attempts.

    Args:
        ready: notified of each frame.
        max_pixels: of a frame.

    Attributes:
        received: number of decoded frames.
        taken: number of frames that `take` has returned.
        lost: why there is no picture at present; "" if there is one.
        ended: whether a file was read to its end.
    """

    def __init__(self, camera: Camera, clock: WallClock, ready: Condition, max_pixels: int):
        super().__init__(name=f"camera {camera.name}", daemon=True)
        self.camera, self.clock, self.ready, self.max_pixels = camera, clock, ready, max_pixels
        self.received = self.taken = 0
        self.lost, self.ended = "not open yet", False
        self.stopping = Event()
        self._newest: tuple[float, Any, int] | None = None
        self._unusable = (
            False  # the last frame: a further one does not mean that there is a picture
        )

    def run(self) -> None:
        pause = FIRST_PAUSE
        while not self.stopping.is_set() and not self.ended:
            began, before = time.monotonic(), self.received
            reason = self._read()
            if self.ended or self.stopping.is_set():
                break
            if self.received > before and time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            self.lose(reason)
            self.stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        with self.ready:
            self.ready.notify_all()

    def _read(self) -> str:
        """Read the camera until its stream ends, and return the reason."""
        source, limits = self.camera.source, (self.stopping, self.max_pixels)
        live = is_stream(source)
        try:
            opened = stream_frames(source, *limits) if live else file_frames(Path(source), *limits)
            for frame, width in opened:
                self._put(frame, width)
        except UserError as error:
            return str(error)
        except Exception as error:  # of a decoder: this camera is tried again, the others continue
            return type(error).__name__
        self.ended = not live
        return "the stream has ended"

    def _put(self, frame: Any, width: int) -> None:
        with self.ready:
            if not self._unusable:
                self._found()
            self.received += 1
            self._newest = self.clock.now(), frame, width
            self.ready.notify_all()

    def _found(self) -> None:
        if self.lost and self.received:
            print(f"{self.camera.name}: back", file=sys.stderr)
        self.lost = ""

    def lose(self, reason: str) -> None:
        """Report once that the camera is lost."""
        with self.ready:
            if not self.lost or self.lost == "not open yet":
                print(
                    f"{self.camera.name}: no picture ({reason}); it will be tried again",
                    file=sys.stderr,
                )
            self.lost = reason

    @property
    def waiting(self) -> bool:
        return self._newest is not None

    def take(self) -> tuple[float, Tensor] | None:
        """Return the time and the pixels of the newest frame; None if it was already taken.

        Raises:
            UserError: if the frame is too large or too narrow.
        """
        with self.ready:
            newest, self._newest = self._newest, None
        if newest is None:
            return None
        time_seen, frame, width = newest
        try:
            pixels = frame_pixels(self.camera.name, frame, width, self.max_pixels)
        except UserError:
            self._unusable = True
            raise
        with self.ready:
            if self._unusable:
                self._found()
            self._unusable = False
            self.taken += 1
        return time_seen, pixels


class LiveCameras:
    """The threads of all cameras, which run within the context.

    Args:
        clock: of all cameras.
        max_pixels: of a frame.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        clock: WallClock,
        max_pixels: int = MAX_PIXELS,
    ):
        self.ready = Condition()
        self.readers = [Reader(camera, clock, self.ready, max_pixels) for camera in cameras]

    def __enter__(self) -> "LiveCameras":
        for reader in self.readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        for reader in self.readers:
            reader.stopping.set()
        for reader in self.readers:
            reader.join()

    def rounds(self) -> Iterator[list[Shot]]:
        """Yield the newest frame of each camera that has a new one, until all files have ended.

        At least every ROUND seconds a round is yielded, even if it contains no frame.
        """
        while not all(reader.ended and not reader.waiting for reader in self.readers):
            with self.ready:
                self.ready.wait_for(lambda: any(r.waiting for r in self.readers), ROUND)
            yield [shot for i in range(len(self.readers)) if (shot := self._shot(i))]

    def _shot(self, camera: int) -> Shot | None:
        try:
            taken = self.readers[camera].take()
        except UserError as error:
            self.readers[camera].lose(str(error))
            return None
        return Shot(camera, *taken) if taken else None


def recorded_rounds(
    cameras: Sequence[Camera], began: float, batch_size: int, max_pixels: int = MAX_PIXELS
) -> Iterator[list[Shot]]:
    """Yield all frames of recordings that began at the same time, in batches, in order of time.

    What is damaged or missing is printed to stderr.

    Raises:
        UserError: if a frame has more than `max_pixels` pixels.
    """
    streams = [
        _recorded(i, Path(camera.source), began, max_pixels) for i, camera in enumerate(cameras)
    ]
    shots = merge(*streams, key=lambda shot: shot.time)
    while some := list(islice(shots, batch_size)):
        yield some


def _recorded(camera: int, path: Path, began: float, max_pixels: int) -> Iterator[Shot]:
    say = partial(print, f"{path}:", file=sys.stderr)
    for frame in sample_frames(path, 0, None, say, max_pixels):
        yield Shot(camera, began + frame.time, frame.pixels)
