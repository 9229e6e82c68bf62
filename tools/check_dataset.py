"""Check a dataset before a long run: counts, irregularities, and errors that would end the run.

python -m tools.check_dataset --cfg configs/... [KEY VALUE ...]    (exit code 1: there are errors)

Custom data without test images, as tools.pseudo_label writes them, are checked as data for
INPUT.EXTRA_TRAIN: they need no queries and no identities.
"""

import functools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
from tabulate import tabulate
from tqdm import tqdm
from yacs.config import CfgNode

from configs.defaults import load_cfg
from datasets import UNLABELED, Scene, SearchDataset, load_dataset
from datasets.loaders import scene_pixels
from engine.evaluation.evaluate import check_settings
from engine.evaluation.extract import check_queries, queries_of, query_boxes
from utils.arguments import add_overrides, program_parser
from utils.errors import UserError, run_main
from utils.media import PictureError, orientation

SHOWN = 10  # of each list of findings
SLACK = 1  # pixels that the rounding of a box explains


@dataclass(frozen=True)
class ImageCheck:
    """The findings on one image.

    Attributes:
        size: (width, height); infinite if training and evaluation cannot read the image.
        problem: the error that they would raise then.
        orientation: the EXIF orientation.
    """

    size: tuple[float, float] = (np.inf, np.inf)
    problem: UserError | None = None
    orientation: int = 1


@dataclass
class Findings:
    """The findings on a dataset.

    Attributes:
        counts: of each split, by their title.
        remarks: lines about what a run accepts.
        skipped: the images that INPUT.SKIP_DAMAGED leaves out.
        problems: what would break a run.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def look_at(scene: Scene, max_pixels: int) -> ImageCheck:
    try:
        height, width = scene_pixels(scene, max_pixels).shape[1:]
        return ImageCheck((width, height), None, orientation(scene.path))
    except UserError as error:
        return ImageCheck(problem=error)


def walk(
    scenes: list[Scene], title: str, workers: int, max_pixels: int
) -> tuple[list[ImageCheck], np.ndarray]:
    """Read all images. Return an ImageCheck of each, and their sizes [n, 2]."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        looks = list(
            tqdm(pool.map(look_at, scenes, repeat(max_pixels)), title, len(scenes), unit="image")
        )
    return looks, np.array([look.size for look in looks], float).reshape(-1, 2)


def turned(scenes: list[Scene], looks: list[ImageCheck]) -> list[str]:
    """Return lines about the images with an EXIF orientation."""
    return [
        f"{scene.path}: EXIF orientation {look.orientation}, "
        + ("applied" if scene.upright else "ignored, since boxes refer to stored pixels")
        for scene, look in zip(scenes, looks)
        if look.orientation > 1
    ]


def survey(scenes: list[Scene], sizes: np.ndarray, min_score: float) -> dict[str, int]:
    """Return the counts of one split. min_score: INPUT.MIN_SCORE."""
    lengths = [len(s.boxes) for s in scenes]
    boxes = np.concatenate([s.boxes for s in scenes] or [np.zeros((0, 4))])
    pids = np.concatenate([s.pids for s in scenes] or [np.zeros(0, np.int64)])
    image = np.repeat(np.arange(len(scenes)), lengths)
    size = sizes[image]
    known = pids != UNLABELED
    rows = np.column_stack([image, pids, boxes])
    seen, times = np.unique(np.column_stack([image, pids])[known], axis=0, return_counts=True)
    _, images_of = np.unique(seen[:, 1], return_counts=True)
    labelled = np.bincount(image[known], minlength=len(scenes)) > 0
    return {
        "images": len(scenes),
        "boxes": len(boxes),
        "boxes unlabelled": int((~known).sum()),
        "boxes with a score under 1": sum(
            int((s.scores < 1).sum()) for s in scenes if s.scores is not None
        ),
        "boxes ignored in training": sum(int((~s.people(min_score)).sum()) for s in scenes),
        "identities": len(images_of),
        "identities in one image only": int((images_of == 1).sum()),
        "images with an identity twice": len(np.unique(seen[times > 1, 0])),
        "images with unlabelled people only": int(((np.array(lengths) > 0) & ~labelled).sum()),
        "images without people": int((np.array(lengths) == 0).sum()),
        "boxes listed twice": len(rows) - len(np.unique(rows, axis=0)),
        "boxes under 1 px wide or high": int((boxes[:, 2:] - boxes[:, :2] < 1).any(1).sum()),
        f"boxes over {SLACK} px beyond the image edge": int(
            (boxes[:, 2:] > size + SLACK).any(1).sum()
        ),
        "boxes outside the image": int((boxes[:, :2] >= size).any(1).sum()),
    }


