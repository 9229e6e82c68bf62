"""CVAT's XML (version 1.1), for images and for video, which FiftyOne and Datumaro write too.

Identities are an attribute `person_id` of the label; in a video without one, tracks are people. A
track ends with a box that is `outside`, which shows nobody.
Form: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from datasets.boxes import around, enclosing
from datasets.importers.records import (
    NO_PERSON,
    OUTSIDE,
    Box,
    LabelledImage,
    Labels,
    Options,
    identity,
    people_labels,
)
from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text

SHAPES = ("box", "polygon", "ellipse", "mask")  # shapes that are replaced by the box around them
LENGTHS = ("width", "height")
OTHERS = ("polyline", "points", "cuboid", "skeleton")


def is_cvat(root: Element) -> bool:
    found = (root.find(tag) is not None for tag in ("image", "track"))
    return root.tag == "annotations" and any(found)


def parse(path: Path) -> Element:
    try:
        return ElementTree.fromstring(read_text(path, ""))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path}: expected XML ({str(error).splitlines()[0]})") from None


def read(path: Path, root: Element, options: Options) -> list[Labels]:
    """Return the images of a file, and the video of each task in it that has tracks."""
    labels = [read_images(path, root, options)] if root.find("image") is not None else []
    tasks: dict[str, list[Element]] = {}
    for track in root.iterfind("track"):
        tasks.setdefault(track.get("task_id", ""), []).append(track)
    for task, tracks in tasks.items():
        metas = [meta for meta in root.iter("task") if task in ("", meta.findtext("id"))]
        meta = metas[0] if metas else root.find("meta/job")
        about = Element("task") if meta is None else meta
        found = read_video(path, tracks, about, options)
        found.task = (about.findtext("name") or task) if len(tasks) > 1 else ""
        labels.append(found)
    return labels


def read_images(path: Path, root: Element, options: Options) -> Labels:
    labels = Labels(path, "CVAT, images", [])
    images = list(root.iterfind("image"))
    people = people_in([shape for image in images for shape in image], options, path)
    for number, image in enumerate(images):
        where = f"{path}: image {image.get('id', number)}"
        boxes = [
            Box(box_of(shape, where), identity_of([shape], options))
            for shape in image
            if counts(shape, shape.get("label"), people, labels.left_out)
        ]
        size = size_of(image.attrib, where)
        labels.images.append(
            LabelledImage(image.get("name", ""), boxes, size, subset=image.get("subset", ""))
        )
    return labels


def read_video(path: Path, tracks: list[Element], about: Element, options: Options) -> Labels:
    """Return the frames from the first to the last one in which a track has a box."""
    labels = Labels(path, "CVAT, video", [], tracks=True)
    labels.video = about.findtext("source") or about.findtext(".//source") or ""
    people = people_in(tracks, options, path)
    step = step_of(about, str(path))
    labels.length = length_of(about) if step == 1 else None
    frames: dict[int, list[Box]] = {}
    drawn = 0
    for number, track in enumerate(tracks):
        where = f"{path}: track {track.get('id', number)}"
        shapes = [shape for shape in track if shape.tag in (*SHAPES, *OTHERS)]
        common = identity_of(shapes, options)
        places: dict[int, list[float] | None] = {}
        for shape in shapes:
            shown = counts(shape, track.get("label"), people, labels.left_out)
            frame = round(number_of(shape.attrib, "frame", where))
            places[frame] = box_of(shape, where) if shown else None
        whole = between(places, step)
        drawn += len(whole) - len(places)
        for frame, xywh in whole.items():
            boxes = frames.setdefault(frame, [])
            if xywh:
                boxes.append(Box(xywh, common, track.get("id", str(number))))
    if drawn:
        labels.remarks.append(f"{drawn} boxes interpolated between keyframes")
    size = size_of({tag: about.findtext(f".//original_size/{tag}") for tag in LENGTHS}, str(path))
    if frames:
        every = {*range(min(frames), max(frames), step), *frames}
        labels.images = [
            LabelledImage(f"frame_{frame:06d}", frames.get(frame, []), size, frame=frame)
            for frame in sorted(every)
        ]
    return labels


def step_of(task: Element, where: str) -> int:
    """Return the distance of a task's frames in its video, "step=N"; 1 if it has all frames."""
    text = (task.findtext("frame_filter") or "").strip()
    step = number_of({"frame_filter": text.removeprefix("step=") or "1"}, "frame_filter", where)
    if step < 1 or step % 1:
        raise UserError(f"{where}: frame_filter: expected step=N, found {text!r}")
    return int(step)


