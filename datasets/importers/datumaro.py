"""Datumaro's own JSON format, which CVAT writes too. It is converted to the corresponding COCO
form.

Form: https://open-edge-platform.github.io/datumaro/stable/docs/data-formats/formats/datumaro.html
"""

from collections import Counter
from pathlib import Path
from typing import Any

from datasets.boxes import around
from datasets.coco_files import lookup
from datasets.importers import coco
from datasets.importers.records import Labels, Options
from datasets.json_fields import records
from utils.errors import UserError


def is_datumaro(content: Any) -> bool:
    return isinstance(content, dict) and {"items", "categories"} <= content.keys()


def read(path: Path, content: Any, options: Options) -> list[Labels]:
    images: list[dict] = []
    annotations: list[dict] = []
    left_out: Counter = Counter()
    for number, item in enumerate(records(str(path), content, "items")):
        size = lookup(item, "image.size")
        height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
        name = lookup(item, "image.path") or lookup(item, "id")
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for shape in as_list(lookup(item, "annotations")):
            bbox = box_of(shape, f"{path}: item {number}")
            if bbox is None:
                left_out[f"a shape of the kind {lookup(shape, 'type')}"] += 1
            else:
                row = {"image_id": number, "bbox": bbox, "category_id": lookup(shape, "label_id")}
                annotations.append(row | {"attributes": lookup(shape, "attributes") or {}})
    labels = as_list(lookup(content, "categories.label.labels"))
    categories = [{"id": n, "name": lookup(label, "name")} for n, label in enumerate(labels)]
    form = {"images": images, "annotations": annotations, "categories": categories}
    found = coco.read(path, form, options)
    found[0].kind = "Datumaro"
    found[0].left_out.update(left_out)
    return found


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else []


def box_of(shape: Any, where: str) -> Any:
    """Return the box of an annotation, or the box around its polygon; None for other shapes."""
    if lookup(shape, "type") == "polygon":
        points = as_list(lookup(shape, "points"))
        if not points or len(points) % 2 or not all(isinstance(v, int | float) for v in points):
            raise UserError(f"{where}: points: expected numbers x, y, x, y, ...")
        return around(list(zip(points[::2], points[1::2])))
    return lookup(shape, "bbox") if lookup(shape, "type") == "bbox" else None
