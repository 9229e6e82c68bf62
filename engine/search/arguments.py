"""The command line arguments of the demo, and checks of them."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cameras.times import seconds_of
from engine.checkpoint import Checkpoint
from engine.default_network import add_network_options
from engine.evaluation.records import thresholds_of
from engine.index.gallery_index import folder_of, index_place
from engine.index.records import PersonFilter
from utils.arguments import add_overrides, nonempty_path, program_parser
from utils.errors import UserError
from utils.files import read_text

DEMO = Path(__file__).resolve().parents[2] / "demo_imgs"
TOP = 8  # default number of matches


@dataclass
class QueryArgument:
    """The value of --query with those of the --box or --person options after it.

    Attributes:
        option: what precedes the path on the command line, for messages.
        choice: what chooses a person after the path; {} stands for the number.
    """

    path: Path
    box: list[float] | None = None
    person: int | None = None
    option: str = "--query "
    choice: str = " --person {}"

    def __str__(self) -> str:
        return f"{self.option}{self.path}"


class AddQuery(argparse.Action):
    """Action of --query: add a QueryArgument."""

    def __call__(self, parser, args, value, option=None):
        args.query = [*(args.query or []), QueryArgument(value)]


class OfQuery(argparse.Action):
    """Action of --box and --person: complete the last QueryArgument."""

    def __call__(self, parser, args, value, option=None):
        if not args.query or args.query[-1].box or args.query[-1].person is not None:
            found = " ".join(f"{v:g}" for v in (value if isinstance(value, list) else [value]))
            raise UserError(f"{option} {found}: expected once, after the --query it belongs to")
        setattr(args.query[-1], self.dest, value)


def parse_args(description: str | None) -> argparse.Namespace:
    """Parse the demo's command line.

    Args:
        description: the text of --help.
    """
    parser = program_parser(description)
    add = parser.add_argument
    add_network_options(parser)
    _add_queries(parser)
    _add_sources(parser)
    add("--top", type=int, default=TOP, metavar="N", help=f"number of matches (default: {TOP})")
    add_filters(parser)
    add(
        "--persons",
        action="store_true",
        help="show the best match of each person, with the person's number from tools.identities "
        "(0: no number yet)",
    )
    add_limits(parser, "lowest similarity of a match (default: none)")
    add(
        "--out",
        type=nonempty_path,
        metavar="FOLDER",
        help="output folder (default: OUTPUT_DIR/demo)",
    )
    add_overrides(parser, "config values, for example DEVICE cpu")
    return parser.parse_intermixed_args()


def _add_queries(parser: argparse.ArgumentParser) -> None:
    """Add the options --query, --box, --person and --join."""
    add = parser.add_argument
    add(
        "--query",
        type=nonempty_path,
        action=AddQuery,
        metavar="IMAGE",
        help="picture of the query person (default: demo_imgs/query.json)",
    )
    add(
        "--box",
        type=float,
        nargs=4,
        action=OfQuery,
        metavar=("X1", "Y1", "X2", "Y2"),
        help="box of the query person in this picture, in pixels",
    )
    add(
        "--person",
        type=int,
        action=OfQuery,
        metavar="N",
        help="number of the query person in this picture, instead of --box",
    )
    add(
        "--join",
        choices=("mean", "max"),
        default="mean",
        help="similarity to several queries: their mean or their maximum (default: mean)",
    )


def _add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options --gallery or --index, and --every."""
    searched = parser.add_mutually_exclusive_group()
    searched.add_argument(
        "--gallery",
        type=nonempty_path,
        default=DEMO,
        metavar="SOURCE",
        help="pictures to search: a folder with its subfolders, a picture or a video (default: "
        "demo_imgs)",
    )
    searched.add_argument(
        "--index",
        type=index_place,
        metavar="PLACE",
        help="search an index of tools.index_gallery: folder, FILE.db or http://HOST:PORT[/DATABASE]",
    )
    add_every(parser)


def add_every(parser: argparse.ArgumentParser) -> None:
    """Add the option --every; see `check_every`."""
    parser.add_argument(
        "--every",
        type=float,
        default=0,
        metavar="SECONDS",
        help="take one frame of a video every SECONDS seconds (default: every frame)",
    )


