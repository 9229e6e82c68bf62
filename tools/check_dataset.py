"""Walk a dataset before a long run: counts, irregularities, and what would break the run.

python -m tools.check_dataset --cfg configs/... [KEY VALUE ...]    (exit code 1: it would break)
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from configs.defaults import load_cfg
from datasets import UNLABELED, Scene, SearchDataset, load_dataset
from datasets.loaders import read_image
from utils.errors import UserError, run_main

SHOWN = 10  # of each list of findings
SLACK = 1  # pixels that the rounding of a box explains


def image_size(scene: Scene) -> tuple[int, int] | str:
    """(width, height), or what training and evaluation would say of the image."""
    try:
        height, width = read_image(scene.path, scene.upright).shape[1:]
        return width, height
    except UserError as error:
        return str(error)


def walk(scenes: list[Scene], title: str, workers: int) -> tuple[np.ndarray, list[str]]:
    """[n, 2] width and height, infinite where unreadable; and what is wrong with the others."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(tqdm(pool.map(image_size, scenes), title, len(scenes), unit="image"))
    unread = (np.inf, np.inf)
    sizes = np.array([unread if isinstance(f, str) else f for f in found], float).reshape(-1, 2)
    return sizes, [f for f in found if isinstance(f, str)]


def survey(scenes: list[Scene], sizes: np.ndarray) -> dict[str, int]:
    """Counts of one split."""
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
        "identities": len(images_of),
        "identities in one image only": int((images_of == 1).sum()),
        "images with an identity twice": len(np.unique(seen[times > 1, 0])),
        "images with unlabelled people only": int(((np.array(lengths) > 0) & ~labelled).sum()),
        "images without people": int((np.array(lengths) == 0).sum()),
        "boxes listed twice": len(rows) - len(np.unique(rows, axis=0)),
        f"boxes over {SLACK} px beyond the image edge": int(
            (boxes[:, 2:] > size + SLACK).any(1).sum()
        ),
        "boxes outside the image": int((boxes[:, :2] >= size).any(1).sum()),
    }


def check_protocols(dataset: SearchDataset, problems: list[str]) -> list[list]:
    """Every protocol there are files for: name, queries, queries without a match."""
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


def queries_outside(dataset: SearchDataset, sizes: np.ndarray) -> list[str]:
    return [
        f"query {i}: box {q.box.tolist()} lies outside {dataset.gallery[q.scene].name}"
        for i, q in enumerate(dataset.queries)
        if (q.box[:2] >= sizes[q.scene]).any()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", metavar="FILE", help="YAML config (default: the defaults)")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.cfg, args.overrides)
    try:
        dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT)
    except UserError as error:
        print(f"would break a run: {error}", file=sys.stderr)
        return 1

    splits = {"train": dataset.train, "test": dataset.gallery}
    counts, problems, remarks = {}, [], []
    for split, scenes in splits.items():
        sizes, damaged = walk(scenes, split, cfg.INPUT.NUM_WORKERS)
        counts[split] = survey(scenes, sizes) | {"images missing or damaged": len(damaged)}
        skipped = split == "train" and cfg.INPUT.SKIP_DAMAGED and len(damaged) < len(scenes)
        (remarks if skipped else problems).extend(damaged)
    problems += queries_outside(dataset, sizes)
    problems += [
        f"no {what}"
        for what, there in (
            ("training images", dataset.train),
            ("training identities", dataset.num_pids),
        )
        if not there
    ]
    protocols = check_protocols(dataset, problems)

    print(
        tabulate(
            [[row, *(counts[split][row] for split in splits)] for row in counts["train"]],
            [f"{dataset.name} in {dataset.root}", *splits],
        ),
        end="\n\n",
    )
    if dataset.dropped:
        print(tabulate(sorted(dataset.dropped.items()), ["in the annotation files", ""]), "\n")
    print(tabulate(protocols, ["protocol", "queries", "without a match", "matches"]), "\n")
    for title, findings in (("skipped in training", remarks), ("would break a run", problems)):
        for finding in findings[:SHOWN]:
            print(f"{title}: {finding}")
        if len(findings) > SHOWN:
            print(f"{title}: and {len(findings) - SHOWN} more")
    if not problems:
        print("nothing that would break a run")
    return 1 if problems else 0


if __name__ == "__main__":
    run_main(main)
