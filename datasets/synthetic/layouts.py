"""Writers of annotation files: CUHK-SYSU and PRW with the structure and number types of the real
files, and custom data."""

import json
import os
from pathlib import Path

import numpy as np
from scipy.io import savemat

from datasets.base import GALLERY_SIZE
from datasets.coco_files import write_annotations
from datasets.cuhk_sysu import SIZES
from datasets.synthetic.plan import Plan
from datasets.synthetic.scenes import NO_IDENTITY, SceneContent
from utils.files import write_text

GALLERY = 5  # number of this module's random stream
Boxes = list[np.ndarray]  # one [n, 4] x1 y1 x2 y2 for each frame, in order of SceneContent.index


def cuhk_name(frame: SceneContent) -> str:
    """Return the file name of a frame in CUHK-SYSU's layout."""
    return f"s{frame.index + 1}.jpg"


def prw_name(frame: SceneContent) -> str:
    """Return the file name of a frame in PRW's layout."""
    return f"c{frame.camera}s1_{25 * frame.index + 1:06d}.jpg"


def coco_name(frame: SceneContent) -> str:
    """Return the file name of a frame of custom data."""
    return f"camera {frame.camera}, {frame.index + 1:06d}.jpg"


def _struct(rows: list[dict]) -> np.ndarray:
    """Return a MATLAB struct array [1, n]."""
    out = np.empty((1, len(rows)), [(key, object) for key in rows[0]])
    for k, row in enumerate(rows):
        out[0, k] = tuple(row.values())
    return out


def _cell(items: list) -> np.ndarray:
    """Return a MATLAB cell array [n, 1]."""
    out = np.empty((len(items), 1), object)
    out[:, 0] = items
    return out


def _save(folder: str, name: str, value: np.ndarray, variable: str = "") -> None:
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    savemat(path, {variable or os.path.basename(name).removesuffix(".mat"): value})
    with open(path, "r+b") as file:  # scipy's header holds the time, but a seed fixes all bytes
        file.write(b"MATLAB 5.0 MAT-file, synthetic".ljust(116))


def _number(n: int) -> np.ndarray:
    return np.array([[n]], np.min_scalar_type(n))


def _locate(box: np.ndarray) -> np.ndarray:
    """Convert x1 y1 x2 y2 to [1, 4] integers x y w h: uint8 if possible, otherwise uint16, as in
    the real files."""
    x1, y1, x2, y2 = np.rint(box).astype(int)
    xywh = np.array([[x1, y1, max(x2 - x1, 1), max(y2 - y1, 1)]])
    return xywh.astype(np.uint8 if xywh.max() < 256 else np.uint16)


def _at(frame: SceneContent, box: np.ndarray) -> dict:
    return {"imname": cuhk_name(frame), "idlocate": _locate(box), "ishard": _number(0)}


def write_cuhk(folder: str, plan: Plan, boxes: Boxes, seed: int) -> None:
    """Write the annotation files of CUHK-SYSU: Images, pool, Train and the protocols."""
    folder = os.path.join(folder, "annotation")
    images = [
        {
            "imname": cuhk_name(f),
            "nAppear": _number(len(f.people)),
            "box": _struct(
                [{"idlocate": _locate(b), "ishard": _number(0)} for b in boxes[f.index]]
            ),
        }
        for f in plan.train + plan.gallery
    ]
    _save(folder, "Images.mat", _struct(images), "Img")
    _save(folder, "pool.mat", _cell([cuhk_name(f) for f in plan.gallery]))
    scenes: dict[int, list[dict]] = {}
    for frame in plan.train:
        for pid, box in zip(frame.people, boxes[frame.index]):
            if pid != NO_IDENTITY:
                scenes.setdefault(pid, []).append(_at(frame, box))
    train = [
        _struct([{"idname": f"p{pid}", "nAppear": _number(len(found)), "scene": _struct(found)}])
        for pid, found in sorted(scenes.items())
    ]
    _save(folder, "test/train_test/Train.mat", _cell(train))
    for size in SIZES:
        if size <= max(len(plan.gallery), GALLERY_SIZE):
            _save(folder, f"test/train_test/TestG{size}.mat", _test(plan, boxes, size, seed))


def _test(plan: Plan, boxes: Boxes, size: int, seed: int) -> np.ndarray:
    """Return the queries. The gallery of each has at most `size` images: matches first, then
    distractors."""
    rows, nothing = [], np.zeros((1, 0))
    for q, (own, place) in enumerate(plan.queries):
        rng = np.random.default_rng([seed, GALLERY, q])  # larger galleries contain the smaller ones
        pid = plan.gallery[own].people[place]
        others = [plan.gallery[g] for g in rng.permutation(len(plan.gallery)) if g != own]
        hits = [_at(f, boxes[f.index][f.people.index(pid)]) for f in others if pid in f.people]
        misses = [
            {"imname": cuhk_name(f), "idlocate": nothing, "ishard": nothing}
            for f in others
            if pid not in f.people
        ]
        query = _at(plan.gallery[own], boxes[plan.gallery[own].index][place]) | {
            "idname": f"p{pid}"
        }
        rows.append(
            {"Query": _struct([query]), "Gallery": _struct((hits + misses)[: max(size, len(hits))])}
        )
    return _struct(rows)


def write_prw(folder: str, plan: Plan, boxes: Boxes) -> None:
    """Write the annotation files of PRW: one for each frame, the frame lists and the queries."""

    def rows(frame: SceneContent) -> np.ndarray:  # [n, 5] id x y w h
        b = boxes[frame.index].astype(float)
        return np.column_stack([frame.people, b[:, :2], b[:, 2:] - b[:, :2]])

    for frame in plan.train + plan.gallery:
        _save(folder, f"annotations/{prw_name(frame)}.mat", rows(frame), "box_new")
    for split, frames in (("train", plan.train), ("test", plan.gallery)):
        names = _cell([prw_name(f).removesuffix(".jpg") for f in frames])
        _save(folder, f"frame_{split}.mat", names, f"img_index_{split}")
    lines = []
    for own, place in plan.queries:
        frame = plan.gallery[own]
        pid, *xywh = rows(frame)[place]
        lines.append(
            " ".join(
                [f"{pid:.0f}", *(f"{v:.8f}" for v in xywh), prw_name(frame).removesuffix(".jpg")]
            )
        )
    with open(os.path.join(folder, "query_info.txt"), "w", newline="") as file:
        file.write("".join(line + "\r\n" for line in lines))


def write_coco(folder: str, plan: Plan, boxes: Boxes, size: tuple[int, int]) -> None:
    """Write train.json, test.json and queries.json, the ids of annotations in test.json.

    Unlabelled people have no person_id.
    """
    ids: list[list[int]] = []
    for split, frames in (("train", plan.train), ("test", plan.gallery)):
        scenes = []
        for frame in frames:
            image = {
                "file_name": f"images/{coco_name(frame)}",
                "width": size[0],
                "height": size[1],
                "camera": frame.camera,
            }
            xywh = boxes[frame.index].astype(float)
            xywh[:, 2:] -= xywh[:, :2]
            named = [None if pid == NO_IDENTITY else f"p{pid}" for pid in frame.people]
            scenes.append((image, list(zip(xywh.round(2).tolist(), named))))
        ids = write_annotations(Path(folder, f"{split}.json"), scenes)
    queries = [ids[own][place] for own, place in plan.queries]
    write_text(json.dumps(queries), Path(folder, "queries.json"))
