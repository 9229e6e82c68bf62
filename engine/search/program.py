"""The demo: from arguments to matches.json, a page and drawn pictures."""

import json
import sys
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from configs.defaults import load_cfg
from engine.index.gallery_index import GalleryIndex, Match, open_index
from engine.index.indexing import add_sources, check_damaged
from engine.search import presentation as show
from engine.search.asking import QueryArgument, check, default_query, least_similarity, parse_args
from engine.search.presentation import QueryPerson, SearchedImage
from engine.search.searcher import Searcher, aggregate_queries
from utils.drawing import save_picture
from utils.errors import UserError
from utils.files import make_folder, write_text
from utils.media import read_pixels
from utils.names import output_names, printable, short_names
from utils.sources import PICTURE, VIDEO, LeftOut, MediaFile, told, walk


def read_query(asked: QueryArgument) -> Tensor:
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


def choose_person(
    asked: QueryArgument, pixels: Tensor, searcher: Searcher, out: Path
) -> QueryPerson:
    """By the box, or by her number from left to right; UserError where it takes a number, after
    everyone was drawn with hers."""
    if asked.box:
        return QueryPerson(asked.path, pixels, torch.tensor(asked.box))
    boxes = searcher.detect([pixels])[0].boxes
    boxes = boxes[(boxes[:, 0] + boxes[:, 2]).argsort()]
    if not len(boxes):
        raise UserError(f"--query {asked.path}: nobody found in it; --box says where she stands")
    number = 1 if asked.person is None and len(boxes) == 1 else asked.person or 0
    if 1 <= number <= len(boxes):
        return QueryPerson(asked.path, pixels, boxes[number - 1])
    make_folder(out, "--out")
    drawn = out / output_names([f"query_{asked.path.name}"])[0]
    save_picture(show.draw_query(pixels, boxes), drawn)
    given = "" if asked.person is None else f" --person {asked.person}"
    raise UserError(
        f"--query {asked.path}{given}: {len(boxes)} people in it, numbered in {drawn}; choose one "
        f"with --person N, 1 to {len(boxes)}"
    )


def find_media(source: Path, out: Path) -> tuple[list[MediaFile], list[LeftOut]]:
    """What there is to search, and what is left out."""
    media, left = walk([source], "--gallery", (PICTURE, VIDEO), out)
    if not media:
        raise no_pictures(source, left)
    return media, left


def no_pictures(source: Path, left: list[LeftOut]) -> UserError:
    return UserError("; ".join([f"--gallery {source}: expected pictures, found none", *told(left)]))


def make_index(
    source: Path,
    media: list[MediaFile],
    left: list[LeftOut],
    searcher: Searcher,
    args,
    workers: int,
) -> GalleryIndex:
    """Of the gallery, in memory; tells what was left out."""
    index = GalleryIndex()
    done = add_sources(index.people, Path(), media, searcher, args.every, workers)
    if not done.pictures + done.frames:
        raise no_pictures(source, left + done.left)
    for line in told(left + done.left):
        print(line, file=sys.stderr)
    return index


def scenes_of(
    index: GalleryIndex, matches: list[Match], wanted: Tensor, all_: bool
) -> list[SearchedImage]:
    """Those with a match, and all pictures of a gallery, best first."""
    places = dict.fromkeys((match.person.path, match.person.time) for match in matches)
    if all_:
        known = index.people.known()
        places |= {(one.source.path, None): None for one in known if one.source.every is None}
    scenes = [show.scene_of(index, path, time, wanted) for path, time in places]
    return sorted(scenes, key=lambda scene: -scene.best)


def draw(
    queries: list[QueryPerson],
    matches: list[Match],
    scenes: list[SearchedImage],
    read: show.Reader,
    out: Path,
) -> None:
    """A picture for each scene, and the sheet. The query's own pictures come last."""
    ranks = {match.person.id: rank for rank, match in enumerate(matches, 1)}
    asked = {query.real_path: query for query in queries}
    names = short_names([scene.path for scene in scenes])
    labels = [
        names[s.path] if s.time is None else f"{names[s.path]}_{s.time:.2f}s.jpg" for s in scenes
    ]
    for scene, name in zip(scenes, output_names(f"scene_{label}" for label in labels)):
        save_picture(show.draw_scene(scene, ranks, asked.get(scene.path), read), out / name)
    shown = sorted(scenes, key=lambda scene: scene.path in asked)[: show.SCENES_SHOWN]
    small = [show.draw_scene(scene, ranks, asked.get(scene.path), read, 500) for scene in shown]
    save_picture(show.draw_sheet(queries, matches, shown, small, read), out / "contact_sheet.jpg")


def tell(
    matches: list[Match],
    scenes: list[SearchedImage],
    own: list[Path],
    people: int,
    least: float,
    out: Path,
) -> None:
    if matches:
        print(show.table(matches))
    elif not people or least == -float("inf"):
        print("no person found in what was searched")
    else:
        print(f"not present: nobody else of {people} people is as similar as {least:.3f}")
    for path in own:
        print(f"{printable(path.name)} is the query's own picture: not ranked")
    print(f"{len(scenes)} pictures: {out}/scene_*\ncontact sheet: {out / 'contact_sheet.jpg'}")
    print(f"page: {out / 'index.html'}")


def run(description: str | None) -> None:
    """description: the program's."""
    args = parse_args(description)
    cfg = load_cfg(args.cfg, args.overrides)
    check_damaged(cfg, args.overrides)
    out = args.out or Path(cfg.OUTPUT_DIR) / "demo"
    check(args, out)
    asked = args.query or [default_query()]
    pixels = [read_query(one) for one in asked]
    media, left = ([], []) if args.index else find_media(args.gallery, out)
    searcher = Searcher.load(cfg, args.ckpt)
    least = least_similarity(args)
    if args.index:
        index = open_index(args.index, searcher.origin)
    queries = [choose_person(one, image, searcher, out) for one, image in zip(asked, pixels)]
    make_folder(out, "--out")
    if not args.index:
        index = make_index(args.gallery, media, left, searcher, args, cfg.INPUT.NUM_WORKERS)

    embedded = [searcher.embed(query.pixels, query.box[None]) for query in queries]
    wanted = aggregate_queries(torch.cat(embedded), args.join)
    own = {query.real_path for query in queries}
    matches = searcher.search(wanted, index, args.top, least, own)
    scenes = scenes_of(index, matches, wanted, all_=not args.index)
    write_text(json.dumps(show.as_json(matches), indent=1) + "\n", out / "matches.json")
    read = lru_cache(maxsize=64)(show.read_scene)  # each is drawn several times
    draw(queries, matches, scenes, read, out)
    title = f"Person search in {printable(str(args.index or args.gallery))}"
    write_text(show.result_page(title, queries, matches, index, read), out / "index.html")
    tell(matches, scenes, index.people.paths_among(own), index.people.count(), least, out)
