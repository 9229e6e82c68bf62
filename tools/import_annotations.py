"""Convert the files of annotation tools to a dataset (INPUT.DATASET COCO), and copy the images.

python -m tools.import_annotations SOURCE [SOURCE ...] --out data/own

A source is a file, a folder or a .zip: CVAT XML (for images or video), COCO as written by CVAT,
Datumaro, FiftyOne, Roboflow and others, Datumaro JSON, Label Studio JSON, JSON_MIN, CSV or TSV,
MOT, or YOLO (with track ids). The kind is recognised by the content. What is left out is printed
with the reason.
"""

import argparse
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from tabulate import tabulate

from datasets.coco_files import PERSON_KEYS, write_annotations
from datasets.importers import mot, read_source, unpack, yolo
from datasets.importers.finder import Finder
from datasets.importers.locate import locate
from datasets.importers.records import Labels, Options
from datasets.importers.writer import Imported, ImportWriter, SceneRows
from datasets.track_files import Rules
from tools.convert_tracks import add_selection, check_selection
from utils.arguments import nonempty, nonempty_path, program_parser
from utils.errors import UserError, first_of, run_main
from utils.files import folder_beside
from utils.names import free_name

SHARE = 0.5  # of the images that become the test if no other option decides
USUAL = {"annotations", "default", "labels", "result", "data", "instances", "train", "test", "coco"}
USUAL |= {Path(name).stem for name in yolo.NAMES}


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        type=nonempty_path,
        metavar="SOURCE",
        help="a file, a folder or a .zip",
    )
    add("--out", required=True, type=nonempty_path, metavar="FOLDER", help="a new folder")
    add(
        "--images",
        nargs="+",
        type=nonempty_path,
        default=[],
        metavar="PATH",
        help="folders of images, or videos, if they are not beside the annotations",
    )
    add(
        "--person-key",
        type=nonempty,
        metavar="NAME",
        help="attribute or field that holds identities (default: "
        f"{', '.join(PERSON_KEYS)}, the first of these that is there)",
    )
    add(
        "--label",
        nargs="+",
        type=nonempty,
        default=[],
        metavar="NAME",
        help="labels of people (default: the only label, else person, pedestrian or human)",
    )
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--test-share",
        type=float,
        metavar="X",
        help="the last share X of each source's images is the test "
        f"(default: {SHARE} of the images without a subset)",
    )
    split.add_argument(
        "--test",
        nargs="+",
        metavar="NAME",
        help="the sources or cameras of these names are the test, all others are for training",
    )
    add_selection(parser)
    add(
        "--camera",
        type=nonempty,
        metavar="REGEX",
        help="regular expression whose first group, in an image's name, is the camera",
    )
    args = parser.parse_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    check_selection(args)
    try:
        args.camera = re.compile(args.camera) if args.camera else None
    except re.error as error:
        raise UserError(f"--camera {args.camera}: expected an expression ({error})") from None


def import_all(args: argparse.Namespace, out: Path) -> list[Imported]:
    """Copy the images of each file of the sources below `out`, and return their scenes.

    Raises:
        UserError: if a source cannot be used.
    """
    options = Options(args.person_key or "", args.label, args.min_visibility)
    writer = ImportWriter(out, args.shared_identities, args.camera)
    done: list[Imported] = []
    with TemporaryDirectory(dir=out.parent) as folder:
        for source in args.sources:
            place = unpack(source, Path(folder)) if source.suffix.lower() == ".zip" else source
            found = read_source(place, options)
            finder = Finder(args.images or [place if place.is_dir() else place.parent])
            for labels in found:
                if labels.tracks:
                    labels.images = labels.images[:: args.every]
            for labels, located in zip(found, locate(found, finder)):
                name = name_of(source, labels, len(found) > 1)
                done.append(writer.write(labels, free(name, done), located))
    return done


def check_effects(args: argparse.Namespace, done: list[Imported]) -> None:
    """Check that the options had an effect on the sources.

    Raises:
        UserError: if one had none.
    """
    is_mot = [one.kind == mot.KIND for one in done]
    for option, given, used, needed in (
        ("--every", args.every > 1, [one.tracks for one in done], "a video or a sequence"),
        (
            "--shared-identities",
            args.shared_identities,
            [one.tracks and not one.named for one in done],
            "tracks that are identities",
        ),
        (
            "--min-visibility",
            args.min_visibility != Rules.visibility,
            [one.visibility for one in done],
            f"a source of {mot.KIND} that states the visibility",
        ),
        ("--images", args.images, [not one for one in is_mot], f"another source than {mot.KIND}"),
    ):
        if given and not any(used):
            found = first_of(dict.fromkeys(one.kind for one in done))
            raise UserError(f"{option}: expected with {needed}, found {found}")
    # in COCO's form, the identities of such a key are tracks instead of names
    is_track = (args.person_key or "").endswith("track_id")
    if args.person_key and not is_track and not any(one.named for one in done):
        raise UserError(
            f"--person-key {args.person_key}: expected the name of a field or attribute of boxes, "
            "found only tracks without it"
        )
    if args.camera and not any(one.matched for one in done):
        raise UserError(
            f"--camera {args.camera.pattern}: expected an expression that finds the camera in the "
            "names of the images, found none"
        )


