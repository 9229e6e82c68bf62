"""Files of annotations in COCO's form, read and written: `train.json` and `test.json`.

Beyond COCO's form an annotation has a `person_id` (absent, null or negative: unlabelled) and an
image may have a `camera`. Ids are numbers or texts; a number and its text are the same id.
Form: https://cocodataset.org/#format-data (object detection).
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.boxes import enclosing
from datasets.json_fields import (
    box,
    convert,
    field,
    file_name,
    flag,
    identifier,
    labelled,
    person_name,
    read_json,
    records,
    score,
    text,
)
from datasets.mat import LARGEST
from utils.errors import UserError, first_of
from utils.files import write_text

# x y w h in pixels, person_id, and optionally a dict of further values
PersonRow = tuple[list[float], str | int | None] | tuple[list[float], str | int | None, dict]
# Where annotation tools keep an identity; the first one that any box of a file has is taken.
PERSON_KEYS = ("person_id", "attributes.person_id", "track_id", "attributes.track_id")
# Names of the category of people; the first one that a file has is used.
PEOPLE = ("person", "pedestrian", "human")
# Keys of COCO and of tools that never name an identity.
OTHER_KEYS = {
    *("id", "image_id", "category_id", "area", "iscrowd", "ignore", "score", "num_keypoints")
}
OTHER_KEYS |= {f"attributes.{key}" for key in ("occluded", "outside", "keyframe", "rotation")}


@dataclass(frozen=True)
class Annotations:
    """The annotations as the file contains them: I images with n boxes."""

    path: str
    names: list[str]  # [I] file_name
    sizes: list[tuple[int, int] | None]  # [I] width, height
    cameras: list[str | None]  # [I]
    ids: list[str | None]  # [n]
    image: np.ndarray  # [n] int64: index in `names`
    xywh: np.ndarray  # [n, 4] float64
    people: list[str | None]  # [n]; None is unlabelled
    scores: np.ndarray  # [n] float32 in 0..1; 0: a crowd
    key: str | None  # that the identities are from


def read_annotations(root: str, split: str, dropped: Counter) -> Annotations:
    """Read train.json or test.json."""
    path = os.path.join(root, f"{split}.json")
    if not os.path.exists(path):
        raise UserError(
            f"COCO: no {split}.json in {os.path.abspath(root)} (INPUT.DATA_ROOT); "
            "docs/custom_data.md describes it, python -m tools.import_annotations creates it "
            "from the export of an annotation tool, python -m tools.make_synthetic --layout coco "
            "writes an example"
        )
    prefix, training = f"{split}: ", split == "train"
    return parse_annotations(path, read_json(path), prefix, dropped, training=training)


def parse_annotations(
    path: str,
    content: Any,
    prefix: str,
    dropped: Counter,
    keys: Sequence[str] = PERSON_KEYS,
    names: Collection[str] = (),
    training: bool = False,
) -> Annotations:
    """Return the annotations of a file.

    Boxes of other categories, of people who have left a video (attributes.outside) and, unless
    `training`, of crowds are left out and counted in `dropped`. A rotated box (attributes.rotation,
    clockwise about its centre) is replaced by the box around it.

    Args:
        content: the file's JSON.
        prefix: of the reasons in `dropped`.
        keys: where to look for identities.
        names: of the categories that are people; none: see `people_categories`.
        training: read the scores, and keep crowds as boxes of score 0. Without it all scores are 1.
    """
    index, images, sizes, cameras = read_images(path, content)
    categories = people_categories(path, content, names)
    annotations = records(path, content, "annotations")
    key = next((key for key in keys if any(has_value(row, key) for row in annotations)), None)
    rows = []
    for number, record in enumerate(annotations):
        where = f"{path}: annotations[{number}]"
        image = field(record, "image_id", identifier, where)
        if image not in index:
            raise UserError(f"{where}: image_id {image}: no such image in the file")
        xywh = field(record, "bbox", box, where)
        value = lookup(record, key) if key else None
        person = None if value is None else convert(value, person_name, f"{where}: {key}")
        name = field(record, "id", identifier, where, absent=None)
        crowd = field(record, "iscrowd", flag, where, absent=0)
        if categories and field(record, "category_id", identifier, where) not in categories:
            dropped[f"{prefix}box of another category than person, dropped"] += 1
        elif crowd and not training:
            dropped[f"{prefix}iscrowd, dropped"] += 1
        elif lookup(record, "attributes.outside") in (True, 1, "1", "true", "True"):
            dropped[f"{prefix}attributes.outside (the person has left), dropped"] += 1
        else:
            sure = field(record, "score", score, where, absent=1.0) if training else 1.0
            if crowd:
                dropped[f"{prefix}iscrowd, an ignore region"] += 1
                person, sure = None, 0.0
            turned = lookup(record, "attributes.rotation")
            if isinstance(turned, int | float) and abs(turned) < LARGEST:
                xywh = enclosing(xywh, turned, corner=False)
            rows.append((name, index[image], xywh, labelled(person), sure))
    ids, image, boxes, people, scores = zip(*rows) if rows else ((), (), (), (), ())
    xywh = np.array(boxes, np.float64).reshape(-1, 4)
    refuse_shares(path, xywh)
    count_keys(prefix, annotations, key, keys, people, dropped)
    places, sure = np.array(image, np.int64), np.array(scores, np.float32)
    return Annotations(
        path, images, sizes, cameras, list(ids), places, xywh, list(people), sure, key
    )


def lookup(record: Any, key: str) -> Any:
    """Return the value at keys that are joined by ".", as "attributes.person_id"; None if a key is
    absent."""
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def has_value(record: Any, key: str) -> bool:
    """Return True if a key contains an identity or an invalid value."""
    value = lookup(record, key)
    return value is not None and ((name := person_name(value)) is None or bool(labelled(name)))


def refuse_shares(path: str, xywh: np.ndarray) -> None:
    """Reject boxes that are fractions of the image instead of pixels.

    Raises:
        UserError: if all boxes lie within the square from 0 to 1.
    """
    if len(xywh) and (xywh >= 0).all() and (xywh[:, :2] + xywh[:, 2:] <= 1 + 1e-6).all():
        raise UserError(
            f"{path}: bbox: expected pixels, found shares of the picture: every box is smaller "
            f"than a pixel, the first {xywh[0].tolist()}"
        )


def count_keys(
    prefix: str,
    annotations: Sequence[Any],
    key: str | None,
    keys: Sequence[str],
    people: Sequence[str | None],
    dropped: Counter,
) -> None:
    """Count the identities that come from another key than person_id.

    If there is none, name the keys of numbers and texts that were not used.
    """
    if key is not None and key != PERSON_KEYS[0]:
        found = sum(person is not None for person in people)
        dropped[f"{prefix}identity taken from {key}"] += found
    if key is None and people and (others := other_keys(annotations, keys)):
        dropped[f"{prefix}without an identity; not taken for one: {first_of(others)}"] += len(
            people
        )


def other_keys(annotations: Sequence[Any], keys: Sequence[str]) -> list[str]:
    """Return the keys, in alphabetical order, whose numbers or texts might be identities."""
    found = set()
    for record in annotations:
        if isinstance(record, dict):
            attributes = record.get("attributes")
            inner = attributes.items() if isinstance(attributes, dict) else ()
            flat = record | {f"attributes.{key}": value for key, value in inner}
            found |= {key for key, value in flat.items() if type(value) in (int, str)}
    return sorted(found - OTHER_KEYS - set(keys))


def read_images(
    path: str, content: dict
) -> tuple[dict[str, int], list[str], list[tuple[int, int] | None], list[str | None]]:
    """Return the position of each image by its id, and the images' names, sizes and cameras."""
    index: dict[str, int] = {}
    names: dict[str, None] = {}
    sizes, cameras = [], []
    for number, record in enumerate(records(path, content, "images")):
        where = f"{path}: images[{number}]"
        image = field(record, "id", identifier, where)
        name = field(record, "file_name", file_name, where)
        if image in index or name in names:
            what = f"id {image}" if image in index else f"file_name {name}"
            raise UserError(f"{where}: {what}: expected once, found in an earlier image too")
        index[image], names[name] = number, None
        sizes.append(size_of(record))
        cameras.append(field(record, "camera", identifier, where, absent=None) or None)
    return index, list(names), sizes, cameras


