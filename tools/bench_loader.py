"""Measure how many images per second one loader worker reads, and how many workers training needs.

    python -m tools.bench_loader --size 1920 1080 --steps 10 --batch 5

The images are generated JPEGs, or the JPEGs of --images FOLDER. They are read as in training, and
for comparison with Pillow's decoder instead of torchvision's.
"""

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from datasets.loaders import SceneDataset
from datasets.types import Scene
from tools.measure.machine import describe_machine
from utils.arguments import add_size, nonempty_path, positive, program_parser
from utils.errors import UserError, run_main
from utils.media import picture_size


def write_scenes(folder: Path, size: tuple[int, int], count: int = 8) -> None:
    """Write JPEGs of `size` (width, height) with as much detail as photographs: smooth, with some
    noise."""
    random = np.random.default_rng(0)
    for i in range(count):
        coarse = random.integers(0, 256, (size[1] // 32 + 2, size[0] // 32 + 2, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), float)
        noisy = smooth + random.normal(0, 6, smooth.shape)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{i}.jpg", quality=90)


def rate(read: Callable[[int], object], count: int, seconds: float = 3) -> float:
    """Return images per second of this process's CPU time.

    Args:
        read: called with 0..count-1 repeatedly.
    """
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        read(done % count)
        done += 1
    return done / (time.process_time() - start)


def main() -> None:
    parser = program_parser(__doc__)
    pictures = parser.add_mutually_exclusive_group()
    add_size(pictures, (1920, 1080), "the generated JPEGs")
    pictures.add_argument(
        "--images",
        type=nonempty_path,
        metavar="FOLDER",
        help="read the .jpg files of this folder instead",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        default=10,
        metavar="N",
        help="training steps per second (default: 10)",
    )
    parser.add_argument(
        "--batch",
        type=positive,
        default=5,
        metavar="N",
        help="images per training step (default: 5)",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same as in a loader worker
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            write_scenes(Path(folder), args.size)
        paths = sorted((args.images or Path(folder)).glob("*.jpg"))
        if not paths:
            raise UserError(
                f"--images {args.images}: expected a folder with .jpg files, found none"
            )
        box, identity = np.array([[1, 2, 30, 40]], np.float32), np.array([1])
        scenes = [Scene(path.name, str(path), box, identity, 0) for path in paths]
        data = SceneDataset(scenes, train=True)
        rows = []
        for name, fast in (("as in training", True), ("with Pillow only", False)):
            with nullcontext() if fast else patch("utils.media._read_jpeg", return_value=None):
                found = rate(data.__getitem__, len(paths))
            rows.append([name, found, math.ceil(args.steps * args.batch / found)])
        width, height = picture_size(paths[0], upright=False)
    print(f"{describe_machine(torch.device('cpu'))}\nJPEGs, the first of {width}×{height} pixels")
    workers = f"workers for {args.steps} steps/s of {args.batch} images"
    print(tabulate(rows, ["read", "images/s per worker", workers], floatfmt=".1f"))


if __name__ == "__main__":
    run_main(main)
