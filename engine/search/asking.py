"""Whom to search for, and in what: the demo's arguments, and what is wrong with them."""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from engine.evaluation.records import thresholds_of
from utils.errors import UserError
from utils.files import read_text

DEMO = Path(__file__).resolve().parents[2] / "demo_imgs"
TOP = 8  # matches that get a rank


@dataclass
class QueryArgument:
    """A --query, and the --box or --person that came after it."""

    path: Path
    box: list[float] | None = None
    person: int | None = None


class AddQuery(argparse.Action):
    def __call__(self, parser, args, value, option=None):
        args.query = [*(args.query or []), QueryArgument(value)]


class OfQuery(argparse.Action):
    """--box and --person belong to the --query before them."""

    def __call__(self, parser, args, value, option=None):
        if not args.query or args.query[-1].box or args.query[-1].person is not None:
            said = " ".join(f"{v:g}" for v in (value if isinstance(value, list) else [value]))
            raise UserError(f"{option} {said}: expected once, after the --query it belongs to")
        setattr(args.query[-1], self.dest, value)


def parse_args(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cfg", required=True, metavar="FILE", help="YAML config")
    add("--ckpt", required=True, metavar="FILE", help="checkpoint of that config")
    add(
        "--query",
        type=Path,
        action=AddQuery,
        metavar="IMAGE",
        help="picture with the person to look for (default: demo_imgs/query.json)",
    )
    add(
        "--box",
        type=float,
        nargs=4,
        action=OfQuery,
        metavar=("X1", "Y1", "X2", "Y2"),
        help="where the person stands in it, pixels",
    )
    add("--person", type=int, action=OfQuery, metavar="N", help="the person with this number")
    add("--join", choices=("mean", "max"), default="mean", help="several queries (default: mean)")
    searched = parser.add_mutually_exclusive_group()
    searched.add_argument(
        "--gallery",
        type=Path,
        default=DEMO,
        metavar="SOURCE",
        help="what to search: a folder with its sub-folders, a picture or a video (default: "
        "demo_imgs)",
    )
    searched.add_argument(
        "--index", type=Path, metavar="FOLDER", help="or: an index of tools.index_gallery"
    )
    add(
        "--every",
        type=float,
        default=0,
        metavar="SECONDS",
        help="one frame of the gallery's videos for each so many seconds (default: every frame)",
    )
    add("--top", type=int, default=TOP, metavar="N", help=f"matches (default: {TOP})")
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument(
        "--min-similarity", type=float, metavar="S", help="only matches as similar as this"
    )
    cut.add_argument(
        "--false-alarms",
        type=float,
        metavar="SHARE",
        help="or: as similar as let so many queries have a false alarm in the checkpoint's "
        "evaluation, 0.01, 0.05 or 0.1",
    )
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the results go (default: OUTPUT_DIR/demo)",
    )
    add("overrides", nargs="*", metavar="KEY VALUE", help="config values, for example DEVICE cpu")
    return parser.parse_intermixed_args()


def default_query() -> QueryArgument:
    """The query that comes with the demo pictures."""
    path = DEMO / "query.json"
    if not path.is_file():
        raise UserError(f"--query: expected IMAGE and --box X1 Y1 X2 Y2; there is no {path} either")
    try:
        query = json.loads(read_text(path, "--query"))
        x1, y1, x2, y2 = map(float, query["box"])
        return QueryArgument(DEMO / query["image"], [x1, y1, x2, y2])
    except (ValueError, KeyError, TypeError, RecursionError):
        expected = '{"image": NAME, "box": [X1, Y1, X2, Y2]}'
        raise UserError(f"{path}: expected {expected}") from None


def least_similarity(args: argparse.Namespace) -> float:
    """From which on a match counts."""
    if args.min_similarity is not None:
        return args.min_similarity
    if args.false_alarms is None:
        return -float("inf")
    known = thresholds_of(args.ckpt)
    if known is None:
        raise UserError(
            f"--false-alarms {args.false_alarms:g}: no evaluation of --ckpt {args.ckpt} has found "
            "thresholds; evaluate it with --eval, or give --min-similarity"
        )
    found = {float(rate): similarity for rate, similarity in known.items()}
    if args.false_alarms not in found:
        rates = ", ".join(known)
        raise UserError(f"--false-alarms {args.false_alarms:g}: expected one of {rates}")
    return found[args.false_alarms]


def check(args: argparse.Namespace, out: Path) -> None:
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1")
    if not 0 <= args.every < float("inf"):
        raise UserError(f"--every {args.every:g}: expected seconds, 0 or more")
    if args.every and args.index:
        raise UserError("--every: of --gallery's videos; an index is made with its own")
    if args.min_similarity is not None and math.isnan(args.min_similarity):
        raise UserError("--min-similarity nan: expected a number")
    if not args.index and out.resolve() == args.gallery.resolve():
        raise UserError(f"--out {out}: is the gallery; expected another folder")
