"""Make an index of the people in pictures and videos, for demo.py --index and tools.app.

    python -m tools.index_gallery --cfg FILE --ckpt FILE --index FOLDER SOURCE ...
    python -m tools.index_gallery --cfg FILE --ckpt FILE --index http://HOST:19530 SOURCE ...

A SOURCE is a picture, a video, or a folder with its subfolders. A further run adds what is new or
has changed, and continues an index whose program was killed. The ranks of torchrun share the
sources. An index at an address of Milvus can be changed by several machines at the same time, each
with its own command. A path that ends in .db is an index of Milvus Lite.
"""

import argparse
import os
import sys
from pathlib import Path

from tabulate import tabulate

from engine.default_network import add_network_options, network_of, parse_sources
from engine.distributed import process_group, rank
from engine.index.gallery_index import GalleryIndex, index_place, open_index, writing
from engine.index.indexing import IndexStats, add_sources, check_damaged
from engine.index.milvus import Address
from engine.index.records import IndexedSource, camera_of
from engine.search.arguments import add_every, check_every
from engine.search.searcher import Searcher
from utils.arguments import nonempty, nonempty_path, program_parser
from utils.errors import UserError, first_of, run_main
from utils.memory import keep_freed_memory
from utils.names import printable
from utils.sources import PICTURE, VIDEO, MediaFile, print_left_out, walk


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add_network_options(parser)
    parser.add_argument(
        "--index",
        required=True,
        type=index_place,
        metavar="PLACE",
        help="folder, FILE.db or http://HOST:PORT[/DATABASE]",
    )
    add_every(parser)
    parser.add_argument(
        "--kind",
        type=nonempty,
        metavar="STRING",
        help="factory string of the FAISS index: Flat (exact, the default), HNSW32, "
        "IVF1024,Flat, IVF1024,PQ32, ...; in Milvus FLAT (the default), HNSW, IVF_FLAT,nlist=1024, "
        "...; a change rebuilds it",
    )
    parser.add_argument("--list", action="store_true", help="print the sources in the index")
    parser.add_argument(
        "--remove",
        type=nonempty_path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="remove these files, and the files in these folders, from the index",
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="pictures, videos and folders; also config values as KEY VALUE: DEVICE cpu",
    )
    return parse_sources(parser, Path)


def check(args: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        UserError: if options are out of range or do not fit together.
    """
    check_every(args.every)
    of_sources = {
        "--cfg": args.cfg,
        "--ckpt": args.ckpt,
        "--every": args.every,
        "KEY VALUE": args.overrides,
    }
    given = [name for name, value in of_sources.items() if value not in (None, 0, [])]
    if given and not args.sources:
        raise UserError(f"{', '.join(given)}: expected with SOURCE, found without")
    if not (args.sources or args.list or args.remove or args.kind):
        raise UserError("expected SOURCE, --list, --remove or --kind, found none of them")


def find(sources: list[Path], folder: Path) -> list[MediaFile]:
    """Return all pictures and videos in the sources, and print what is left out."""
    media, left = walk(sources, "SOURCE", (PICTURE, VIDEO), out=folder)
    print_left_out(left, sys.stderr)
    if not media:
        names = ", ".join(printable(str(source)) for source in sources)
        raise UserError(f"{names}: expected pictures or videos, found none")
    return media


def remove(index: GalleryIndex, paths: list[Path]) -> None:
    """Remove sources from the index, whether or not their files still exist."""
    for path in paths:
        real = Path(os.path.realpath(path))
        inside = [one.source.path for one in index.people.known()]
        inside = [one for one in inside if one == real or real in one.parents]
        if not inside:
            raise UserError(f"--remove {printable(str(path))}: nothing of it is in the index")
        count = index.people.remove(inside)
        print(f"{printable(str(path))}: {count} pictures and videos removed")


def add(args: argparse.Namespace) -> IndexStats:
    """Index the sources on all ranks. The first rank writes the index."""
    cfg, checkpoint = network_of(args.cfg, args.ckpt, args.overrides)
    check_damaged(cfg, args.overrides)
    folder = Path(str(args.index))
    media = find(args.sources, folder)
    searcher = Searcher.load(cfg, checkpoint)
    del checkpoint  # the network has its own copy of the weights
    keep_freed_memory(searcher.device.type)
    more = folder, media, searcher, args.every, cfg.INPUT.NUM_WORKERS
    origin = searcher.origin
    if rank() and args.index == folder:
        return add_sources(None, *more)
    with writing(args.index, origin, args.kind) as index:
        remove(index, [] if rank() else args.remove)
        return add_sources(index.people, *more)


def print_summary(stats: IndexStats, place: Path | Address) -> None:
    """Print what was read, what was left out, and what the index contains."""
    print_left_out(stats.left, sys.stderr)
    known = open_index(place).people.known()
    read = stats.pictures + stats.frames
    pace = f" ({read / stats.seconds:.1f} a second)" if stats.seconds and read else ""
    print(
        f"{stats.pictures} pictures and {stats.frames} frames of videos read in "
        f"{stats.seconds:.1f} s{pace}, {stats.people} people found"
    )
    people = sum(one.people for one in known)
    print(f"{place}: {people} people in {len(known)} pictures and videos")
    paths = [one.source.path for one in known if camera_of(one.source.path) is None]
    if gone := [path for path in paths if not path.exists()]:
        names = first_of(printable(path.name) for path in gone)
        print(f"missing on the disk: {len(gone)} ({names}); --remove removes them from the index")


def print_list(known: list[IndexedSource]) -> None:
    rows = []
    for one in known:
        what = "picture" if one.source.every is None else f"{one.samples} frames"
        state = "" if one.finished else f"read until {one.until or 0:.1f} s"
        note = "; ".join(filter(None, [state, one.note]))
        rows.append([printable(str(one.source.path)), what, one.people, printable(note)])
    print(tabulate(rows, ["file", "read", "people", ""]))


def main() -> None:
    args = parse_args()
    check(args)
    with process_group():
        if args.sources:
            stats = add(args)
            if rank() == 0:
                print_summary(stats, args.index)
        elif args.remove or args.kind:
            with writing(args.index, None, args.kind) as index:
                remove(index, args.remove)
        if args.list and rank() == 0:
            print_list(open_index(args.index).people.known())


if __name__ == "__main__":
    run_main(main)
