"""Rendered people as custom data. A seed determines everything.

The modules: plan (who appears when); looks, poses, body, clothes, bags and people (what people look
like); places, outdoors and rooms, built of plants, furniture, things and vehicles on a site;
weather (the light of a moment); staging (where people and cameras stand); moments (a scene through
its cameras); meshes, materials, noise, light, raycast, render and faults (the image); labels and
annotations (the boxes).
A frame depends on the seed and its number only, not on the number of workers or their order.
"""

import functools
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from datasets.rendered.annotations import PARTS, annotate, frame_name, part_path, write_part
from datasets.rendered.body import check_packages, load_body
from datasets.rendered.moments import render_moment
from datasets.rendered.plan import Moment, make_plan
from datasets.synthetic.output import (
    LONGEST_SIDE,
    check_size,
    in_parallel,
    is_finished,
    write_record,
)
from utils.errors import UserError
from utils.files import make_folder, written_beside

VERSION = 4  # increases when the same parameters would give other images
RECORD = "rendered.json"


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
    """Render a dataset into folder `out`, and return whether there was something to do.

    A third of the identities and a fifth of the frames are for the test. Finished frames of an
    interrupted run are kept.

    Args:
        out: a new folder, or one that an interrupted run with the same parameters left.
        cameras: how many see a moment at the same time.
        size: width and height of a frame in pixels.
        min_visible, min_height: who is labelled, see labels.keep.
        workers: processes, one per core if None.

    Raises:
        UserError: a parameter is out of its range, a package is missing, or `out` holds something
            else.
    """
    check_size(size, ("--size", "--size"))
    limits = {
        "min-visible": (min_visible, 0, 1),
        "min-height": (min_height, 1, LONGEST_SIDE),
        "workers": (1 if workers is None else workers, 1, 1024),
    }
    for name, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(f"--{name}: expected {low} to {high}, found {value}")
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
    if is_finished(out, asked, RECORD):
        return False
    check_packages()
    for folder in ("images", PARTS):
        make_folder(Path(out, folder), "--out")
    write_record(out, asked, False, RECORD)
    load_body()  # the first creation takes minutes: once, before several processes need it
    left = [m for m in plan.train + plan.test if not part_path(out, m).exists()]
    work = functools.partial(_work, out=out, cameras=cameras, size=size, seed=seed)
    with tqdm(desc="rendering", unit="frame", total=frames, disable=not progress) as bar:
        bar.update(frames - sum(moment.cameras for moment in left))
        for done in in_parallel(work, left, workers, chunk=1):
            bar.update(done)
    annotate(out, {"train": plan.train, "test": plan.test}, size, min_visible, min_height)
    write_record(out, asked, True, RECORD)
    return True


def _work(moment: Moment, out: str, cameras: int, size: tuple[int, int], seed: int) -> int:
    """Render and save a moment's frames, and then their labels. Return the number of frames."""
    torch.set_num_threads(1)
    shown = []
    for number, (image, quality, people) in enumerate(render_moment(moment, cameras, size, seed)):
        with written_beside(Path(out, frame_name(moment, number))) as file:
            Image.fromarray(image).save(file, "JPEG", quality=quality)
        shown.append(people)
    write_part(out, moment, shown)
    return moment.cameras