def check_every(every: float) -> None:
    if not 0 <= every < math.inf:
        raise UserError(f"--every {every}: expected seconds, 0 or more")


def add_limits(parser: argparse.ArgumentParser, similarity: str) -> None:
    """Add the options --min-similarity or --false-alarms; see `check_min_similarity`.

    Args:
        similarity: the text of --help on --min-similarity.
    """
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument("--min-similarity", type=float, metavar="S", help=similarity)
    cut.add_argument(
        "--false-alarms",
        type=float,
        metavar="SHARE",
        help="take --min-similarity from the checkpoint's evaluation: the similarity at which this "
        "share of queries has a false alarm; 0.01, 0.05 or 0.1",
    )


def check_min_similarity(value: float | None) -> None:
    if value is not None and math.isnan(value):
        raise UserError("--min-similarity nan: expected a number")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options --camera, --after and --before."""
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME",
        help="only people seen by this camera, or in the video or picture of this name; may be "
        "repeated",
    )
    for option, what in (("--after", "from this time on"), ("--before", "until this time")):
        parser.add_argument(
            option,
            metavar="TIME",
            help=f"only people whom a live camera saw {what}, as 2026-01-31T08:00:00",
        )


def filter_of(args: argparse.Namespace) -> PersonFilter | None:
    """Return the filter that --camera, --after and --before describe; None: everyone.

    Raises:
        UserError: if one of their values is empty or no time, or --before is earlier than --after.
    """
    if "" in args.camera:
        raise UserError("--camera: expected a name, found an empty one")
    return _filter(args.camera, args.after, args.before)


def filter_of_texts(cameras: str = "", after: str = "", before: str = "") -> PersonFilter | None:
    """Return the filter that the fields of a form describe; an empty field selects everyone.

    Args:
        cameras: names, separated by commas.
        after, before: times as `seconds_of` reads them.
    """
    names = [name.strip() for name in cameras.split(",") if name.strip()]
    return _filter(names, after.strip() or None, before.strip() or None)


def _filter(cameras: Sequence[str], after: str | None, before: str | None) -> PersonFilter | None:
    first, last = (
        None if text is None else seconds_of(text, option)
        for option, text in (("--after", after), ("--before", before))
    )
    if first is not None and last is not None and first > last:
        raise UserError(f"--before {before}: expected --after {after} or later")
    return PersonFilter(tuple(cameras), first, last) or None


def default_query() -> QueryArgument:
    """Return the query that belongs to the demo pictures.

    Raises:
        UserError: if demo_imgs/query.json does not exist or has another structure.
    """
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


def min_similarity_of(args: argparse.Namespace, checkpoint: Checkpoint) -> float:
    """Return the lowest similarity of a match, -inf if there is no limit.

    Raises:
        UserError: if --false-alarms is given and the checkpoint has no threshold for it.
    """
    if args.min_similarity is not None:
        return args.min_similarity
    if args.false_alarms is None:
        return -float("inf")
    thresholds = thresholds_of(checkpoint)
    if thresholds is None:
        raise UserError(
            f"--false-alarms {args.false_alarms:g}: no evaluation of {checkpoint.where} has found "
            "thresholds; evaluate it with --eval, or give --min-similarity"
        )
    found = {float(rate): similarity for rate, similarity in thresholds.items()}
    if args.false_alarms not in found:
        rates = ", ".join(thresholds)
        raise UserError(f"--false-alarms {args.false_alarms:g}: expected one of {rates}")
    return found[args.false_alarms]


def check(args: argparse.Namespace, out: Path) -> None:
    """Check the options that need no file.

    Raises:
        UserError: if a value is out of range.
    """
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1")
    check_every(args.every)
    if args.every and args.index:
        raise UserError("--every: expected with --gallery, found with --index")
    if (args.after or args.before) and not args.index:
        option = "--after" if args.after else "--before"
        raise UserError(f"{option}: expected with --index, found with --gallery")
    if args.persons and folder_of(args.index) is None:
        raise UserError("--persons: expected with --index FOLDER, found without")
    check_min_similarity(args.min_similarity)
    if not args.index and out.resolve() == args.gallery.resolve():
        raise UserError(f"--out {out}: expected another folder than --gallery")
