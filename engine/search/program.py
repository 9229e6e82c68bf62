"""The demo program: find a person, and write matches.json, a page and drawn pictures."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from engine.cameras.identities import open_identities
from engine.cameras.persons import (
    NumberedPerson,
    PersonTracklet,
    as_json,
    known_people,
    search_persons,
)
from engine.default_network import network_of
from engine.index.gallery_index import GalleryIndex, folder_of, open_index, stale_sources
from engine.index.indexing import add_sources, check_damaged
from engine.index.records import Match, check_cameras, check_indexed_cameras
from engine.search import presentation as show
from engine.search.arguments import (
    TOP,
    QueryArgument,
    check,
    default_query,
    filter_of,
    min_similarity_of,
    parse_args,
)
from engine.search.presentation import QueryPerson, SearchedImage
from engine.search.searcher import Searcher, aggregate_queries
from utils.drawing import save_picture
from utils.errors import UserError, first_of
from utils.files import make_folder, write_text
from utils.media import read_pixels
from utils.memory import keep_freed_memory
from utils.names import output_names, printable
from utils.picture_folder import replace_pictures
from utils.sources import PICTURE, VIDEO, LeftOut, MediaFile, kind_of, print_left_out, told, walk


def read_query(query: QueryArgument, max_pixels: int) -> Tensor:
    """Read the query's picture, [3, H, W] uint8.

    Raises:
        UserError: if it is a video or cannot be read, or the box is outside the picture.
    """
    if query.path.is_file() and kind_of(query.path) == VIDEO:
        raise UserError(f"{query}: expected a picture, found a video")
    pixels = read_pixels(query.path, True, max_pixels)
    height, width = pixels.shape[1:]
    if query.box:
        x1, y1, x2, y2 = query.box
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            found = " ".join(f"{value:g}" for value in query.box)
            raise UserError(
                f"--box {found}: expected x1 < x2 and y1 < y2 within {query.path}, which is "
                f"{width} x {height} pixels"
            )
    return pixels


def choose_person(
    query: QueryArgument, pixels: Tensor, searcher: Searcher, out: Path, option: str = "--out"
) -> QueryPerson:
    """Choose the query person by --box, or by the number from left to right.

    Args:
        out, option: a folder, and the option that names it.

    Raises:
        UserError: if nobody is found, or if there are several people and no valid number is given.
            A picture with all numbers is then written to `out`.
    """
    if query.box:
        return QueryPerson(query.path, pixels, torch.tensor(query.box))
    boxes = searcher.detect([pixels])[0].boxes
    boxes = boxes[(boxes[:, 0] + boxes[:, 2]).argsort()]
    if not len(boxes):
        is_query = query.option == QueryArgument.option
        hint = "; give the person's place with --box" if is_query else ""
        raise UserError(f"{query}: no person found{hint}")
    number = 1 if query.person is None and len(boxes) == 1 else query.person or 0
    if 1 <= number <= len(boxes):
        return QueryPerson(query.path, pixels, boxes[number - 1])
    make_folder(out, option)
    drawn = out / output_names([f"query_{query.path.name}"])[0]
    save_picture(show.draw_query(pixels, boxes), drawn)
    given = "" if query.person is None else query.choice.format(query.person)
    raise UserError(
        f"{query}{given}: {len(boxes)} people found, numbered in {drawn}; choose one with "
        f"{query}{query.choice.format('N')}, N from 1 to {len(boxes)}"
    )


def find_media(source: Path, out: Path) -> tuple[list[MediaFile], list[LeftOut]]:
    """Find the gallery's pictures and videos. Return them, and what is left out."""
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
    """Index the gallery in memory, and print what was left out to stderr."""
    index = GalleryIndex()
    stats = add_sources(index.people, Path(), media, searcher, args.every, workers)
    if not stats.pictures + stats.frames:
        raise no_pictures(source, left + stats.left)
    print_left_out(left + stats.left, sys.stderr)
    return index


def searched_images(
    index: GalleryIndex, matches: list[Match], query_embeddings: Tensor, all_pictures: bool
) -> list[SearchedImage]:
    """Return the pictures with a match, best first.

    Args:
        all_pictures: whether the other pictures of the index are returned too.
    """
    places = dict.fromkeys((match.person.path, match.person.time) for match in matches)
    if all_pictures:
        known = index.people.known()
        places |= {(one.source.path, None): None for one in known if one.source.every is None}
    scenes = [show.searched_image(index, *place, query_embeddings) for place in places]
    return sorted(scenes, key=lambda scene: -scene.best)


def draw(
    queries: list[QueryPerson],
    matches: list[Match],
    scenes: list[SearchedImage],
    read: show.Reader,
    out: Path,
) -> None:
    """Write a drawing of each picture, and remove those of an earlier search; write the contact
    sheet, on which the queries' own pictures are last."""
    ranks = {match.person.id: rank for rank, match in enumerate(matches, 1)}
    of_path: dict[Path, list[QueryPerson]] = {}
    for query in queries:
        of_path.setdefault(query.real_path, []).append(query)
    names = show.names_of([scene.path for scene in scenes])
    labels = [
        names[s.path] if s.time is None else f"{names[s.path]}_{s.time:.2f}s.jpg" for s in scenes
    ]
    drawings = (
        show.draw_scene(scene, ranks, of_path.get(scene.path, []), read) for scene in scenes
    )
    replace_pictures(out, zip(output_names(f"scene_{label}" for label in labels), drawings))
    shown = sorted(scenes, key=lambda scene: scene.path in of_path)[: show.SCENES_SHOWN]
    small = [
        show.draw_scene(scene, ranks, of_path.get(scene.path, []), read, 500) for scene in shown
    ]
    save_picture(show.draw_sheet(queries, matches, shown, small, read), out / "contact_sheet.jpg")


