"""Synthetic person search data in the form of CUHK-SYSU, PRW or custom data, determined by a seed.

The modules: looks (appearance), figures and sketch (drawing of people from any side), places,
things and stage (surroundings), scenes (the image that a camera records), plan (who appears when),
layouts (the annotation files), output (the folder and its record), videos (cameras over one place).
A frame depends on the seed and its index only, not on the number of workers or their order.
"""

import functools
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.synthetic.layouts import (
    coco_name,
    cuhk_name,
    prw_name,
    write_coco,
    write_cuhk,
    write_prw,
)
from datasets.synthetic.looks import Look
from datasets.synthetic.output import (
    VERSION,
    check_common,
    in_parallel,
    is_finished,
    write_record,
)
from datasets.synthetic.plan import make_plan
from datasets.synthetic.scenes import FRAME, SceneContent, draw_scene
from utils.errors import UserError
from utils.files import make_folder

FOLDERS = {
    "cuhk": ("CUHK-SYSU", "Image/SSM", cuhk_name),
    "prw": ("PRW", "frames", prw_name),
    "coco": ("COCO", "images", coco_name),
}


def write_dataset(
    out: str,
    layout: str = "cuhk",
    identities: int = 150,
    frames: int = 500,
    queries: int = 50,
    size: tuple[int, int] = (416, 256),
    seed: int = 0,
    difficulty: float = 1.0,
    workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Draw a dataset into the folder `out`.

    A third of the identities and a fifth of the frames are for the test. A folder that an
    interrupted call has left is written anew.

    Args:
        out: The folder.
        layout: "cuhk" (out/CUHK-SYSU), "prw" (out/PRW), "both" (the same scenes in both) or "coco"
            (out/COCO, the form of custom data).
        identities: Number of people with an identity.
        frames: Number of images.
        queries: Number of people to search for.
        size: Width and height of an image in pixels.
        seed: Determines everything that is drawn.
        difficulty: Scales the effects of the cameras and the share of look-alikes. With 0 there are
            none; 0.2 suits minutes of training from random weights, 1 hours.
        workers: Number of processes; None: one for each core.
        progress: Whether a progress bar is shown.

    Returns:
        False if the folder already has this dataset, complete.

    Raises:
        UserError: The folder has other content, or the numbers do not fit together.
    """
    layouts = {"both": ("cuhk", "prw")}.get(layout, (layout,))
    if not set(layouts) <= FOLDERS.keys():
        raise UserError(f"--layout: expected cuhk, prw, both or coco, found {layout!r}")
    check_common(size, workers, difficulty)
    plan = make_plan(identities, frames, queries, seed, alike=0.55 * difficulty)
    asked = {
        "version": VERSION,
        "layout": layout,
        "identities": identities,
        "frames": frames,
        "queries": queries,
        "size": list(size),
        "seed": seed,
        "difficulty": difficulty,
    }
    if is_finished(out, asked):
        return False
    roots = {name: os.path.join(out, FOLDERS[name][0]) for name in layouts}
    for name, root in roots.items():
        make_folder(Path(root, FOLDERS[name][1]), "--out")
    write_record(out, asked, finished=False)
    every = plan.train + plan.gallery
    draw = functools.partial(
        _draw, looks=plan.looks, size=size, seed=seed, hard=difficulty, roots=roots
    )
    boxes = list(
        tqdm(in_parallel(draw, every, workers), "drawing scenes", len(every), disable=not progress)
    )
    if "cuhk" in roots:
        write_cuhk(roots["cuhk"], plan, boxes, seed)
    if "prw" in roots:
        write_prw(roots["prw"], plan, boxes)
    if "coco" in roots:
        write_coco(roots["coco"], plan, boxes, size)
    write_record(out, asked, finished=True)
    return True


def _draw(
    frame: SceneContent,
    looks: list[Look],
    size: tuple[int, int],
    seed: int,
    hard: float,
    roots: dict[str, str],
) -> np.ndarray:
    """Draw and save one frame. Return its boxes [n, 4] x1 y1 x2 y2 in pixels."""
    image, boxes = draw_scene(frame, looks, size, seed, hard)
    quality = int(np.random.default_rng([seed, FRAME, frame.index, 1]).integers(76, 93))
    for name, root in roots.items():
        _, folder, name_of = FOLDERS[name]
        image.save(os.path.join(root, folder, name_of(frame)), quality=quality)
    return boxes