def name_of(source: Path, labels: Labels, several: bool) -> str:
    """Return the name under which a file's images and tracks are stored.

    It is the name of the source or, if that is a usual name of exports, the name of its folder. If
    there are several files, the name of the task, subset or file is appended.
    """
    source = source.resolve().parents[1] if source.name == "gt.txt" else source.resolve()
    words = {*re.split(r"[\W\d_]+", source.stem.lower())} - {""}
    usual = source.is_file() and set() < words <= USUAL
    name = source.parent.name if usual else source.stem
    if several:
        sequence = labels.path.parents[1].name if labels.path.name == "gt.txt" else ""
        name = labels.task or sequence or f"{name}-{labels.path.parent.name}-{labels.path.stem}"
    return re.sub(r"[\\/:\s]+", "_", name).strip("._") or "images"


def free(name: str, done: list[Imported]) -> str:
    """Return the name, or with a number if it is taken; upper and lower case may be equal in a file
    system."""
    taken = {one.name.casefold() for one in done}
    return free_name(name, lambda found: found.casefold() in taken)


def divide(done: list[Imported], args: argparse.Namespace) -> dict[str, list[SceneRows]]:
    """Return the scenes for training and those for the test."""
    splits: dict[str, list[SceneRows]] = {"train": [], "test": []}
    cameras = {image.get("camera") for one in done for image, _ in one.scenes} - {None}
    names = {one.name for one in done} | cameras
    if wrong := [name for name in args.test or () if name not in names]:
        raise UserError(f"--test {wrong[0]}: expected one of {first_of(sorted(names), 20)}")
    for one in done:
        subsets = (
            one.subsets if args.test_share is None and not args.test else [""] * len(one.scenes)
        )
        rest = subsets.count("")
        first = rest - round(rest * (args.test_share or SHARE))
        seen = 0
        for scene, subset in zip(one.scenes, subsets):
            if args.test:
                chosen = {one.name, scene[0].get("camera")} & {*args.test}
                split = "test" if chosen else "train"
            else:
                split = subset or ("train" if seen < first else "test")
                seen += not subset
            splits[split].append(scene)
    return splits


def report(done: list[Imported], splits: dict[str, list[SceneRows]]) -> None:
    rows = [[one.name, one.kind, *counts(one.scenes)] for one in done]
    rows += [[split, "", *counts(scenes)] for split, scenes in splits.items()]
    print(tabulate(rows, ["", "", "images", "boxes", "unlabelled", "people", "cameras"]))
    for one in done:
        for reason, count in sorted(one.left_out.items()):
            example = f" (first: {one.examples[reason]})" if reason in one.examples else ""
            print(f"{one.name}: left out, {reason}: {count}{example}")
        for remark in one.remarks:
            print(f"{one.name}: remark: {remark}")


def counts(scenes: list[SceneRows]) -> list[int]:
    people = [person for _, people in scenes for _, person, *_ in people]
    cameras = {image["camera"] for image, _ in scenes if "camera" in image}
    named = {*people} - {None}
    return [len(scenes), len(people), people.count(None), len(named), len(cameras)]


def check_identities(done: list[Imported], options: str) -> None:
    """Check that at least one person has an identity.

    Raises:
        UserError: if none has.
    """
    people = [person for one in done for _, some in one.scenes for _, person, *_ in some]
    if any(person is not None for person in people):
        return
    remarks = [remark for one in done for remark in one.remarks]
    more = f" ({'; '.join(remarks[:3])})" if remarks else ""
    raise UserError(
        f"{first_of(one.name for one in done)}: expected identities in {options}, found none for "
        f"{len(people)} boxes{more}; give another key with --person-key"
    )


def main() -> None:
    args = parse_args()
    with folder_beside(args.out, "--out") as out:
        done = import_all(args, out)
        check_identities(done, args.person_key or " or ".join(PERSON_KEYS))
        check_effects(args, done)
        splits = divide(done, args)
        for split, scenes in splits.items():
            if not scenes:
                raise UserError(
                    f"nothing is left for {split}.json: expected another split "
                    "(--test-share, --test)"
                )
            write_annotations(out / f"{split}.json", scenes)
    report(done, splits)


if __name__ == "__main__":
    run_main(main)