def check_protocols(dataset: SearchDataset, problems: list[str]) -> list[list]:
    """Return the name, queries and queries without a match of each protocol whose files exist."""
    table = []
    for choice in tqdm(dataset.choices(), "protocols", unit="protocol"):
        try:
            protocol = dataset.protocol(**choice)
        except UserError as error:
            problems.append(str(error))
            continue
        table.append(
            [protocol.name, len(protocol.queries), protocol.unmatched, len(protocol.query)]
        )
    return table


def refusals(dataset: SearchDataset, sizes: np.ndarray, cfg: CfgNode) -> list[str]:
    """Return which annotations training and evaluation would refuse.

    Args:
        sizes: of the gallery, [n, 2].
    """
    asked = queries_of(dataset)
    checks: list[Callable[[], object]] = [
        lambda: check_settings(dataset, cfg),
        dataset.check_training,
        *(
            functools.partial(
                check_queries, dataset.gallery[i], query_boxes(dataset, asked[i]), *sizes[i]
            )
            for i in asked
        ),
    ]
    found = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(str(error))
    return found


def check_images(dataset: SearchDataset, cfg: CfgNode, found: Findings) -> np.ndarray:
    """Read all images, and return the sizes of the gallery's, [n, 2]."""
    for split, scenes in (("train", dataset.train), ("test", dataset.gallery)):
        looks, sizes = walk(scenes, split, cfg.INPUT.NUM_WORKERS, cfg.INPUT.MAX_PIXELS)
        bad = [look.problem for look in looks if look.problem]
        found.counts[split] = survey(scenes, sizes, cfg.INPUT.MIN_SCORE) | {
            "images missing or damaged": len(bad)
        }
        may_skip = split == "train" and cfg.INPUT.SKIP_DAMAGED and len(bad) < len(scenes)
        for error in bad:
            skips = may_skip and isinstance(error, PictureError)
            (found.skipped if skips else found.problems).append(str(error))
        found.remarks += turned(scenes, looks)
    return sizes


def report(dataset: SearchDataset, protocols: list[list], found: Findings) -> None:
    """Print the tables and the findings."""
    splits = found.counts
    print(
        tabulate(
            [[row, *(counts[row] for counts in splits.values())] for row in splits["train"]],
            [f"{dataset.name} in {dataset.root}", *splits],
        ),
        end="\n\n",
    )
    if dataset.dropped:
        print(tabulate(sorted(dataset.dropped.items()), ["in the annotation files", ""]), "\n")
    if protocols:
        print(tabulate(protocols, ["protocol", "queries", "without a match", "matches"]), "\n")
    for title, findings in (
        ("remark", found.remarks),
        ("skipped in training", found.skipped),
        ("would break a run", list(dict.fromkeys(found.problems))),
    ):
        for finding in findings[:SHOWN]:
            print(f"{title}: {finding}")
        if len(findings) > SHOWN:
            print(f"{title}: and {len(findings) - SHOWN} more")


def main() -> int:
    parser = program_parser(__doc__)
    parser.add_argument("--cfg", metavar="FILE", help="YAML config (default: the defaults)")
    add_overrides(parser, "config values, for example INPUT.DATA_ROOT data/own")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.cfg, args.overrides)
    try:
        dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT, cfg.INPUT.EXTRA_TRAIN)
    except UserError as error:
        print(f"would break a run: {error}", file=sys.stderr)
        return 1
    found, protocols, use = Findings(), [], ""
    sizes = check_images(dataset, cfg, found)
    if dataset.train and not (dataset.gallery or cfg.INPUT.EXTRA_TRAIN):
        use = " that has these data as INPUT.EXTRA_TRAIN"
        found.remarks.append(
            f"{dataset.root}: no test images, which a run needs of INPUT.DATA_ROOT"
        )
    else:
        found.problems += refusals(dataset, sizes, cfg)
        protocols = check_protocols(dataset, found.problems)
    report(dataset, protocols, found)
    if not found.problems:
        print(f"nothing that would break a run{use}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    run_main(main)
