"""The annotation files of rendered data: custom data in COCO's form, with queries."""

import json
from collections.abc import Sequence
from pathlib import Path

from datasets.coco_files import write_annotations
from datasets.rendered.labels import Label, keep
from datasets.rendered.plan import Moment
from utils.files import read_text, write_text

PARTS = "moments"  # folder of the labels of finished moments, with which a run continues
QUERY_VISIBLE, QUERY_HEIGHT = 0.5, 40  # what a query shows at least: share of the body, pixels
QUERIES_EACH = 2  # of an identity, from different cameras
People = list[tuple[int, Label]]  # the identities in a frame; unlabelled people are negative


def frame_name(moment: Moment, number: int) -> str:
    return f"images/{moment.first_frame + number:06d}.jpg"


def camera_name(moment: Moment, number: int) -> str:
    return f"{moment.place_kind} {moment.place}, camera {number + 1}"


def part_path(out: str, moment: Moment) -> Path:
    return Path(out, PARTS, f"{moment.index:06d}.json")


def write_part(out: str, moment: Moment, frames: Sequence[People]) -> None:
    """Write the labels of a moment's frames."""
    content = [
        [[identity, label.box, label.visible, label.hidden] for identity, label in people]
        for people in frames
    ]
    write_text(json.dumps(content), part_path(out, moment))


def read_part(out: str, moment: Moment) -> list[People]:
    content = json.loads(read_text(part_path(out, moment), ""))
    return [
        [(identity, Label(tuple(box), *shares)) for identity, box, *shares in people]
        for people in content
    ]


def annotate(
    out: str,
    splits: dict[str, list[Moment]],
    size: tuple[int, int],
    min_visible: float,
    min_height: int,
) -> None:
    """Write train.json, test.json and, if there are queries, queries.json from the labels of all
    moments."""
    for split, moments in splits.items():
        images, shown = [], []
        for moment in moments:
            for number, people in enumerate(read_part(out, moment)):
                camera = camera_name(moment, number)
                image = {
                    "file_name": frame_name(moment, number),
                    "width": size[0],
                    "height": size[1],
                    "camera": camera,
                    "moment": moment.index,
                }
                kept = [pair for pair in people if keep(pair[1], size[1], min_visible, min_height)]
                images.append((image, [_annotation(*pair) for pair in kept]))
                shown.append((camera, kept))
        ids = write_annotations(Path(out, f"{split}.json"), images)
        if split == "test" and (queries := choose_queries(ids, shown)):
            write_text(json.dumps(queries), Path(out, "queries.json"))


def _annotation(identity: int, label: Label) -> tuple[list[float], str | None, dict]:
    name = f"p{identity}" if identity > 0 else None
    return list(label.box), name, {"visible": label.visible, "hidden": label.hidden}


def choose_queries(ids: list[list[int]], shown: list[tuple[str, People]]) -> list[int]:
    """Choose the queries, as ids of annotations.

    Each identity in two or more frames gets its largest box in each of up to QUERIES_EACH cameras.

    Args:
        ids: of the annotations, frame by frame.
        shown: for each frame its camera and the people with an annotation.
    """
    boxes: dict[int, list[tuple[float, int, str]]] = {}
    frames: dict[int, int] = {}
    for names, (camera, people) in zip(ids, shown):
        for name, (identity, label) in zip(names, people):
            if identity < 0:
                continue
            frames[identity] = frames.get(identity, 0) + 1
            if label.visible >= QUERY_VISIBLE and label.box[3] >= QUERY_HEIGHT:
                area = label.box[2] * label.box[3]
                boxes.setdefault(identity, []).append((-area, name, camera))
    queries: list[int] = []
    for identity, found in boxes.items():
        of_camera: dict[str, int] = {}
        for _, name, camera in sorted(found):
            of_camera.setdefault(camera, name)
        if frames[identity] > 1:
            queries += list(of_camera.values())[:QUERIES_EACH]
    return sorted(queries)
