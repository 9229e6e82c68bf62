"""Search pictures and videos for a person: everyone in them is compared with the query, and the
most similar are drawn.

The query is a picture and a box in it, or the number of one of its people, who are found and drawn
numbered where there are several. It may be given several times, each with a --box or --person of
its own after it. --join says what a similarity to several queries is: their mean (several views of
one person) or their largest (several people).

OUT gets matches.json, index.html, contact_sheet.jpg and a drawn picture for each scene.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from configs.defaults import load_cfg
from engine import presentation as show
from engine.evaluation.records import thresholds_of
from engine.index.gallery_index import GalleryIndex, Match, open_index
from engine.index.indexing import add_sources, check_damaged
from engine.presentation import Query, Scene
from engine.searcher import Searcher, joined
from utils.errors import UserError, reason_of, run_main
from utils.files import make_folder, read_text, write_text
from utils.media import read_pixels
from utils.names import output_names, printable
from utils.sources import PICTURE, VIDEO, LeftOut, Medium, told, walk

DEMO = Path(__file__).parent / "demo_imgs"
TOP = 8  # matches that get a rank


@dataclass
class Asked:
    """A --query, and the --box or --person that came after it."""

    path: Path
    box: list[float] | None = None
    person: int | None = None


class AddQuery(argparse.Action):
    def __call__(self, parser, args, value, option=None):
        args.query = [*(args.query or []), Asked(value)]


class OfQuery(argparse.Action):
    """--box and --person belong to the --query before them."""

    def __call__(self, parser, args, value, option=None):
        if not args.query or args.query[-1].box or args.query[-1].person is not None:
            said = " ".join(f"{v:g}" for v in (value if isinstance(value, list) else [value]))
            raise UserError(f"{option} {said}: expected once, after the --query it belongs to")
        setattr(args.query[-1], self.dest, value)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    add(
        "--gallery",
        type=Path,
        metavar="SOURCE",
        help="what to search: a folder with its sub-folders, a picture or a video (default: "
        "demo_imgs)",
    )
    add(
        "--every",
        type=float,
        default=0,
        metavar="SECONDS",
        help="one frame of the gallery's videos for each so many seconds (default: every frame)",
    )
    add("--index", type=Path, metavar="FOLDER", help="or: an index of tools.index_gallery")
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


def default_query() -> Asked:
    """The query that comes with the demo pictures."""
    path = DEMO / "query.json"
    if not path.is_file():
        raise UserError(f"--query: expected IMAGE and --box X1 Y1 X2 Y2; there is no {path} either")
    try:
        query = json.loads(read_text(path, "--query"))
        x1, y1, x2, y2 = map(float, query["box"])
        return Asked(DEMO / query["image"], [x1, y1, x2, y2])
    except (ValueError, KeyError, TypeError, RecursionError):
        expected = '{"image": NAME, "box": [X1, Y1, X2, Y2]}'
        raise UserError(f"{path}: expected {expected}") from None


def read_query(asked: Asked) -> Tensor:
    """The picture [3, H, W] uint8; UserError where it cannot be read or the box is not in it."""
    pixels = read_pixels(asked.path, upright=True)
    height, width = pixels.shape[1:]
    if asked.box:
        x1, y1, x2, y2 = asked.box
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            found = " ".join(f"{value:g}" for value in asked.box)
            raise UserError(
                f"--box {found}: expected x1 < x2 and y1 < y2 within {asked.path}, which is "
                f"{width} x {height} pixels"
            )
    return pixels


def choose_person(asked: Asked, pixels: Tensor, searcher: Searcher, out: Path) -> Query:
    """By the box, or by her number from left to right; UserError where it takes a number, after
    everyone was drawn with hers."""
    if asked.box:
        return Query(asked.path, pixels, torch.tensor(asked.box))
    boxes = searcher.detect([pixels])[0].boxes
    boxes = boxes[(boxes[:, 0] + boxes[:, 2]).argsort()]
    if not len(boxes):
        raise UserError(f"--query {asked.path}: nobody found in it; --box says where she stands")
    number = 1 if asked.person is None and len(boxes) == 1 else asked.person or 0
    if 1 <= number <= len(boxes):
        return Query(asked.path, pixels, boxes[number - 1])
    make_folder(out, "--out")
    drawn = out / output_names([f"query_{asked.path.name}"])[0]
    save(show.draw_query(pixels, boxes), drawn)
    given = "" if asked.person is None else f" --person {asked.person}"
    raise UserError(
        f"--query {asked.path}{given}: {len(boxes)} people in it, numbered in {drawn}; choose one "
        f"with --person N, 1 to {len(boxes)}"
    )


def find_media(source: Path, out: Path) -> tuple[list[Medium], list[LeftOut]]:
    """What there is to search, and what is left out."""
    media, left = walk([source], "--gallery", (PICTURE, VIDEO), out)
    if not media:
        raise no_pictures(source, left)
    return media, left


def no_pictures(source: Path, left: list[LeftOut]) -> UserError:
    return UserError("; ".join([f"--gallery {source}: expected pictures, found none", *told(left)]))


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


def make_index(
    source: Path, media: list[Medium], left: list[LeftOut], searcher: Searcher, args, workers: int
) -> GalleryIndex:
    """Of the gallery, in memory; tells what was left out."""
    index = GalleryIndex()
    done = add_sources(index.people, Path(), media, searcher, args.every, workers)
    if not done.pictures + done.frames:
        raise no_pictures(source, left + done.left)
    for line in told(left + done.left):
        print(line, file=sys.stderr)
    return index


def scenes_of(index: GalleryIndex, matches: list[Match], wanted: Tensor, all_: bool) -> list[Scene]:
    """Those with a match, and all pictures of a gallery, best first."""
    places = dict.fromkeys((match.person.path, match.person.time) for match in matches)
    if all_:
        known = index.people.known()
        places |= {(one.source.path, None): None for one in known if one.source.every is None}
    scenes = [show.scene_of(index, path, time, wanted) for path, time in places]
    return sorted(scenes, key=lambda scene: -scene.best)


def draw(queries: list[Query], matches: list[Match], scenes: list[Scene], out: Path) -> None:
    """A picture for each scene, and the sheet. The query's own pictures come last."""
    ranks = {match.person.id: rank for rank, match in enumerate(matches, 1)}
    asked = {query.real_path: query for query in queries}
    names = show.short_names([scene.path for scene in scenes])
    labels = [
        names[s.path] if s.time is None else f"{names[s.path]}_{s.time:.2f}s.jpg" for s in scenes
    ]
    for scene, name in zip(scenes, output_names(f"scene_{label}" for label in labels)):
        save(show.draw_scene(scene, ranks, asked.get(scene.path)), out / name)
    shown = sorted(scenes, key=lambda scene: scene.path in asked)[: show.SCENES_SHOWN]
    small = [show.draw_scene(scene, ranks, asked.get(scene.path), 500) for scene in shown]
    save(show.draw_sheet(queries, matches, shown, small), out / "contact_sheet.jpg")


