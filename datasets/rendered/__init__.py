"""Rendered people in the form of custom data: identities in several places, poses and lights.

plan: who appears when · looks, poses, body, clothes, people: who they are · places (site, things,
vehicles), weather: where · staging: where people and cameras stand · materials, light, raycast,
render, faults: the picture · labels: the boxes. A frame depends on the seed and its number alone.
"""

import functools
import json
import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from datasets.coco_files import write_annotations
from datasets.rendered.body import check_packages, load_body
from datasets.rendered.labels import Label, keep
from datasets.rendered.moments import render_moment
from datasets.rendered.plan import Moment, make_plan
from utils.errors import UserError
from utils.files import expect_new, make_folder, read_text, write_text, written_beside

VERSION = 1  # rises when the same parameters would give other images
RECORD = "rendered.json"
PARTS = "moments"  # folder of what is known of finished frames, until all are
QUERY_VISIBLE, QUERY_HEIGHT = 0.5, 40  # what a query shows at least: share of the body, pixels
QUERIES_EACH = 2  # of an identity, in different frames


def write_dataset(
    out: str,
    frames: int = 500,
    identities: int = 200,
    cameras: int = 2,
    size: tuple[int, int] = (640, 360),
    min_visible: float = 0.3,
    min_height: int = 16,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Render a dataset into folder `out`; False if it already lies there, finished, as asked for.

    A third of the identities and a fifth of the frames are for the test. cameras: how many see a
    moment at the same time. size: width, height in pixels. min_visible, min_height: who is
    labelled, see labels.keep. Finished frames of an interrupted run are kept.

    Raises: UserError: if a number is out of its range, a package is missing, or `out` holds
        something else.
    """
    limits = (
        ("size", min(size), 64, 4096),
        ("min-visible", min_visible, 0.0, 1.0),
        ("min-height", min_height, 1, 4096),
        ("workers", workers or 1, 1, 1024),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise UserError(f"{name}: expected {least} to {most}, found {value}")
    plan = make_plan(identities, frames, cameras, seed)
    asked = {
        "version": VERSION,
        "frames": frames,
        "identities": identities,
        "cameras": cameras,
        "size": list(size),
        "min_visible": min_visible,
        "min_height": min_height,
        "seed": seed,
    }
    if _finished(out, asked):
        return False
    check_packages()
    make_folder(Path(out, "images"), "--out")
    make_folder(Path(out, PARTS), "--out")
    _record(out, asked, finished=False)
    load_body()  # once, before several processes would each make it
    moments = plan.train + plan.test
    left = [moment for moment in moments if not _part(out, moment).exists()]
    work = functools.partial(_work, out=out, cameras=cameras, size=size, seed=seed)
    with tqdm(desc="rendering", unit="frame", total=frames, disable=not progress) as bar:
        bar.update(sum(moment.cameras for moment in moments) - sum(m.cameras for m in left))
        for done in _parallel(work, left, workers):
            bar.update(done)
    _annotate(out, plan.train, plan.test, size, min_visible, min_height)
    _record(out, asked, finished=True)
    return True


def frame_name(moment: Moment, number: int) -> str:
    return f"images/{moment.first_frame + number:06d}.jpg"


def camera_name(moment: Moment, number: int) -> str:
    return f"{moment.place_kind} {moment.place}, camera {number + 1}"


def _part(out: str, moment: Moment) -> Path:
    return Path(out, PARTS, f"{moment.index:06d}.json")


def _work(moment: Moment, out: str, cameras: int, size: tuple[int, int], seed: int) -> int:
    """Render and save a moment's frames, then what is in them; the number of frames."""
    torch.set_num_threads(1)
    found = []
    for number, (image, quality, labels) in enumerate(render_moment(moment, cameras, size, seed)):
        with written_beside(Path(out, frame_name(moment, number))) as file:
            Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append([[identity, *map(_plain, vars(label).values())] for identity, label in labels])
    write_text(json.dumps(found), _part(out, moment))
    return moment.cameras


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _parallel(work, moments: list[Moment], workers: int | None):
    """Results from as many processes as there are cores to use."""
    workers = workers or (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if workers == 1:
        yield from map(work, moments)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(work, moments)


def _annotate(out, train, test, size, min_visible, min_height) -> None:
    """train.json, test.json and queries.json from what is known of every moment."""
    for split, moments in (("train", train), ("test", test)):
        scenes, shown = [], []
        for moment in moments:
            for number, people in enumerate(json.loads(read_text(_part(out, moment), ""))):
                image = {
                    "file_name": frame_name(moment, number),
                    "width": size[0],
                    "height": size[1],
                    "camera": camera_name(moment, number),
                    "moment": moment.index,
                }
                labels = [(identity, Label(tuple(box), *rest)) for identity, box, *rest in people]
                kept = [
                    (identity, label)
                    for identity, label in labels
                    if keep(label, size[1], min_visible, min_height)
                ]
                scenes.append((image, [_person(*pair) for pair in kept]))
                shown.append((camera_name(moment, number), kept))
        ids = write_annotations(Path(out, f"{split}.json"), scenes)
    write_text(json.dumps(choose_queries(ids, shown)), Path(out, "queries.json"))


def _person(identity: int, label) -> tuple:
    name = f"p{identity}" if identity > 0 else None
    return list(label.box), name, {"visible": label.visible, "hidden": label.hidden}


def choose_queries(ids: list[list[int]], shown: list) -> list[int]:
    """Of every identity in two or more frames its QUERIES_EACH largest boxes of different cameras,
    as ids of annotations.

    Args:
        ids: of the annotations, frame by frame.
        shown: for each frame its camera and its (identity, label) pairs.
    """
    seen: dict[int, list[tuple[float, str, int]]] = {}
    frames: dict[int, int] = {}
    for names, (camera, people) in zip(ids, shown):
        for name, (identity, label) in zip(names, people):
            if identity < 0:
                continue
            frames[identity] = frames.get(identity, 0) + 1
            if label.visible >= QUERY_VISIBLE and label.box[3] >= QUERY_HEIGHT:
                area = label.box[2] * label.box[3]
                seen.setdefault(identity, []).append((-area, camera, name))
    queries = []
    for identity, boxes in sorted(seen.items()):
        if frames[identity] < 2:
            continue
        of_camera: dict[str, int] = {}
        for _, camera, name in sorted(boxes):
            of_camera.setdefault(camera, name)
        queries += list(of_camera.values())[:QUERIES_EACH]
    return sorted(queries)


def _finished(out: str, asked: dict) -> bool:
    """Whether `out` holds all that is asked for; raises UserError if it holds something else."""
    path = Path(out, RECORD)
    if not path.exists():
        expect_new(Path(out), "--out")
        return False
    try:
        found = json.loads(read_text(path, ""))
        finished = found.pop("finished")
    except (ValueError, AttributeError, TypeError, KeyError):
        raise UserError(f"{path}: damaged; delete the folder {out}") from None
    for key in asked | found:
        if found.get(key) != asked.get(key):
            raise UserError(
                f"{out}: holds a dataset with {key} {found.get(key)}, asked for {asked.get(key)}; "
                "delete it or choose another folder"
            )
    return finished


def _record(out: str, asked: dict, finished: bool) -> None:
    write_text(json.dumps(asked | {"finished": finished}, indent=1), Path(out, RECORD))
