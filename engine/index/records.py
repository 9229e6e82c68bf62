"""Records of an index: sources, people in them, and matches of a search."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.outputs import Detections

CAMERA = "camera:"  # begins the path of a live camera's source
SAME = 5e-3  # largest difference between probes of one network: devices, ONNX, half precision


@dataclass(frozen=True)
class Origin:
    """Identification of the network that computed the embeddings of an index.

    Attributes:
        name: path of the checkpoint.
        settings: config values that change embeddings, as text.
        probe: [D] float32, the unit embedding of a fixed picture.
    """

    name: str
    settings: str
    probe: np.ndarray

    def differs_from(self, other: "Origin") -> str:
        """Return why the embeddings of both cannot be compared; "" if they can."""
        if self.settings != other.settings:
            return f"{other.settings} there, {self.settings} here"
        same = len(self.probe) == len(other.probe)
        if same and np.abs(self.probe - other.probe).max() <= SAME:
            return ""
        return "other weights"


def camera_path(name: str) -> Path:
    """Return the path that stands for a live camera among the sources of an index."""
    return Path(CAMERA + name)


def camera_of(path: Path) -> str | None:
    """Return the name of the live camera that a source's path stands for; None for a file."""
    return str(path).removeprefix(CAMERA) if str(path).startswith(CAMERA) else None


def camera_name(path: Path) -> str:
    """Return the name of a live camera; of a file, its name without suffix."""
    return camera_of(path) or path.stem


@dataclass(frozen=True)
class Source:
    """A picture or video at the time it was read, or a live camera.

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
    """What an index contains of a source.

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
    """A picture (time None) or the frame of a video at `time` seconds, with its people.

    The embeddings of people are of unit length.
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
        person: in a video, the most similar one of the tracklet; of a camera, the one whose picture
            is kept.
        similarity: largest inner product with a query embedding.
        query: row of that query embedding.
        span: first and last second of the tracklet; None for a picture.
    """

    person: Person
    similarity: float
    query: int
    span: tuple[float, float] | None


@dataclass(frozen=True)
class PersonFilter:
    """Whether a person is of one of these cameras and in this span of time.

    The name of a video or picture as a camera is that of its file without suffix. Only people whom
    live cameras saw have a time of day.

    Attributes:
        cameras: names; none: every camera.
        after, before: seconds since 1970; None: no limit.
    """

    cameras: tuple[str, ...] = ()
    after: float | None = None
    before: float | None = None

    def __bool__(self) -> bool:
        """Return whether anyone may be left out."""
        return self != PersonFilter()

    def __call__(self, person: Person) -> bool:
        if self.cameras and camera_name(person.path) not in self.cameras:
            return False
        if self.after is None and self.before is None:
            return True
        time = person.time if camera_of(person.path) is not None else None
        first = -np.inf if self.after is None else self.after
        return time is not None and first <= time <= (
            np.inf if self.before is None else self.before
        )
