"""Records of an index: sources, people in them, and matches of a search."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.outputs import Detections
from utils.errors import UserError
from utils.names import printable

CAMERA = "camera:"  # begins the path of a live camera's source
SAME = 5e-3  # largest difference between probes of one network: devices, ONNX, half precision


@dataclass(frozen=True)
class Origin:
    """The identification of the network with which the embeddings of an index were computed.

    Attributes:
        name: path of the checkpoint.
        settings: config values that change embeddings, as text.
        probe: [D] float32, the unit embedding of a fixed picture.
    """

    name: str
    settings: str
    probe: np.ndarray

    def differs_from(self, other: "Origin") -> str:
        """Return the reason why the embeddings of two networks cannot be compared; "" if they
        can."""
        if self.settings != other.settings:
            return f"{other.settings} there, {self.settings} here"
        same = len(self.probe) == len(other.probe)
        if same and np.abs(self.probe - other.probe).max() <= SAME:
            return ""
        return "other weights"


def camera_path(name: str) -> Path:
    """Return the path that represents a live camera among the sources of an index."""
    return Path(CAMERA + name)


def camera_of(path: Path) -> str | None:
    """Return the name of the live camera that a source's path represents; None for a file."""
    return str(path).removeprefix(CAMERA) if str(path).startswith(CAMERA) else None


def camera_name(path: Path) -> str:
    """Return the name of a live camera, or a file's name without its suffix."""
    return camera_of(path) or path.stem


@dataclass(frozen=True)
class Source:
    """A picture or video as it was when it was read, or a live camera.

    Attributes:
        path: real path of the file, or the `camera_path` of a camera, whose size and modification
            time are 0.
        bytes: its size.
        changed: time of its last modification in nanoseconds.
        every: seconds between sampled frames of a video, 0 for every frame; None for a picture.
    """

    path: Path
    bytes: int
    changed: int
    every: float | None = None


@dataclass(frozen=True)
class IndexedSource:
    """The part of a source that an index contains.

    Attributes:
        samples: number of pictures or frames.
        until: second of a video's last frame in the index.
        finished: True if the source was read to its end.
        note: remark on damage, "" if there is none.
        people: number of people.
    """

    source: Source
    samples: int
    until: float | None
    finished: bool
    note: str
    people: int


@dataclass(frozen=True)
class Sample:
    """The people of a picture (time None), or of a video's frame at `time` seconds.

    Their embeddings are of unit length.
    """

    time: float | None
    people: Detections


@dataclass(frozen=True)
class Person:
    """A person of an index.

    Attributes:
        id: unique within the index, never reused.
        path: the source.
        time: second of the frame in a video, seconds since 1970 for a camera; None for a picture.
        box: x1 y1 x2 y2 in pixels.
        score: detection score.
        tracklet: number shared by detections of one person in consecutive samples of a video.
        embedding: [D] float32, unit embedding times score: its inner product with a query's unit
            embedding is the similarity.
    """

    id: int
    path: Path
    time: float | None
    box: tuple[float, float, float, float]
    score: float
    tracklet: int
    embedding: np.ndarray


@dataclass(frozen=True)
class Match:
    """A person who is similar to a query.

    Attributes:
        person: the most similar detection of the tracklet; of a live camera, one whose picture is
            kept, which a filter by time may reject if it rejects all with a picture.
        similarity: the largest inner product with a query embedding.
        query: row of that query embedding.
        span: first and last second of the tracklet; None for a picture.
    """

    person: Person
    similarity: float
    query: int
    span: tuple[float, float] | None


@dataclass(frozen=True)
class PersonFilter:
    """A filter by camera and by time.

    Files also count as cameras, named by the file name without its suffix. Only people seen by live
    cameras have a time of day.

    Attributes:
        cameras: names; empty: every camera.
        after, before: seconds since 1970; None: no limit.
    """

    cameras: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None

    def __bool__(self) -> bool:
        """Return True if the filter may reject anyone."""
        return self != PersonFilter()

    def may_select(self, path: Path) -> bool:
        """Return False for a source of which no person can be selected."""
        timed = self.after is not None or self.before is not None
        named = not self.cameras or camera_name(path) in self.cameras
        return named and not (timed and camera_of(path) is None)

    def __call__(self, person: Person) -> bool:
        time = person.time if camera_of(person.path) is not None else None
        return self.selects(camera_name(person.path), time)

    def selects(self, camera: str, time: float | None) -> bool:
        """Return True for a camera's name and a time in seconds since 1970; None: unknown."""
        if self.cameras and camera not in self.cameras:
            return False
        if self.after is None and self.before is None:
            return True
        first = -np.inf if self.after is None else self.after
        return time is not None and first <= time <= (
            np.inf if self.before is None else self.before
        )


def check_cameras(
    person_filter: PersonFilter | None, list_sources: Callable[[], Iterable[Path]]
) -> None:
    """Check that the sources contain every camera of a filter.

    Args:
        list_sources: is only called if the filter has cameras, since it may read a whole index.

    Raises:
        UserError: naming the first one that they do not contain.
    """
    if not (person_filter and person_filter.cameras):
        return
    known = {camera_name(path) for path in list_sources()}
    if unknown := [name for name in person_filter.cameras if name not in known]:
        raise UserError(
            f"--camera {printable(unknown[0])}: expected a camera, or the name of a file without "
            "its suffix, found none of this name"
        )


def check_indexed_cameras(
    person_filter: PersonFilter | None, known: Callable[[], Iterable[IndexedSource]]
) -> None:
    """Check that an index, whose sources `known` lists, contains every camera of a filter.

    Raises:
        UserError: naming the first one that it does not contain.
    """
    check_cameras(person_filter, lambda: [one.source.path for one in known()])