def length_of(task: Element) -> int | None:
    """Return the number of a task's frames; None if it is not stated, or they are not the first
    ones of the video."""
    size, start = ((task.findtext(tag) or "").strip() for tag in ("size", "start_frame"))
    whole = task.tag == "task" and size.isdecimal() and start in ("", "0")
    return int(size) if whole else None


def between(places: dict[int, list[float] | None], step: int) -> dict[int, list[float] | None]:
    """Return the boxes of a track by frame; None where the person is outside the picture.

    Between two keyframes CVAT moves a box in a straight line. Before a keyframe that is outside,
    the box stays where it is.
    """
    whole: dict[int, list[float] | None] = {}
    order = sorted(places)
    for frame, following in zip(order, [*order[1:], None]):
        start = whole[frame] = places[frame]
        if start is None or following is None:
            continue
        end = places[following] or start
        for middle in range(frame + step, following, step):
            share = (middle - frame) / (following - frame)
            whole[middle] = [round(a + share * (b - a), 3) for a, b in zip(start, end)]
    return whole


def people_in(labelled: Iterable[Element], options: Options, path: Path) -> set[str]:
    names = dict.fromkeys(shape.get("label", "") for shape in labelled)
    return people_labels(list(names), options, f"{path}: labels")


def counts(shape: Element, label: str | None, people: set[str], left_out: Counter) -> bool:
    """Return whether a shape is the box of a person; if not, count the reason in `left_out`.

    Tags refer to the whole image.
    """
    reason = ""
    if shape.tag in OTHERS:
        reason = f"a shape of the kind {shape.tag}"
    elif shape.tag in SHAPES and (label or "") not in people:
        reason = NO_PERSON
    elif shape.get("outside") == "1":
        reason = OUTSIDE
    left_out.update([reason] if reason else [])
    return not reason and shape.tag in SHAPES


def identity_of(shapes: Iterable[Element], options: Options) -> str | None:
    """Return the first identity among the attributes of the shapes, all of which show one
    person."""
    values = (
        identity(attribute.text)
        for shape in shapes
        for attribute in shape.iterfind("attribute")
        if attribute.get("name") == options.attribute
    )
    return next((value for value in values if value), None)


def box_of(shape: Element, where: str) -> list[float]:
    """Return the box of a shape, x y w h in pixels."""
    get = functools.partial(number_of, shape.attrib, where=where)
    if shape.tag == "polygon":
        return around(points_of(shape, where))
    if shape.tag == "mask":
        return [get(key) for key in ("left", "top", "width", "height")]
    if shape.tag == "ellipse":
        x, y, across, down = (get(key) for key in ("cx", "cy", "rx", "ry"))
        xywh = [x - across, y - down, 2 * across, 2 * down]
    else:
        left, top, right, bottom = (get(key) for key in ("xtl", "ytl", "xbr", "ybr"))
        xywh = [left, top, right - left, bottom - top]
    turned = number_of({"rotation": shape.get("rotation") or "0"}, "rotation", where)
    return enclosing([round(value, 3) for value in xywh], turned, corner=False)


def points_of(shape: Element, where: str) -> list[tuple[float, float]]:
    text = shape.get("points", "")
    try:
        pairs = [tuple(map(float, pair.split(","))) for pair in text.split(";")]
        points = [(x, y) for x, y in pairs]
    except ValueError:
        points = []
    if not points or not all(abs(value) < LARGEST for point in points for value in point):
        raise UserError(f"{where}: points: expected x,y;x,y;..., found {text[:60]!r}")
    return points


def number_of(values: Mapping[str, str | None], key: str, where: str) -> float:
    try:
        number = float(values.get(key) or "")
    except ValueError:
        number = math.inf
    if not abs(number) < LARGEST:
        raise UserError(f"{where}: {key}: expected a number, found {values.get(key)!r}")
    return number


def size_of(values: Mapping[str, str | None], where: str) -> tuple[int, int] | None:
    if not all(values.get(key) for key in LENGTHS):
        return None
    width, height = (round(number_of(values, key, where)) for key in LENGTHS)
    return width, height
