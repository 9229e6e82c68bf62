"""Labels written in the forms that annotation tools import."""

import json
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from datasets.importers.records import Box, LabelledImage, Labels
from utils.errors import UserError

LABEL, ATTRIBUTE = "person", "person_id"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def check_names(names: Iterable[str]) -> None:
    """Check names of images that are to be written by `cvat_xml`.

    Raises:
        UserError: if one contains a character that XML cannot represent.
    """
    if wrong := next((name for name in names if NOT_IN_XML.search(name)), None):
        raise UserError(
            f"{wrong}: expected a name of characters that XML can represent, or another --form"
        )


def cvat_xml(labels: Labels) -> str:
    """Return labels as CVAT 1.1: tracks if the images are frames of a video, otherwise boxes of
    images.

    The task needs a label `person` with a text attribute `person_id`.
    """
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    if labels.tracks:
        _add_tracks(root, labels.images)
    else:
        for number, image in enumerate(labels.images):
            width, height = image.size or (0, 0)
            about = {"id": number, "name": image.name, "width": width, "height": height}
            element = SubElement(root, "image", _texts(about))
            for box in image.boxes:
                _add_box(element, box, {"label": LABEL, "source": "auto"})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode")


def _add_tracks(root: Element, frames: Sequence[LabelledImage]) -> None:
    """Add tracks to the XML. Each ends with a box marked as outside, in the frame after its last
    box."""
    tracks: dict[str, list[tuple[int, Box]]] = {}
    for place, frame in enumerate(frames):
        for box in frame.boxes:
            tracks.setdefault(box.track or "", []).append((place, box))
    for id, places in tracks.items():
        track = SubElement(root, "track", {"id": id, "label": LABEL, "source": "auto"})
        for place, box in places:
            _add_box(track, box, {"frame": frames[place].frame, "outside": 0, "keyframe": 1})
        last, box = places[-1]
        if last + 1 < len(frames):
            end = {"frame": frames[last + 1].frame, "outside": 1, "keyframe": 1}
            _add_box(track, box, end)


def _add_box(parent: Element, box: Box, more: dict) -> None:
    x, y, width, height = box.xywh
    corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
    place = {key: f"{value:.2f}" for key, value in corners.items()}
    element = SubElement(parent, "box", _texts(more | {"occluded": 0, "z_order": 0} | place))
    SubElement(element, "attribute", {"name": ATTRIBUTE}).text = box.name or ""


def _texts(values: dict) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def coco_json(labels: Labels) -> str:
    """Return labels as COCO, with identities among the `attributes`, as CVAT and Datumaro import
    them."""
    images: list[dict] = []
    annotations: list[dict] = []
    for number, image in enumerate(labels.images, 1):
        width, height = image.size or (0, 0)
        about = {"id": number, "file_name": image.name, "width": width, "height": height}
        images.append(about | ({"video_id": 1} if labels.video else {}))
        for box in image.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": box.xywh,
                    "area": round(box.xywh[2] * box.xywh[3], 2),
                    "iscrowd": 0,
                    "segmentation": [],
                    "attributes": {ATTRIBUTE: box.name or "", "occluded": False},
                }
            )
    categories = [{"id": 1, "name": LABEL, "supercategory": ""}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    videos = {"videos": [{"id": 1, "name": labels.video}]} if labels.video else {}
    return json.dumps(content | videos, indent=1)


def label_studio_json(labels: Labels, prefix: str = "") -> str:
    """Return labels as Label Studio tasks with predictions.

    The project needs RectangleLabels `label` and a TextArea `person_id` with perRegion="true".

    Args:
        prefix: of the addresses at which Label Studio serves the images.
    """
    tasks = []
    for image in labels.images:
        results: list[dict] = []
        for number, box in enumerate(image.boxes):
            results += _regions(str(number), box, image.size or (1, 1))
        address = prefix + (quote(image.name, errors="surrogateescape") if prefix else image.name)
        prediction = {"model_version": "prelabel", "result": results}
        tasks.append({"data": {"image": address}, "predictions": [prediction]})
    return json.dumps(tasks, indent=1)


def _regions(id: str, box: Box, size: tuple[int, int]) -> list[dict]:
    keys = ("x", "y", "width", "height")
    place = {key: 100 * v / side for key, v, side in zip(keys, box.xywh, size * 2)}
    about = {
        "id": id,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }
    rectangle = {**place, "rectanglelabels": [LABEL], "rotation": 0}
    text = {**place, "text": [box.name or ""]}
    return [
        {**about, "from_name": "label", "type": "rectanglelabels", "value": rectangle},
        {**about, "from_name": ATTRIBUTE, "type": "textarea", "value": text},
    ]