def save(picture: Image.Image, path: Path) -> None:
    try:
        picture.save(path, quality=92)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)})") from None


def tell(
    matches: list[Match], scenes: list[Scene], own: list[Path], people: int, least: float, out: Path
) -> None:
    if matches:
        print(show.table(matches))
    elif not people or least == -float("inf"):
        print("no person found in what was searched")
    else:
        print(f"not present: of {people} people nobody is as similar as {least:.3f}")
    for path in own:
        print(f"{printable(path.name)} is the query's own picture: not ranked")
    print(f"{len(scenes)} pictures: {out}/scene_*\ncontact sheet: {out / 'contact_sheet.jpg'}")
    print(f"page: {out / 'index.html'}")


def check(args: argparse.Namespace, out: Path) -> None:
    if args.index and args.gallery:
        raise UserError("--index and --gallery: expected one of them")
    if args.top < 1:
        raise UserError(f"--top {args.top}: expected at least 1")
    if not 0 <= args.every < float("inf"):
        raise UserError(f"--every {args.every:g}: expected seconds, 0 or more")
    gallery = args.gallery or DEMO
    if not args.index and out.resolve() == gallery.resolve():
        raise UserError(f"--out {out}: is the gallery; expected another folder")


def main() -> None:
    args = parse_args()
    cfg = load_cfg(args.cfg, args.overrides)
    check_damaged(cfg, args.overrides)
    out = args.out or Path(cfg.OUTPUT_DIR) / "demo"
    check(args, out)
    asked = args.query or [default_query()]
    pixels = [read_query(one) for one in asked]
    gallery = args.gallery or DEMO
    media, left = ([], []) if args.index else find_media(gallery, out)
    searcher = Searcher.load(cfg, args.ckpt)
    least = least_similarity(args)
    if args.index:
        index = open_index(args.index, searcher.origin)
    queries = [choose_person(one, image, searcher, out) for one, image in zip(asked, pixels)]
    make_folder(out, "--out")
    if not args.index:
        index = make_index(gallery, media, left, searcher, args, cfg.INPUT.NUM_WORKERS)

    embedded = [searcher.embed(query.pixels, query.box[None]) for query in queries]
    wanted = joined(torch.cat(embedded), args.join)
    own = {query.real_path for query in queries}
    matches = searcher.search(wanted, index, args.top, least, own)
    scenes = scenes_of(index, matches, wanted, all_=not args.index)
    write_text(json.dumps(show.as_json(matches), indent=1) + "\n", out / "matches.json")
    draw(queries, matches, scenes, out)
    title = f"Person search in {printable(str(args.index or gallery))}"
    write_text(show.result_page(title, queries, matches, index), out / "index.html")
    tell(matches, scenes, index.people.paths_among(own), index.people.count(), least, out)


if __name__ == "__main__":
    run_main(main)
