"""Annotations in COCO's form, as Datumaro, CVAT, FiftyOne, Roboflow, supervision and others write
it."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from datasets.coco_files import lookup, parse_annotations
from datasets.importers.records import Box, LabelledImage, Labels, Options

FRAME = re.compile(r"frame_(\d{1,9})")  # the name of a video's frame, as CVAT and Datumaro write it


def is_coco(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read(path: Path, content: Any, options: Options) -> list[Labels]:
    left_out: Counter = Counter()
    file = parse_annotations(str(path), content, "", left_out, options.keys, options.labels)
    is_track = bool(file.key) and str(file.key).endswith("track_id")
    people: list[list[Box]] = [[] for _ in file.names]
    for image, xywh, person in zip(file.image, file.xywh.tolist(), file.people):
        name, track = (None, person) if is_track else (person, None)
        people[image].append(Box(xywh, name, track))
    images = [
        LabelledImage(name, boxes, size, camera, frame=frame_of(name) if is_track else None)
        for name, boxes, size, camera in zip(file.names, people, file.sizes, file.cameras)
    ]
    remarks = [f"{reason}: {count}" for reason, count in left_out.items() if "identity" in reason]
    if lookup(content, "info.contributor") == "Label Studio" and file.key is None:
        remarks.append("Label Studio leaves out the fields of regions in this format: export JSON")
    left_out = Counter({k: count for k, count in left_out.items() if "identity" not in k})
    return [Labels(path, "COCO", images, left_out, remarks, tracks=is_track)]


def frame_of(name: str) -> int | None:
    """Return the number in the name of a video frame. The frame need not exist as a file."""
    found = FRAME.fullmatch(Path(name).stem)
    return int(found[1]) if found else None
