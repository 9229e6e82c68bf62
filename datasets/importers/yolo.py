"""YOLO's text files with track ids: `class x y w h [confidence] [id]`, as fractions of the image.

Ultralytics writes them during tracking (save_txt), CVAT as "Ultralytics YOLO Detection Track". The
names of the classes are in data.yaml, classes.txt or obj.names. A sixth column contains ids if all
of its numbers are whole, otherwise confidences. A negative id is an unlabelled person.
Form: https://docs.ultralytics.com/datasets/detect/
"""

import math
from pathlib import Path
from typing import Any

import yaml

from datasets.boxes import around
from datasets.importers.locate import frame_of, natural
from datasets.importers.records import (
    NO_PERSON,
    Box,
    LabelledImage,
    Labels,
    Options,
    people_labels,
)
from utils.errors import UserError, reason_of
from utils.files import read_text
from utils.sources import is_hidden

NAMES = ("data.yaml", "classes.txt", "obj.names")


def is_yolo(folder: Path) -> bool:
    return any((folder / name).is_file() for name in NAMES) or (folder / "labels").is_dir()


def read(folder: Path, options: Options) -> list[Labels]:
    """Return the images that have a text file, in the order of their names and numbers."""
    files = sorted(
        (
            path
            for path in folder.rglob("*.txt")
            if path.parent != folder and not is_hidden(path, folder)
        ),
        key=natural,
    )
    rows = {file: rows_of(file) for file in files}
    names = class_names(folder)
    every = [row for some in rows.values() for row in some]
    labels = Labels(folder, "YOLO", [])
    people = people_labels(
        list(dict.fromkeys(names.get(row[0], f"{row[0]:g}") for row in every)),
        options,
        f"{folder}: classes",
    )
    tracked = [size for size in (6, 7) if is_tracked([row for row in every if len(row) == size])]
    if every and not tracked:
        labels.remarks.append("no line has a track id")
    for file, some in rows.items():
        boxes = []
        for row in some:
            if names.get(row[0], f"{row[0]:g}") in people:
                known = len(row) in tracked and row[-1] >= 0
                track = str(int(row[-1])) if known else None
                boxes.append(Box(shares_of(row, len(row) in (5, 6, *tracked)), None, track))
            else:
                labels.left_out[NO_PERSON] += 1
        name = file.relative_to(folder).with_suffix("")
        parts = ["images" if part == "labels" else part for part in name.parts]
        image = LabelledImage("/".join(parts), boxes, shares=True, frame=frame_of(parts[-1]))
        labels.images.append(image)
    labels.tracks = bool(tracked or labels.frames())
    return [labels]


def is_tracked(rows: list[list[float]]) -> bool:
    """Return True if the last column of the rows, which have equal length, contains ids: whole
    numbers only."""
    return bool(rows) and all(row[-1] % 1 == 0 for row in rows)


def rows_of(file: Path) -> list[list[float]]:
    """Return the numbers of each line: five to seven of a box, or the class and the points of a
    polygon."""
    rows = []
    for number, line in enumerate(read_text(file, "").splitlines(), 1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = [math.nan]
        finite = all(map(math.isfinite, row))
        if row and (not finite or len(row) < 5 or (len(row) > 7 and len(row) % 2 == 0)):
            raise UserError(
                f"{file}, line {number}: expected class, x, y, w, h and optionally a confidence "
                f"and an id, found {line[:60]!r}"
            )
        rows += [row] if row else []
    return rows


def shares_of(row: list[float], is_box: bool) -> list[float]:
    """Return x y w h as fractions of the image, where x y is the upper left corner."""
    if not is_box:
        return around(list(zip(row[1::2], row[2::2])), digits=9)
    x, y, width, height = row[1:5]
    return [x - width / 2, y - height / 2, width, height]


def class_names(folder: Path) -> dict[float, str]:
    """Return the names of the classes by number; empty if no file contains them."""
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return {}
    text = read_text(path, "")
    if path.suffix != ".yaml":
        return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
    try:
        content = yaml.safe_load(text)
    except Exception as error:  # YAML's own, and those of numbers, dates and nesting
        raise UserError(f"{path}: expected YAML ({reason_of(error)})") from None
    names: Any = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise UserError(f"{path}: names: expected the classes' names, found {str(names)[:60]!r}")
    return {float(number): str(name) for number, name in names.items()}
