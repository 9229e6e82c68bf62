"""The common result of the readers of all annotation tools."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.coco_files import PERSON_KEYS, people_names
from datasets.json_fields import labelled
from datasets.track_files import Rules

OUTSIDE = "the person has left (outside)"
NO_PERSON = "another label than person"


@dataclass(frozen=True)
class Options:
    """The user's options for the import.

    Attributes:
        person_key: name under which a tool stores identities, if it is not a usual one.
        labels: names of the labels that mean people; empty: see `people_names`.
        min_visibility: minimum visible share of a person, 0 to 1, for forms that contain it.
    """

    person_key: str = ""
    labels: Sequence[str] = ()
    min_visibility: float = Rules.visibility

    @property
    def keys(self) -> Sequence[str]:
        """The keys in which to look for an identity, in this order."""
        name = self.person_key
        return (name, f"attributes.{name}") if name else PERSON_KEYS

    @property
    def attribute(self) -> str:
        """The name of the attribute in which identities are written."""
        return self.person_key or PERSON_KEYS[0]


@dataclass(frozen=True)
class Box:
    """A person in an image.

    Attributes:
        xywh: in pixels of the upright image, counted from 0.
        name: an identity, which is the same person in every source.
        track: an identity within its file only, used if no box of the file has a name.
        score: how certain the box is, above 0 and at most 1; 0: a crowd.
    """

    xywh: list[float]
    name: str | None = None
    track: str | None = None
    score: float = 1.0


@dataclass
class LabelledImage:
    """An image as a file describes it.

    Attributes:
        name: as written in the file.
        size: width and height according to the file.
        shares: whether boxes are fractions of the image instead of pixels.
        frame: number within a video, counted from 0.
        path: the image file, if the kind of the annotation file determines it.
    """

    name: str
    boxes: list[Box]
    size: tuple[int, int] | None = None
    camera: str | None = None
    subset: str = ""
    shares: bool = False
    frame: int | None = None
    path: Path | None = None

    def boxes_in_pixels(self, size: tuple[int, int]) -> list[Box]:
        """Return the boxes in pixels. size: width and height of the image file."""
        if not self.shares:
            return self.boxes
        sides = size * 2
        return [
            replace(box, xywh=[round(v * side, 3) for v, side in zip(box.xywh, sides)])
            for box in self.boxes
        ]


@dataclass
class Labels:
    """The content of one annotation file, or of one task in it.

    Attributes:
        kind: the tool and the form, for messages.
        task: its name if a file contains several.
        video: the name of the video whose frames the images are.
        length: the number of its frames, if the file states it.
        visibility: whether the file states which share of a person is visible.
    """

    path: Path
    kind: str
    images: list[LabelledImage]
    left_out: Counter = field(default_factory=Counter)  # boxes, by reason
    remarks: list[str] = field(default_factory=list)
    task: str = ""
    video: str = ""
    length: int | None = None
    visibility: bool = False
    tracks: bool = False  # the images are frames of one camera, in order

    def frames(self) -> dict[int, LabelledImage]:
        """Return the images by frame; {} if they are not all different frames of a video."""
        found = {image.frame: image for image in self.images if image.frame is not None}
        return found if len(found) == len(self.images) else {}


def identity(value: object) -> str | None:
    """Return the identity in a text; None if it is empty."""
    return labelled(str(value).strip()) if value is not None else None


def people_labels(names: Sequence[str], options: Options, where: str) -> set[str]:
    """Return those of a file's labels that mean people."""
    return set(people_names(names, options.labels, where)) if names else set()
