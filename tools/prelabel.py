"""Propose labels by a network, to be corrected in an annotation tool and imported again.

python -m tools.prelabel SOURCE [SOURCE ...] --out for_cvat.xml [--cfg FILE --ckpt FILE]

Sources are folders of images, images, or one video. People are detected and grouped into proposed
identities 1, 2, ...: the attribute `person_id` of each box or, in a video, of each track. Upload
the file to the tool, correct it there, export it, and give the export to tools.import_annotations.

With --truth FILE, an annotation file of the same images, the program prints how many boxes and
names need no correction. It then writes a file only if --out is given.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from datasets.importers import read_source
from datasets.importers.finder import Finder
from datasets.importers.forms import check_names, coco_json, cvat_xml, label_studio_json
from datasets.importers.records import LabelledImage, Labels, Options
from engine.default_network import add_network_options, network_of, parse_sources
from engine.search.proposals import propose_in_images, propose_in_video
from engine.search.savings import Savings, compare
from engine.search.searcher import Searcher
from utils.arguments import nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import check_target, write_text
from utils.names import short_names
from utils.sources import PICTURE, VIDEO, MediaFile, print_left_out, told, walk

FORMS = {"cvat": ".xml", "coco": ".json", "label-studio": ".json"}
SIMILAR = 0.5  # mean similarity of two groups of boxes from which on they are one person
EXACT = 0.75  # IoU from which a proposed box needs no correction
ADDRESS = "/data/local-files/?d="  # where Label Studio serves files of its machine


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="images, folders, or one video; also config values, as KEY VALUE: DEVICE cpu",
    )
    add(
        "--out", type=nonempty_path, metavar="FILE", help="file to write: .xml for CVAT, else .json"
    )
    add("--form", choices=FORMS, help="its form (default: cvat for .xml, coco for .json)")
    add_network_options(parser)
    add("--every", type=int, default=1, metavar="N", help="of a video, the first frame of every N")
    add(
        "--min-similarity",
        type=float,
        default=SIMILAR,
        metavar="S",
        help="minimum mean similarity of the boxes of one person (default: %(default)s)",
    )
    add(
        "--address",
        metavar="TEXT",
        help=f"Label Studio: prefix of an image's name (default: {ADDRESS})",
    )
    add(
        "--truth",
        type=nonempty_path,
        metavar="FILE",
        help="annotations of the images, to compare with",
    )
    add(
        "--exact",
        type=float,
        metavar="IOU",
        help=f"with --truth: overlap from which a box needs no correction (default: {EXACT})",
    )
    args = parse_sources(parser, Path)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    if not args.out and not args.truth:
        raise UserError("--out: expected the file to write, or --truth FILE to compare with")
    if args.out:
        args.form = args.form or ("cvat" if args.out.suffix == ".xml" else "coco")
        check_target("--out", args.out, FORMS[args.form])
        if args.truth and args.out.resolve() == args.truth.resolve():
            raise UserError(f"--out {args.out}: expected another file than --truth")
    for option, given, needed, found in (
        ("--form", args.form, "--out", args.out),
        ("--address", args.address, "--form label-studio", args.form == "label-studio"),
        ("--exact", args.exact, "--truth", args.truth),
    ):
        if given is not None and not found:
            raise UserError(f"{option}: expected with {needed}, found without")
    if args.every < 1:
        raise UserError(f"--every: expected at least 1, found {args.every}")
    for option, value in (("--min-similarity", args.min_similarity), ("--exact", args.exact)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"{option}: expected 0 to 1, found {value}")


def choose_media(sources: list[Path]) -> list[MediaFile]:
    """Return the images of the sources, or their only video, and print what is left out.

    The names of the images differ: if two sources contain the same name, all names are relative to
    the deepest folder that contains all images.

    Raises:
        UserError: if there is neither, more than one video, or both.
    """
    media, left = walk(sources, "SOURCE", (PICTURE, VIDEO))
    videos = [file for file in media if file.kind == VIDEO]
    if not media:
        raise UserError("; ".join(["SOURCE: expected images or a video, found none", *told(left)]))
    if videos and len(media) > 1:
        raise UserError(
            f"SOURCE: expected images or one video, since a task of an annotation tool is either, "
            f"found {len(videos)} videos and {len(media) - len(videos)} images"
        )
    print_left_out(left)
    if len({file.name for file in media}) < len(media):
        names = short_names([file.path for file in media])
        media = [replace(file, name=names[file.path]) for file in media]
    return media


def truth_of(args: argparse.Namespace, media: list[MediaFile]) -> dict[Path | int, LabelledImage]:
    """Return the true labels by image, or by frame of the video."""
    read = read_source(args.truth, Options())
    if media[0].kind == VIDEO:
        every = [image for labels in read for image in labels.images]
        return {image.frame: image for image in every if image.frame is not None}
    finder = Finder(args.sources)
    found: dict[Path | int, LabelledImage] = {}
    for labels in read:
        (paths,) = finder.find([[(image.name, ()) for image in labels.images]])
        found |= {path: image for image, path in zip(labels.images, paths) if path}
    return found


def report(savings: Savings, exact: float) -> None:
    s = savings
    rows = [
        ["boxes, true", s.true, ""],
        [f"  proposed so (IoU ≥ {exact:g})", s.kept, share(s.kept, s.true)],
        ["  proposed, to be moved", s.moved, share(s.moved, s.true)],
        ["  to be drawn", s.drawn, share(s.drawn, s.true)],
        ["boxes proposed of nobody, to be removed", s.removed, ""],
        ["names, true", s.named, ""],
        ["  proposed so", s.right, share(s.right, s.named)],
        ["  to be written", s.named - s.right, share(s.named - s.right, s.named)],
        ["people, true / proposed", f"{s.true_people} / {s.proposed_people}", ""],
    ]
    print(tabulate(rows, [f"{s.images} images", "", "%"], disable_numparse=True))


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def main() -> None:
    args = parse_args()
    media = choose_media(args.sources)
    if args.every > 1 and media[0].kind == PICTURE:
        raise UserError("--every: expected with a video, found with images")
    if args.form == "label-studio" and media[0].kind == VIDEO:
        raise UserError("--form label-studio: expected with images, found with a video")
    if args.form == "cvat":
        check_names(file.name for file in media if file.kind == PICTURE)
    truth = truth_of(args, media) if args.truth else {}
    known = [file for file in media if file.kind == VIDEO or file.path in truth]
    if args.truth and not (known and truth):
        raise UserError(f"--truth {args.truth}: expected labels of images of SOURCE, found none")
    if args.truth and not args.out:
        media = known
    cfg, ckpt = network_of(args.cfg, args.ckpt, args.overrides)
    searcher = Searcher.load(cfg, ckpt)
    if media[0].kind == VIDEO:
        labels = propose_in_video(media[0].path, searcher, args.every, args.min_similarity)
    else:
        labels, left = propose_in_images(media, searcher, args.min_similarity)
        print_left_out(left)
        if not labels.images:
            raise UserError("SOURCE: expected images, found none that can be read")
    if args.out:
        address = ADDRESS if args.address is None else args.address
        writers: dict[str, Callable[[Labels], str]] = {
            "cvat": cvat_xml,
            "coco": coco_json,
            "label-studio": lambda labels: label_studio_json(labels, address),
        }
        write_text(writers[args.form](labels), args.out)
    for remark in labels.remarks:
        print(f"remark: {remark}")
    boxes = [box for image in labels.images for box in image.boxes]
    people = {box.name for box in boxes}
    print(f"{len(labels.images)} images, {len(boxes)} boxes, {len(people)} proposed people")
    if args.truth:
        keys = [image.path or image.frame for image in labels.images]
        pairs = [
            (image.boxes, [one for one in truth[key].boxes_in_pixels(image.size) if one.score])
            for key, image in zip(keys, labels.images)
            if key in truth and image.size
        ]
        exact = EXACT if args.exact is None else args.exact
        report(compare(pairs, exact), exact)


if __name__ == "__main__":
    run_main(main)