def print_summary(
    matches: list[Match],
    persons: list[str],
    scenes: list[SearchedImage],
    own: list[Path],
    people: int,
    min_similarity: float,
    out: Path,
) -> None:
    """Print the matches, or why there are none, and the names of the written files."""
    if matches:
        print(show.table(matches, persons))
    elif not people or min_similarity == -float("inf"):
        print("no person found in the gallery")
    else:
        print(
            f"not present: none of {people} people has a similarity of {min_similarity:.3f} or more"
        )
    for path in own:
        print(f"{printable(path.name)} is the query's own picture: not ranked")
    print(f"{len(scenes)} pictures: {out}/scene_*\ncontact sheet: {out / 'contact_sheet.jpg'}")
    print(f"page: {out / 'index.html'}")


def answer(
    args: argparse.Namespace, index: GalleryIndex, search: Callable[..., list[Match]]
) -> tuple[list[Match], list[NumberedPerson]]:
    """Search, and return the matches; with --persons, one match per person, and these persons.

    A match to whom tools.identities has given no number yet belongs to person 0.
    """
    if not args.persons:
        return search(top=args.top), []
    identities = open_identities(args.index, index.people)
    found = search_persons(lambda top: search(top=top), identities, args.top)
    numbers = {number for number, _ in found}
    known = {one.number: one for one in known_people(index.people, identities, None, numbers)}
    persons = [
        known.get(n, NumberedPerson(0, "", [PersonTracklet(m.person, m.span)])) for n, m in found
    ]
    return [match for _, match in found], persons


def run(description: str | None) -> None:
    """Run the demo.

    Args:
        description: the text of --help.
    """
    args = parse_args(description)
    cfg, checkpoint = network_of(args.cfg, args.ckpt, args.overrides)
    check_damaged(cfg, args.overrides)
    out = args.out or Path(cfg.OUTPUT_DIR) / "demo"
    check(args, out)
    person_filter = filter_of(args)
    arguments = args.query or [default_query()]
    pixels = [read_query(query, cfg.INPUT.MAX_PIXELS) for query in arguments]
    media, left = ([], []) if args.index else find_media(args.gallery, out)
    if args.every and not any(one.kind == VIDEO for one in media):
        raise UserError(f"--every: expected a video in --gallery {args.gallery}, found none")
    searcher = Searcher.load(cfg, checkpoint)
    keep_freed_memory(searcher.device.type)
    min_similarity = min_similarity_of(args, checkpoint)
    del checkpoint  # the network has its own copy of the weights
    if args.index:
        index = open_index(args.index, searcher.origin)
        check_indexed_cameras(person_filter, index.people.known)
    else:
        check_cameras(person_filter, lambda: [Path(os.path.realpath(file.path)) for file in media])
    queries = [choose_person(q, image, searcher, out) for q, image in zip(arguments, pixels)]
    make_folder(out, "--out")
    if not args.index:
        index = make_index(args.gallery, media, left, searcher, args, cfg.INPUT.NUM_WORKERS)

    embedded = [searcher.embed(query.pixels, query.box[None]) for query in queries]
    query_embeddings = aggregate_queries(torch.cat(embedded), args.join)
    own = {query.real_path for query in queries}
    search = partial(
        searcher.search,
        query_embeddings,
        index,
        min_similarity=min_similarity,
        exclude=own,
        person_filter=person_filter,
    )
    matches, persons = answer(args, index, search)
    if unnumbered := sum(person.number == 0 for person in persons):
        print(
            f"person 0: {unnumbered} matches of people who have no number yet; "
            "python -m tools.identities gives numbers",
            file=sys.stderr,
        )
    scenes = searched_images(index, matches, query_embeddings, all_pictures=not args.index)
    records = show.as_json(matches, folder_of(args.index))
    for record, person in zip(records, persons):
        record |= as_json(person)
    write_text(json.dumps(records, indent=1) + "\n", out / "matches.json")
    read_scene = partial(
        show.read_scene, index=folder_of(args.index), max_pixels=cfg.INPUT.MAX_PIXELS
    )
    read = lru_cache(maxsize=TOP)(read_scene)  # each picture is drawn several times
    draw(queries, matches, scenes, read, out)
    title = f"Person search in {printable(str(args.index or args.gallery))}"
    write_text(show.result_page(title, queries, matches, index, read), out / "index.html")
    stale = stale_sources(index.people, [match.person.path for match in matches])
    for reason in dict.fromkeys(stale.values()):
        names = [printable(path.name) for path, why in stale.items() if why == reason]
        print(f"{reason}: {len(names)} matched files ({first_of(names)})", file=sys.stderr)
    own_found = [path for path in own if index.people.version(path)]
    titles = [person.title for person in persons]
    print_summary(matches, titles, scenes, own_found, index.people.count(), min_similarity, out)
