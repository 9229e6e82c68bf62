"""Annotate the people of unlabelled pictures and videos by trained networks, as custom data.

python -m tools.pseudo_label --detector FILE --reid FILE SOURCE [SOURCE ...] --out data/pseudo

Sources are pictures, folders, and videos. OUT gets the pictures, train.json with the people and the
score of each, and an empty test.json; train with it as INPUT.EXTRA_TRAIN. In a video, each
tracklet of two or more boxes is an identity; all other people are unlabelled.
"""

import argparse
import math
from pathlib import Path

import torch
from tabulate import tabulate

from configs.defaults import load_cfg
from datasets.coco_files import write_annotations
from engine.default_network import network_of, parse_sources
from engine.device import choose_device
from engine.distributed import own_device
from engine.search.pseudo_labels import PeopleFinder, PseudoLabelWriter
from engine.search.searcher import Searcher
from engine.teachers.detectors import Detector, read_detector
from engine.teachers.sources import is_own_network, read_reid_teacher
from utils.arguments import nonempty, nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import expect_new, folder_beside
from utils.sources import PICTURE, VIDEO, MediaFile, print_left_out, told, walk

DETECTOR, REID = "--detector", "--reid"
EVERY, MIN_SCORE = 0.5, 0.1
USED = ("DEVICE", "INPUT.MAX_PIXELS")  # config keys that other programs' networks depend on


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="pictures, folders and videos; also config values, as KEY VALUE: DEVICE cpu",
    )
    add(
        DETECTOR,
        required=True,
        type=nonempty,
        metavar="FILE",
        help="a network of this project, an .onnx file with a .yaml beside it (docs/teachers.md), "
        "or torchvision:NAME[=FILE]",
    )
    add(
        REID,
        type=nonempty,
        metavar="FILE",
        help="as DISTILLER.REID_TEACHER, for videos (default: a detector that is a network of this "
        "project)",
    )
    add("--out", required=True, type=nonempty_path, metavar="FOLDER", help="a new folder")
    add(
        "--every",
        type=float,
        metavar="SECONDS",
        help=f"take one frame of a video every SECONDS seconds; 0: every frame (default: {EVERY})",
    )
    add(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        metavar="S",
        help="leave out boxes with a lower score (default: %(default)s)",
    )
    add(
        "--min-similarity",
        type=float,
        metavar="S",
        help="tracklets of a video with such a mean similarity are one person (default: each is "
        "one)",
    )
    args = parse_sources(parser, Path)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    if args.every is not None and not 0 <= args.every < math.inf:
        raise UserError(f"--every: expected seconds, 0 or more, found {args.every}")
    if not 0 < args.min_score <= 1:
        raise UserError(f"--min-score: expected above 0 and at most 1, found {args.min_score}")
    if args.min_similarity is not None and not 0 <= args.min_similarity <= 1:
        raise UserError(f"--min-similarity: expected 0 to 1, found {args.min_similarity}")
    expect_new(args.out, "--out")


def check_effects(args: argparse.Namespace) -> None:
    """Refuse the options that have no effect on pictures."""
    for option, value in (
        (REID, args.reid),
        ("--every", args.every),
        ("--min-similarity", args.min_similarity),
    ):
        if value is not None:
            raise UserError(f"{option}: expected with a video, found with pictures")


def find(sources: list[Path], out: Path) -> list[MediaFile]:
    """Return the pictures and videos of the sources."""
    media, left = walk(sources, "SOURCE", (PICTURE, VIDEO), out)
    if not media:
        raise UserError("; ".join(["SOURCE: expected pictures or videos, found none", *told(left)]))
    print_left_out(left)
    return media


def load(args: argparse.Namespace, videos: bool) -> PeopleFinder:
    """Load the networks. videos: whether people are linked, so that embeddings are needed."""
    cfg = load_cfg(None, args.overrides)
    device = own_device(choose_device(cfg.DEVICE))
    detector: Detector
    if own := is_own_network(args.detector, device, DETECTOR):
        cfg, checkpoint = network_of(None, args.detector, args.overrides, DETECTOR)
        detector = Searcher.load(cfg, checkpoint)
    else:
        check_overrides(args.overrides)
        detector = read_detector(args.detector, DETECTOR, device)
    if videos and not (own or args.reid):
        raise UserError(
            f"{REID}: expected a network that embeds people, since the people of videos are linked "
            "by it, found none"
        )
    reid = read_reid_teacher(args.reid, device, REID) if args.reid else None
    return PeopleFinder(detector, reid, args.min_score, cfg.INPUT.MAX_PIXELS)


def check_overrides(overrides: list[str]) -> None:
    """Refuse config values that have no effect on networks of other programs."""
    if unused := [key for key in overrides[::2] if key not in USED]:
        raise UserError(
            f"override {unused[0]}: expected {' or '.join(USED)}, since {DETECTOR} is a network of "
            "another program"
        )


def report(writer: PseudoLabelWriter) -> None:
    people = [row for _, rows in writer.scenes for row in rows]
    names = [name for _, name, _ in people if name is not None]
    rows = [
        ["images", len(writer.scenes)],
        ["people", len(people)],
        ["  with an identity", len(names)],
        ["identities", len({*names})],
        ["left out: images in which nobody was found", writer.empty],
    ]
    print(tabulate(rows, tablefmt="plain"))


@torch.inference_mode()
def main() -> None:
    args = parse_args()
    media = find(args.sources, args.out)
    videos = any(medium.kind == VIDEO for medium in media)
    if not videos:
        check_effects(args)
    finder = load(args, videos)
    every = EVERY if args.every is None else args.every
    with folder_beside(args.out, "--out") as out:
        writer = PseudoLabelWriter(out, media, finder, every, args.min_similarity)
        for medium in media:
            writer.add(medium)
        print_left_out(writer.left)
        if not writer.scenes:
            raise UserError(
                f"{DETECTOR} {args.detector}: expected people in the sources, found nobody"
            )
        write_annotations(out / "train.json", writer.scenes)
        write_annotations(out / "test.json", [])
    report(writer)


if __name__ == "__main__":
    run_main(main)