def size_of(record: dict) -> tuple[int, int] | None:
    """Return an image's width and height, or None if one of them is missing."""
    lengths = [record.get(key) for key in ("width", "height")]
    known = [round(v) for v in lengths if isinstance(v, int | float) and 0.5 < v < 1 << 31]
    return (known[0], known[1]) if len(known) == 2 else None


def people_categories(path: str, content: dict, wanted: Collection[str] = ()) -> set[str]:
    """Return the ids of the categories of people.

    The result is empty if there is at most one category: every box is then a person's.

    Args:
        wanted: names of the categories; if empty, the first name of PEOPLE that exists is used.

    Raises:
        UserError: if the file has none of them.
    """
    categories = content.get("categories")
    if not isinstance(categories, list):
        if wanted:
            raise UserError(f"{path}: expected categories, for {', '.join(wanted)}, found none")
        return set()
    if len(categories) < 2 and not wanted:
        return set()
    names: dict[str, set[str]] = {}
    for number, record in enumerate(categories):
        where = f"{path}: categories[{number}]"
        name, category = field(record, "name", text, where), field(record, "id", identifier, where)
        names.setdefault(name, set()).add(category)
    kept = people_names(names, wanted, f"{path}: categories")
    return set().union(*(names[name] for name in kept))


def people_names(names: Collection[str], wanted: Collection[str], where: str) -> list[str]:
    """Return those of a tool's labels that mean people.

    These are the `wanted` ones. Without `wanted`, a single label is used whatever its name is; of
    several labels, those are used that equal the first name of PEOPLE that occurs, ignoring case.
    """
    if len(names) < 2 and not wanted:
        return list(names)
    for choice in ([*wanted],) if wanted else ([name, f"{name}s"] for name in PEOPLE):
        folded = {name.casefold() for name in choice}
        if kept := [name for name in names if name.strip().casefold() in folded]:
            return kept
    expected = (
        "one of " + ", ".join(wanted) if wanted else f"one, or one that is called {PEOPLE[0]}"
    )
    raise UserError(f"{where}: expected {expected}, found {first_of(sorted(names), 9)}")


def write_annotations(
    path: Path, scenes: Sequence[tuple[dict, Sequence[PersonRow]]]
) -> list[list[int]]:
    """Write train.json or test.json, and return the ids of the annotations, scene by scene.

    Args:
        scenes: for each image its `file_name`, `width` and `height`, other known values such as its
            `camera`, and the people in it.
    """
    annotations: list[dict] = []
    ids = []
    for number, (_, people) in enumerate(scenes, 1):
        ids.append(list(range(len(annotations) + 1, len(annotations) + len(people) + 1)))
        for xywh, person, *more in people:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 1,
                "bbox": xywh,
                "area": round(xywh[2] * xywh[3], 2),
                "iscrowd": 0,
            }
            named = {} if person is None else {"person_id": person}
            annotations.append(annotation | named | (more[0] if more else {}))
    content = {
        "images": [{"id": number, **image} for number, (image, _) in enumerate(scenes, 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    write_text(json.dumps(content, indent=1), path)
    return ids
