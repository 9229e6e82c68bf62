"""The common result of the readers of all annotation tools."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.coco_files import PERSON_KEYS, people_names
from datasets.json_fields import labelled

OUTSIDE = "the person has left (outside)"
NO_PERSON = "another label than person"


@dataclass(frozen=True)
class Options:
    """The options of a user.

    Attributes:
        person_key: name under which a tool stores identities, if it is not a usual one.
        labels: names of the labels that are people; empty: see `people_names`.
        min_visibility: minimum visible share of a person, 0 to 1, in forms that contain it.
    """

    person_key: str = ""
    labels: Sequence[str] = ()
    min_visibility: float = 0.25

    @property
    def keys(self) -> Sequence[str]:
        """Where to look for an identity, in order."""
        name = self.person_key
        return (name, f"attributes.{name}") if name else PERSON_KEYS

    @property
    def attribute(self) -> str:
        """The name of an attribute that is an identity."""
        return self.person_key or PERSON_KEYS[0]


@dataclass(frozen=True)
class Box:
    """A person in an image. xywh: pixels from 0 on, the image upright. name: an identity that is
    the same person in every source. track: an identity within its file alone; it counts where no
    box of the file has a name."""

    xywh: list[float]
    name: str | None = None
    track: str | None = None


@dataclass
class LabelledImage:
    """An image as a file describes it. name: as written there; size: width and height there;
    shares: the boxes count shares of the image, not pixels; frame: number in a video, from 0 on;
    path: where it is, if the file's kind says so."""

    name: str
    boxes: list[Box]
    size: tuple[int, int] | None = None
    camera: str | None = None
    subset: str = ""
    shares: bool = False
    frame: int | None = None
    path: Path | None = None


@dataclass
class Labels:
    """What one file (or one task in it) says. kind: the tool and form, in words; task: its name
    where a file holds several; video: the name of the video that the images are frames of."""

    path: Path
    kind: str
    images: list[LabelledImage]
    left_out: Counter = field(default_factory=Counter)  # boxes, by reason
    remarks: list[str] = field(default_factory=list)
    task: str = ""
    video: str = ""
    tracks: bool = False  # the images are frames of one camera, in order


def identity(value: object) -> str | None:
    """Return the identity that a text names; None for an empty one."""
    return labelled(str(value).strip()) if value is not None else None


def enclosing(xywh: Sequence[float], degrees: float, corner: bool) -> list[float]:
    """Return the upright box around one that is turned clockwise, about its left upper corner or
    about its centre."""
    x, y, width, height = xywh
    if not degrees % 360:
        return [x, y, width, height]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pivot = (x, y) if corner else (x + width / 2, y + height / 2)
    points = [
        (pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos)
        for px in (x, x + width)
        for py in (y, y + height)
        for dx, dy in [(px - pivot[0], py - pivot[1])]
    ]
    return around(points)


def around(points: Sequence[tuple[float, float]], digits: int = 3) -> list[float]:
    """Return the box x y w h around points."""
    xs, ys = zip(*points)
    return [round(v, digits) for v in (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))]


def people_labels(names: Sequence[str], options: Options, where: str) -> set[str]:
    """Return those of a file's labels that are people."""
    return set(people_names(names, options.labels, where)) if names else set()
