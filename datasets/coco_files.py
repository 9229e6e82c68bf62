"""Files of annotations in COCO's form, read and written: `train.json` and `test.json`.

Beyond COCO's form an annotation has a `person_id` (absent, null or negative: unlabelled) and an
image may have a `camera`. Ids are numbers or texts; a number and its text are the same id.
Form: https://cocodataset.org/#format-data (object detection).
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text, write_text

NEEDED = object()
Person = tuple[list[float], str | int | None]  # x y w h in pixels, person_id


@dataclass(frozen=True)
class Annotations:
    """A file as it stands: I images, n boxes in them."""

    path: str
    names: list[str]  # [I] file_name
    cameras: list[str | None]  # [I]
    ids: list[str | None]  # [n]
    image: np.ndarray  # [n] int64: index in `names`
    xywh: np.ndarray  # [n, 4] float64
    people: list[str | None]  # [n]; None is unlabelled


def read_annotations(root: str, split: str, dropped: Counter) -> Annotations:
    """train.json or test.json; what is not people, and crowds in one box, is left out."""
    path = os.path.join(root, f"{split}.json")
    if not os.path.exists(path):
        raise UserError(
            f"COCO: no {split}.json in {os.path.abspath(root)} (INPUT.DATA_ROOT); "
            "docs/custom_data.md says what it holds, python -m tools.make_synthetic --layout coco "
            "writes an example"
        )
    content = read_json(path)
    index, names, cameras = read_images(path, content)
    category = people_category(path, content)
    rows = []
    for number, record in enumerate(records(path, content, "annotations")):
        where = f"{path}: annotations[{number}]"
        image = field(record, "image_id", identifier, where)
        if image not in index:
            raise UserError(f"{where}: image_id {image}: no such image in the file")
        xywh = field(record, "bbox", box, where)
        person = field(record, "person_id", identifier, where, absent=None)
        name = field(record, "id", identifier, where, absent=None)
        crowd = field(record, "iscrowd", flag, where, absent=0)
        if category and field(record, "category_id", identifier, where) != category:
            dropped[f"{split}: box of another category than person, dropped"] += 1
        elif crowd:
            dropped[f"{split}: iscrowd, dropped"] += 1
        else:
            rows.append((name, index[image], xywh, labelled(person)))
    ids, image, boxes, people = zip(*rows) if rows else ((), (), (), ())
    return Annotations(
        path,
        names,
        cameras,
        list(ids),
        np.array(image, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        list(people),
    )


def read_images(path: str, content: dict) -> tuple[dict[str, int], list[str], list[str | None]]:
    """The images' places by their ids, their names and cameras."""
    index: dict[str, int] = {}
    names: dict[str, None] = {}
    cameras = []
    for number, record in enumerate(records(path, content, "images")):
        where = f"{path}: images[{number}]"
        image, name = (
            field(record, "id", identifier, where),
            field(record, "file_name", text, where),
        )
        if image in index or name in names:
            what = f"id {image}" if image in index else f"file_name {name}"
            raise UserError(f"{where}: {what}: expected once, found in an earlier image too")
        index[image], names[name] = number, None
        cameras.append(field(record, "camera", identifier, where, absent=None) or None)
    return index, list(names), cameras


def people_category(path: str, content: dict) -> str | None:
    """The id of the category of people where there are several."""
    if not isinstance(content.get("categories"), list) or len(content["categories"]) < 2:
        return None
    names = {}
    for number, record in enumerate(content["categories"]):
        where = f"{path}: categories[{number}]"
        name, category = field(record, "name", text, where), field(record, "id", identifier, where)
        names[name.lower()] = category
    if "person" not in names:
        raise UserError(
            f"{path}: categories: expected one, or one that is called person, "
            f"found {', '.join(names)}"
        )
    return names["person"]


def read_json(path: str) -> Any:
    try:
        return json.loads(read_text(Path(path), ""))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON ({str(error).splitlines()[0]})") from None


def records(path: str, content: Any, key: str) -> list:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        found = content.get(key, "none") if isinstance(content, dict) else content
        raise UserError(f"{path}: expected a list {key!r} in an object, found {short(found)}")
    return content[key]


def field(
    record: Any, key: str, kind: Callable[[Any], Any], where: str, absent: Any = NEEDED
) -> Any:
    """A record's value as `kind` makes it; `absent` where there is none or null."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, found {short(record)}")
    if record.get(key) is None:
        if absent is NEEDED:
            raise UserError(f"{where}: expected {key}, found {'null' if key in record else 'none'}")
        return absent
    return convert(record[key], kind, f"{where}: {key}")


def convert(value: Any, kind: Callable[[Any], Any], where: str) -> Any:
    made = kind(value)
    if made is None:
        raise UserError(f"{where}: expected {kind.__doc__}, found {short(value)}")
    return made


def short(value: Any) -> str:
    """A JSON value for a message of one line."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def identifier(value: Any) -> str | None:
    """a number or a text"""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value) if value.is_integer() else value)
    return str(value).strip() if type(value) in (int, str) else None


def text(value: Any) -> str | None:
    """a text"""
    return value if isinstance(value, str) and value.strip() else None


def box(value: Any) -> list[float] | None:
    """four numbers x y w h"""
    number = (int, float)
    whole = isinstance(value, list) and len(value) == 4 and all(type(v) in number for v in value)
    return value if whole and all(abs(v) < LARGEST for v in value) else None


def flag(value: Any) -> int | None:
    """0 or 1"""
    return int(value) if value in (0, 1) else None


def labelled(person: str | None) -> str | None:
    """Whom a person_id names: nobody if it is absent, empty or a negative number."""
    try:
        negative = float(person or -1) < 0
    except ValueError:
        negative = False
    return None if negative else person


def write_annotations(
    path: Path, scenes: Sequence[tuple[dict, Sequence[Person]]]
) -> list[list[int]]:
    """Write train.json or test.json; returns the annotations' ids, scene by scene.

    scenes: each image's `file_name`, `width`, `height` and what else is known, as its `camera`,
    and the people in it.
    """
    annotations: list[dict] = []
    ids = []
    for number, (_, people) in enumerate(scenes, 1):
        ids.append(list(range(len(annotations) + 1, len(annotations) + len(people) + 1)))
        for xywh, person in people:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 1,
                "bbox": xywh,
                "area": round(xywh[2] * xywh[3], 2),
                "iscrowd": 0,
            }
            annotations.append(annotation | ({} if person is None else {"person_id": person}))
    content = {
        "images": [{"id": number, **image} for number, (image, _) in enumerate(scenes, 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    write_text(json.dumps(content, indent=1), path)
    return ids
