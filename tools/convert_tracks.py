"""Convert sequences with tracks in the form of MOTChallenge to custom data (INPUT.DATASET COCO).

python -m tools.convert_tracks SEQUENCE [SEQUENCE ...] --out FOLDER --test-share 0.5

A sequence is a folder (img1/, gt/gt.txt, seqinfo.ini), or a video with a file of boxes beside it,
which has the same name and ends in .txt. Each sequence is one camera. Pictures are copied; frames
of a video are written as JPEG files.
"""

import argparse
from collections import Counter
from itertools import combinations
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from datasets.coco_files import PersonRow, write_annotations
from datasets.importers.writer import SceneRows, put, unusable
from datasets.track_files import WITH_CLASS, WITH_VISIBILITY, Rules
from datasets.tracks import Sequence, drop_copies, read_sequence
from utils.arguments import nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import folder_beside, make_folder
from utils.media import picture_size


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "sequences",
        nargs="+",
        type=nonempty_path,
        metavar="SEQUENCE",
        help="a folder or a video",
    )
    add("--out", required=True, type=nonempty_path, metavar="FOLDER", help="a new folder")
    split = parser.add_mutually_exclusive_group(required=True)
    split.add_argument(
        "--test-share",
        type=float,
        metavar="X",
        help="split by time: the last X of each sequence's frames are the test",
    )
    split.add_argument(
        "--test-sequences",
        nargs="+",
        metavar="NAME",
        help="split by sequence: these are the test, all others are for training",
    )
    add(
        "--boxes",
        nargs="+",
        type=nonempty_path,
        metavar="FILE",
        help="files of boxes (default: see above)",
    )
    add_selection(parser)
    add(
        "--classes",
        type=int,
        nargs="+",
        metavar="N",
        help="classes of people (default: 1, or what gt/labels.txt calls a person)",
    )
    args = parser.parse_args()
    check(args)
    return args


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that tools.import_annotations has too; see `check_selection`."""
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="of every N frames, take the first one"
    )
    parser.add_argument(
        "--min-visibility",
        type=float,
        default=Rules.visibility,
        metavar="X",
        help="MOTChallenge: leave out people of whom a smaller share is visible (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--shared-identities",
        action="store_true",
        help="equal ids in different sources are the same person (default: different people)",
    )


def check_selection(args: argparse.Namespace) -> None:
    """Check --test-share and the options of `add_selection`.

    Raises:
        UserError: if a value is out of range.
    """
    if args.test_share is not None and not 0 < args.test_share < 1:
        raise UserError(f"--test-share: expected above 0 and below 1, found {args.test_share}")
    if args.every < 1:
        raise UserError(f"--every: expected at least 1, found {args.every}")
    if not 0 <= args.min_visibility <= 1:
        raise UserError(f"--min-visibility: expected 0 to 1, found {args.min_visibility}")


def check(args: argparse.Namespace) -> None:
    check_selection(args)
    if args.boxes and len(args.boxes) != len(args.sequences):
        raise UserError(
            f"--boxes: expected one file for each of {len(args.sequences)} sequences, "
            f"found {len(args.boxes)}"
        )


def read_all(args: argparse.Namespace) -> tuple[list[Sequence], list[str]]:
    """Read the sequences.

    Returns:
        The sequences, whose names are distinct, and a remark on each copy of another one.

    Raises:
        UserError: if the names of two differ by upper and lower case at most, which may be equal in
            a file system, or if --test-sequences names another one.
    """
    rules = Rules(frozenset(args.classes) if args.classes else None, args.min_visibility)
    boxes = args.boxes or [None] * len(args.sequences)
    sequences = [read_sequence(*pair, rules) for pair in zip(args.sequences, boxes)]
    sequences, remarks = drop_copies(sequences)
    names = [sequence.name for sequence in sequences]
    for first, second in combinations(names, 2):
        if first.casefold() == second.casefold():
            raise UserError(
                "SEQUENCE: expected names that differ by more than upper and lower case, "
                f"found {first} and {second}"
            )
    for name in args.test_sequences or ():
        if name not in names:
            raise UserError(f"--test-sequences {name}: expected one of {', '.join(names)}")
    return sequences, remarks


def check_effects(args: argparse.Namespace, sequences: list[Sequence]) -> None:
    """Check that the files of boxes contain what the options select.

    Raises:
        UserError: if none of them does.
    """
    columns = {number for sequence in sequences for number in sequence.columns}
    for option, given, needed in (
        ("--classes", args.classes, WITH_CLASS),
        ("--min-visibility", args.min_visibility != Rules.visibility, WITH_VISIBILITY),
    ):
        if given and not columns & needed:
            expected, found = (" or ".join(map(str, sorted(some))) for some in (needed, columns))
            raise UserError(f"{option}: expected lines of {expected} columns, found {found}")


def convert(sequence: Sequence, out: Path, args: argparse.Namespace) -> list[SceneRows]:
    """Write one of every `args.every` pictures into out/images/NAME.

    Returns:
        The pictures with their people, in the form of an annotation file.
    """
    folder = Path("images", sequence.name)
    make_folder(out / folder, "--out")
    scenes = []
    for number, (frame, picture) in enumerate(
        tqdm(sequence.frames(), sequence.name, len(sequence.pictures) or None, unit="frame")
    ):
        if number % args.every:
            continue
        name = folder / (picture.name if isinstance(picture, Path) else f"{frame:06d}.jpg")
        put(picture, out / name)
        size = picture_size(picture, True) if isinstance(picture, Path) else picture.size
        if sequence.size and size != sequence.size:
            raise UserError(
                f"{picture}: expected {sequence.size} pixels, the size in seqinfo.ini, found {size}"
            )
        image = {
            "file_name": name.as_posix(),
            "width": size[0],
            "height": size[1],
            "camera": sequence.name,
            "frame": frame,
        }
        scenes.append((image, people_in(sequence, frame, size, args.shared_identities)))
    return scenes


def people_in(
    sequence: Sequence, frame: int, size: tuple[int, int], shared: bool
) -> list[PersonRow]:
    """Return the people in a picture, and count boxes that cannot be used in `sequence.left_out`.

    Args:
        size: width and height of the picture.
        shared: whether equal ids in different sequences are the same person.
    """
    people: list[PersonRow] = []
    for person, xywh in sequence.people.get(frame, []):
        if reason := unusable(xywh, size):
            sequence.left_out[reason] += 1
            continue
        name = person if shared else f"{sequence.name}/{person}"
        people.append((xywh, None if person < 0 else name))
    return people


def divide(
    name: str, scenes: list[SceneRows], args: argparse.Namespace
) -> tuple[list[SceneRows], ...]:
    """Return the scenes of a sequence for training, and those for the test."""
    if args.test_sequences:
        return ([], scenes) if name in args.test_sequences else (scenes, [])
    first = len(scenes) - round(len(scenes) * args.test_share)
    return scenes[:first], scenes[first:]


def report(splits: dict[str, list[SceneRows]], left_out: Counter) -> None:
    rows = []
    for split, scenes in splits.items():
        people = [person for _, people in scenes for _, person, *_ in people]
        cameras = {image["camera"] for image, _ in scenes}
        rows.append([split, len(scenes), len(people), len({*people} - {None}), len(cameras)])
    print(tabulate(rows, ["", "images", "boxes", "people", "cameras"]))
    for reason, count in sorted(left_out.items()):
        print(f"left out, {reason}: {count} boxes")


def main() -> None:
    args = parse_args()
    sequences, remarks = read_all(args)
    check_effects(args, sequences)
    splits: dict[str, list[SceneRows]] = {"train": [], "test": []}
    with folder_beside(args.out, "--out") as out:
        for sequence in sequences:
            parts = divide(sequence.name, convert(sequence, out, args), args)
            for scenes, part in zip(splits.values(), parts):
                scenes += part
        for split, scenes in splits.items():
            if not scenes:
                raise UserError(f"nothing is left for {split}.json: expected another split")
            write_annotations(out / f"{split}.json", scenes)
    report(splits, sum((sequence.left_out for sequence in sequences), Counter()))
    for remark in remarks + [remark for sequence in sequences for remark in sequence.remarks]:
        print(f"remark: {remark}")


if __name__ == "__main__":
    run_main(main)
