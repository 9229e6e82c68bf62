"""Label Studio's exports JSON, JSON_MIN, CSV and TSV.

A box is a region of the kind rectanglelabels, in per cent of the image. Its identity is a field of
the same region (`perRegion="true"` in the labelling setup): a text, a choice, a number or a
taxonomy. JSON keeps which region a field belongs to. JSON_MIN and CSV have one list of all boxes
and one of all texts of an image: they are paired in order where there are as many of both.
Form: https://labelstud.io/guide/export.html
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.coco_files import lookup
from datasets.importers.records import (
    NO_PERSON,
    Box,
    LabelledImage,
    Labels,
    Options,
    enclosing,
    identity,
    people_labels,
)
from datasets.json_fields import identifier
from datasets.mat import LARGEST
from utils.errors import UserError, first_of

RECTANGLES = "rectanglelabels"
VALUES = ("text", "choices", "number", "taxonomy", "rating")  # what a field of a region may be
UNSURE = "identity whose box the form does not say (export JSON instead)"
MINIMAL = {"annotation_id", "annotator"}  # keys of each task in JSON_MIN and CSV


def is_label_studio(content: Any) -> bool:
    """Whether a JSON is a list of tasks, with their annotations or as JSON_MIN has them."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and (
        {"data", "annotations"} <= first.keys() or first.keys() >= MINIMAL
    )


def is_table(text: str) -> bool:
    header = next(csv.reader(io.StringIO(text), delimiter=delimiter_of(text)), [])
    return set(header) >= MINIMAL


def delimiter_of(text: str) -> str:
    return "\t" if "\t" in text.partition("\n")[0] else ","


def read_table(path: Path, text: str, options: Options) -> list[Labels]:
    """A CSV or TSV: JSON_MIN's tasks, with JSON in the cells."""
    csv.field_size_limit(1 << 30)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    return read(path, [{key: value_of(cell) for key, cell in row.items()} for row in rows], options)


def value_of(cell: Any) -> Any:
    try:
        return json.loads(cell) if isinstance(cell, str) and cell[:1] in "[{" else cell
    except ValueError:
        return cell


def read(path: Path, tasks: Sequence[Any], options: Options) -> list[Labels]:
    labels = Labels(path, "Label Studio", [])
    regions = [regions_of(task, options, labels) for task in tasks]
    found = dict.fromkeys(label for task in regions for _, label, _ in task or ())
    people = people_labels(list(found), options, f"{path}: labels")
    for number, (task, rows) in enumerate(zip(tasks, regions)):
        if rows is None:
            continue
        where = f"{path}: task {lookup(task, 'id') or number + 1}"
        about = task.get("data") if isinstance(task.get("data"), dict) else task
        name = image_of(about, where)
        sizes = {size_of(region) for region, _, _ in rows}
        size = sizes.pop() if len(sizes) == 1 else None
        boxes = []
        for region, label, person in rows:
            if label in people:
                boxes.append(Box(box_of(region, size, where), person))
            else:
                labels.left_out[NO_PERSON] += 1
        camera = identifier(about.get("camera")) or None
        labels.images.append(LabelledImage(name, boxes, size, camera, shares=size is None))
    return [labels]


# A region's rectangle (its value and the image's size), its label and its identity.
Row = tuple[dict, str, str | None]


def regions_of(task: Any, options: Options, labels: Labels) -> list[Row] | None:
    """The rectangles of a task; None if nobody has labelled it."""
    if not isinstance(task, dict):
        raise UserError(f"{labels.path}: expected a list of tasks, found {type(task).__name__}")
    if "data" not in task:
        return minimal_regions(task, options, labels)
    made = [a for a in task.get("annotations") or () if not lookup(a, "was_cancelled")]
    if not made:
        labels.left_out["image without an annotation"] += 1
        return None
    if len(made) > 1:
        labels.left_out["second annotation of an image, older"] += len(made) - 1
    newest = max(made, key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at"))))
    results = [result for result in newest.get("result") or () if isinstance(result, dict)]
    people: dict[str, str | None] = {}
    named: dict[str, str] = {}
    for result in results:
        if result.get("from_name") == options.attribute:
            people[result.get("id", "")] = field_value(result.get("value"))
        if result.get("type") == "labels":
            named[result.get("id", "")] = str((lookup(result, "value.labels") or [""])[0])
    rows = []
    for result in results:
        id, value = result.get("id", ""), result.get("value") or {}
        if result.get("type") in (RECTANGLES, "rectangle"):
            label = str((value.get(RECTANGLES) or [named.get(id, "")])[0])
            sizes = {key: result.get(key) for key in ("original_width", "original_height")}
            note = " ".join(map(str, lookup(result, "meta.text") or ()))
            rows.append((value | sizes, label, people.get(id) or identity(note)))
        elif (
            result.get("type", "").endswith(("labels", "rectangle")) and result["type"] != "labels"
        ):
            labels.left_out[f"a region of the kind {result['type']}"] += 1
    return rows


def minimal_regions(task: dict, options: Options, labels: Labels) -> list[Row]:
    """The rectangles of a task as JSON_MIN has them, paired with the identities in order."""
    lists = [value for value in task.values() if isinstance(value, list)]
    rectangles = [one for some in lists for one in some if lookup(one, RECTANGLES)]
    given = task.get(options.attribute) or []
    people = [field_value(one) for one in (given if isinstance(given, list) else [given])]
    if len(people) != len(rectangles):
        if people:
            labels.left_out[UNSURE] += len(people)
        people = [None] * len(rectangles)
    return [(one, str(one[RECTANGLES][0]), person) for one, person in zip(rectangles, people)]


def field_value(value: Any) -> str | None:
    """The identity that a field of a region names."""
    if isinstance(value, dict):
        value = next((value[key] for key in VALUES if key in value), None)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return identity(" ".join(map(str, value)) if isinstance(value, list) else value)


def size_of(region: dict) -> tuple[int, int] | None:
    width, height = region.get("original_width"), region.get("original_height")
    if not (isinstance(width, int) and isinstance(height, int)):
        return None
    return (width, height) if min(width, height) > 0 else None


def box_of(region: dict, size: tuple[int, int] | None, where: str) -> list[float]:
    """x y w h in pixels, or as shares of the image if its size is not known. Rotation is about the
    left upper corner, in pixels."""
    given = [region.get(key) for key in ("x", "y", "width", "height")]
    values = [float(v) for v in given if isinstance(v, int | float) and abs(v) < LARGEST]
    if len(values) < 4:
        raise UserError(f"{where}: expected x, y, width, height in per cent, found {given}")
    across, down = size or (1, 1)
    x, y, width, height = (
        value / 100 * length for value, length in zip(values, (across, down) * 2)
    )
    digits = 3 if size else 9
    return enclosing([round(v, digits) for v in (x, y, width, height)], turned_by(region), True)


def turned_by(region: dict) -> float:
    angle = region.get("rotation") or 0
    return float(angle) if isinstance(angle, int | float) else 0.0


def image_of(about: dict, where: str) -> str:
    """The image's name in a task's data: `image`, else the first address or path."""
    values = [about.get("image"), *about.values()]
    for value in values:
        if isinstance(value, str) and ("/" in value or Path(value).suffix):
            return value
    raise UserError(f"{where}: expected the path of an image, found {first_of(about)}")
