"""Label Studio's export formats JSON, JSON_MIN, CSV and TSV.

A box is a region of the kind rectanglelabels, in per cent of the image. Its identity is a field of
the same region (`perRegion="true"` in the labelling setup): a text, a choice, a number or a
taxonomy. JSON records to which region a field belongs. JSON_MIN and CSV have one list of all boxes
and one of all texts of an image; if both have the same length, they are paired in order. Form:
https://labelstud.io/guide/export.html
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.boxes import enclosing
from datasets.coco_files import lookup
from datasets.importers.records import (
    NO_PERSON,
    Box,
    LabelledImage,
    Labels,
    Options,
    identity,
    people_labels,
)
from datasets.json_fields import identifier, short
from datasets.mat import LARGEST
from utils.errors import UserError, first_of

RECTANGLES = "rectanglelabels"
VALUES = {  # kinds of fields, and where their value is
    "textarea": "text",
    "choices": "choices",
    "number": "number",
    "taxonomy": "taxonomy",
    "rating": "rating",
}
UNSURE = "identity that this format assigns to no box (export JSON instead)"
MINIMAL = {"annotation_id", "annotator"}  # keys of each task in JSON_MIN and CSV


def is_label_studio(content: Any) -> bool:
    """Return True if JSON content is a list of Label Studio tasks, in the form JSON or JSON_MIN."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and (
        {"data", "annotations"} <= first.keys() or first.keys() >= MINIMAL
    )


def is_table(text: str) -> bool:
    try:
        header = next(csv.reader(io.StringIO(text), delimiter=delimiter_of(text)), [])
    except csv.Error:  # a quotation mark that is never closed
        return False
    return set(header) >= MINIMAL


def delimiter_of(text: str) -> str:
    return "\t" if "\t" in text.partition("\n")[0] else ","


def read_table(path: Path, text: str, options: Options) -> list[Labels]:
    """Read a CSV or TSV file: tasks as in JSON_MIN, with JSON in the cells."""
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    before = csv.field_size_limit(1 << 30)  # of the whole process
    try:
        tasks = [{key: value_of(cell) for key, cell in row.items()} for row in rows]
    finally:
        csv.field_size_limit(before)
    return read(path, tasks, options)


def value_of(cell: Any) -> Any:
    try:
        return json.loads(cell) if isinstance(cell, str) and cell[:1] in "[{" else cell
    except ValueError:
        return cell


def read(path: Path, tasks: Sequence[Any], options: Options) -> list[Labels]:
    """Read tasks of the form JSON or JSON_MIN."""
    labels = Labels(path, "Label Studio", [])
    fields: set[str] = set()  # names of the regions' fields
    regions = [regions_of(task, options, labels, fields) for task in tasks]
    if fields and options.attribute not in fields:
        labels.remarks.append(f"fields of regions: {first_of(sorted(fields))}")
    found = dict.fromkeys(region.label for some in regions for region in some or ())
    people = people_labels(list(found), options, f"{path}: labels")
    for number, (task, some) in enumerate(zip(tasks, regions)):
        if some is None:
            continue
        where = f"{path}: task {lookup(task, 'id') or number + 1}"
        about = as_dict(task.get("data")) or task
        sizes = {size_of(region.value) for region in some}
        size = sizes.pop() if len(sizes) == 1 else None
        kept = [region for region in some if region.label in people]
        labels.left_out[NO_PERSON] += len(some) - len(kept)
        boxes = [Box(box_of(region.value, size, where), region.person) for region in kept]
        camera = identifier(about.get("camera")) or None
        name = image_of(about, where)
        labels.images.append(LabelledImage(name, boxes, size, camera, shares=size is None))
    labels.left_out += Counter()  # removes counts of zero
    return [labels]


@dataclass(frozen=True)
class Region:
    """A rectangle. value: its position in per cent, and the size of the image."""

    value: dict
    label: str
    person: str | None


