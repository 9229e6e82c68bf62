"""Annotations in COCO's form, as Datumaro, CVAT, FiftyOne, Roboflow, supervision and others write
it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.coco_files import lookup, parse_annotations
from datasets.importers.locate import frame_of
from datasets.importers.records import Box, LabelledImage, Labels, Options

KEPT = "identity", "ignore region"  # what the counted boxes were kept for


def is_coco(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def read(path: Path, content: Any, options: Options) -> list[Labels]:
    left_out: Counter = Counter()
    file = parse_annotations(
        str(path), content, "", left_out, options.keys, options.labels, training=True
    )
    is_track = bool(file.key) and str(file.key).endswith("track_id")
    people: list[list[Box]] = [[] for _ in file.names]
    scores = [round(score, 6) for score in file.scores.tolist()]
    for image, xywh, person, score in zip(file.image, file.xywh.tolist(), file.people, scores):
        name, track = (None, person) if is_track else (person, None)
        people[image].append(Box(xywh, name, track, score))
    images = [
        LabelledImage(name, boxes, size, camera, frame=frame_of(name))
        for name, boxes, size, camera in zip(file.names, people, file.sizes, file.cameras)
    ]
    reasons = [reason for reason in left_out if any(kept in reason for kept in KEPT)]
    remarks = [f"{reason}: {left_out.pop(reason)}" for reason in reasons]
    if unsure := sum(0 < score < 1 for score in scores):
        remarks.append(f"boxes with a score below 1, which training uses as their target: {unsure}")
    if lookup(content, "info.contributor") == "Label Studio" and file.key is None:
        remarks.append("Label Studio leaves out the fields of regions in this format: export JSON")
    parts = by_video(Labels(path, "COCO", images, left_out, remarks), content)
    for part in parts:
        part.tracks = is_track or len(parts) > 1 or bool(part.frames())
    return parts


def by_video(labels: Labels, content: dict) -> list[Labels]:
    """Return the labels of each video, if the images name their videos; otherwise these labels.

    As in the form CocoVID, an image has a `video_id`, and `videos` is a list of ids and names.
    """
    listed = content.get("videos")
    names = {
        str(lookup(video, "id")): str(lookup(video, "name") or "")
        for video in (listed if isinstance(listed, list) else [])
    }
    images: dict[str, list[LabelledImage]] = {}
    for record, image in zip(content["images"], labels.images):
        images.setdefault(str(lookup(record, "video_id")), []).append(image)
    if len(images) < 2:
        return [replace(labels, video=names.get(id, "")) for id in images] or [labels]
    parts = [
        Labels(labels.path, labels.kind, some, task=names.get(id) or id, video=names.get(id, ""))
        for id, some in images.items()
    ]
    parts[0].left_out, parts[0].remarks = labels.left_out, labels.remarks
    return parts
