"""Give each person of an index one number, across cameras and days; name, merge, split and forget.

    python -m tools.identities --index people [--out FOLDER]

Without other options, everyone who was seen since the last run gets a number: that of a known
person, or a new one. Two people in one picture, in one video at the same time, or at the same time
(for more than a second) in two cameras that do not overlap, never get the same number; two boxes of
which one lies within the other may. --forget removes people from the index: rows, pictures and
vectors, and copies of them inside the files. A PERSON is a number or a name.
"""

import argparse
import sys

from engine.cameras.forgetting import forget
from engine.cameras.identities import Identities, choose_similarity, identify, open_identities
from engine.cameras.persons import known_people, persons_page, table
from engine.cameras.tracklet_table import read_tracklets
from engine.index.gallery_index import index_folder
from engine.index.local import LocalPeople, open_people, writing
from engine.index.records import PersonFilter, camera_of, check_indexed_cameras
from engine.search.arguments import add_filters, check_min_similarity, filter_of
from utils.arguments import nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import make_folder, write_text
from utils.names import printable

PRECISION = 0.95


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add("--index", required=True, type=index_folder, metavar="FOLDER", help="the index")
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument(
        "--precision",
        type=float,
        metavar="SHARE",
        help="minimum share of correct pairs among tracklets with the same number, estimated from "
        f"people who are seen at the same time (default: {PRECISION})",
    )
    cut.add_argument(
        "--min-similarity",
        type=float,
        metavar="S",
        help="minimum mean similarity of two people who are merged",
    )
    add(
        "--overlapping",
        metavar="CAMERA,CAMERA",
        help="cameras that see the same place and can show one person at the same time",
    )
    add("--merge", nargs=2, metavar="PERSON", help="merge two people")
    add(
        "--split",
        nargs="+",
        metavar=("PERSON", "TRACKLET"),
        help="split these tracklets off a person, as another person",
    )
    add("--call", nargs=2, metavar=("PERSON", "NAME"), help="name a person")
    add(
        "--forget",
        nargs="*",
        metavar="PERSON",
        help="remove these people from the index; without PERSON: everyone who is selected by "
        "--camera, --after and --before",
    )
    add_filters(parser)
    add(
        "--out",
        type=nonempty_path,
        metavar="FOLDER",
        help="write a page with each person's pictures and timeline",
    )
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Check the options.

    Raises:
        UserError: if options are out of range or do not fit together.
    """
    if args.precision is not None and not 0 < args.precision < 1:
        raise UserError(f"--precision {args.precision:g}: expected a share between 0 and 1")
    check_min_similarity(args.min_similarity)
    if args.split and len(args.split) < 2:
        raise UserError("--split: expected PERSON and TRACKLET, found no TRACKLET")
    if args.split and not all(word.isdecimal() for word in args.split[1:]):
        raise UserError(f"--split: expected numbers of tracklets, found {args.split[1:]}")
    if args.forget == [] and filter_of(args) is None:
        raise UserError("--forget: expected PERSON, --camera, --after or --before, found none")
    decisions, numbering = (
        ("merge", "split", "call"),
        ("precision", "min_similarity", "overlapping"),
    )
    for changes, others in (
        (("forget",), (*decisions, "out", *numbering)),
        (decisions, numbering),  # whoever has no number yet gets none
    ):
        given = [one for one in changes if getattr(args, one) is not None]
        if unused := [one for one in others if given and getattr(args, one) is not None]:
            option = unused[0].replace("_", "-")
            raise UserError(f"--{option}: expected without --{given[0]}, found both")


def decide(args: argparse.Namespace, identities: Identities) -> bool:
    """Apply --merge, --split and --call. Return whether any of them was given."""
    if args.merge:
        kept = identities.merge(*map(identities.number_of, args.merge))
        print(f"merged: person {kept} {printable(identities.names()[kept])}".rstrip())
    if args.split:
        person = identities.number_of(args.split[0])
        print(f"split off: person {identities.split(person, set(map(int, args.split[1:])))}")
    if args.call:
        identities.rename(identities.number_of(args.call[0]), args.call[1])
    return bool(args.merge or args.split or args.call)


def run_forget(args: argparse.Namespace, person_filter: PersonFilter | None) -> None:
    with writing(args.index, None) as people:
        check_indexed_cameras(person_filter, people.known)
        identities = open_identities(args.index, people)
        tracklets = None
        if args.forget:
            numbers = {identities.number_of(word) for word in args.forget}
            tracklets = {t for t, one in identities.members().items() if one in numbers}
        count, gone = forget(people, args.index, tracklets, person_filter)
        identities.forget(gone)
    print(f"{count} people removed in {len(gone)} tracklets")


def run_identify(args: argparse.Namespace, people: LocalPeople, identities: Identities) -> None:
    found = read_tracklets(people)
    overlapping = set() if args.overlapping is None else set(args.overlapping.split(","))
    if unknown := overlapping - {camera_of(path) for path in found.paths}:
        raise UserError(f"--overlapping {min(unknown)!r}: expected a camera of the index")
    if len(overlapping) == 1:
        raise UserError(f"--overlapping {args.overlapping}: expected two cameras or more")
    before = identities.names()
    similarity = args.min_similarity
    if similarity is None:
        similarity = choose_similarity(found, args.precision or PRECISION, overlapping)
    identify(identities, found, similarity, overlapping)
    now = identities.names()
    print(
        f"{len(found)} tracklets of {len(now)} people, {len(now.keys() - before.keys())} of them "
        f"new; joined from a similarity of {similarity:.3f} on"
    )


def main() -> None:
    args = parse_args()
    check(args)
    person_filter = filter_of(args)
    if args.forget is not None:
        return run_forget(args, person_filter)
    people = open_people(args.index)
    check_indexed_cameras(person_filter, people.known)
    identities = open_identities(args.index, people)
    if not decide(args, identities):
        run_identify(args, people, identities)
    known = known_people(people, identities, person_filter)
    print(table(known))
    if args.out:
        make_folder(args.out, "--out")
        write_text(persons_page(known, people, args.index), args.out / "index.html")
        print(f"page: {args.out / 'index.html'}", file=sys.stderr)
    return None


if __name__ == "__main__":
    run_main(main)