def regions_of(
    task: Any, options: Options, labels: Labels, fields: set[str]
) -> list[Region] | None:
    """Return the rectangles of a task; None if it has no annotation.

    Args:
        fields: receives the names of the fields that were read.
    """
    if not isinstance(task, dict):
        raise UserError(f"{labels.path}: expected a list of tasks, found {short(task)} in it")
    if "data" not in task:
        return minimal_regions(task, options, labels)
    made = [one for one in dicts_in(task.get("annotations")) if not one.get("was_cancelled")]
    if not made:
        labels.left_out["image without an annotation"] += 1
        return None
    labels.left_out["older annotation of an image"] += len(made) - 1
    newest = max(made, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at"))))
    people: dict[str, str | None] = {}
    rectangles: dict[str, dict] = {}
    names: dict[str, str] = {}
    for result in dicts_in(newest.get("result")):
        id, kind = str(result.get("id")), str(result.get("type"))
        value = as_dict(result.get("value"))
        if kind in VALUES:
            fields.add(str(result.get("from_name")))
        if kind in VALUES and result.get("from_name") == options.attribute:
            people[id] = field_value(value)
        elif kind in (RECTANGLES, "rectangle"):
            keys = ("original_width", "original_height", "meta")
            rectangles[id] = value | {key: result.get(key) for key in keys}
        elif kind not in (*VALUES, "labels"):
            labels.left_out[f"region of the kind {kind}"] += 1
        names[id] = label_of(value) or names.get(id, "")
    return [
        Region(value, names[id], people.get(id) or note_of(value))
        for id, value in rectangles.items()
    ]


def minimal_regions(task: dict, options: Options, labels: Labels) -> list[Region]:
    """Return the rectangles of a task of the form JSON_MIN, paired with identities in order."""
    rectangles = [one for value in task.values() for one in dicts_in(value) if one.get(RECTANGLES)]
    given = task.get(options.attribute) or []
    people = [field_value(one) for one in (given if isinstance(given, list) else [given])]
    if len(people) != len(rectangles):
        labels.left_out[UNSURE] += len(people)
        people = [None] * len(rectangles)
    return [Region(one, label_of(one), person) for one, person in zip(rectangles, people)]


def dicts_in(value: Any) -> list[dict]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def as_dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def label_of(value: dict) -> str:
    """Return the first label of a region; empty if it has none."""
    labels = value.get(RECTANGLES) or value.get("labels")
    return str(labels[0]) if isinstance(labels, list) and labels else ""


def note_of(value: dict) -> str | None:
    """Return the identity in the notes of a region, which belong to no field."""
    notes = lookup(value, "meta.text")
    return identity(" ".join(map(str, notes))) if isinstance(notes, list) else None


def field_value(value: Any) -> str | None:
    """Return the identity in the value of a field."""
    if isinstance(value, dict):
        value = next((value[key] for key in VALUES.values() if key in value), None)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return identity(" ".join(map(str, value)) if isinstance(value, list) else value)


def size_of(region: dict) -> tuple[int, int] | None:
    width, height = region.get("original_width"), region.get("original_height")
    if not (isinstance(width, int) and isinstance(height, int)):
        return None
    return (width, height) if min(width, height) > 0 else None


def box_of(region: dict, size: tuple[int, int] | None, where: str) -> list[float]:
    """Return x y w h in pixels, or in fractions of the image if its size is unknown.

    A region is rotated about its upper left corner.

    Raises:
        UserError: if a number is missing or too large, or if a region is rotated in an image of
            unknown size: the box around it depends on the ratio of the sides.
    """
    given = [region.get(key) for key in ("x", "y", "width", "height")]
    values = [float(v) for v in given if isinstance(v, int | float) and abs(v) < LARGEST]
    if len(values) < 4:
        raise UserError(f"{where}: expected x, y, width, height in per cent, found {given}")
    if size is None and turned_by(region) % 360:
        raise UserError(
            f"{where}: expected original_width and original_height with a rotation, found none"
        )
    across, down = size or (1, 1)
    x, y, width, height = (
        value / 100 * length for value, length in zip(values, (across, down) * 2)
    )
    digits = 3 if size else 9
    return enclosing([round(v, digits) for v in (x, y, width, height)], turned_by(region), True)


def turned_by(region: dict) -> float:
    angle = region.get("rotation")
    return float(angle) if isinstance(angle, int | float) and abs(angle) < LARGEST else 0.0


def image_of(about: dict, where: str) -> str:
    """Return the image's name in a task's data: the value of `image`, or else the first address or
    path."""
    values = [about.get("image"), *about.values()]
    for value in values:
        if isinstance(value, str) and ("/" in value or Path(value).suffix):
            return value
    raise UserError(f"{where}: expected the path of an image, found {first_of(about)}")
