"""Render a person search dataset of people in three dimensions, in the form of custom data.

It needs pip install -r requirements-render.txt. Killed and started again, it goes on.
"""

import argparse

from datasets.rendered import write_dataset
from utils.errors import run_main


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", default="data/rendered", metavar="FOLDER", help="a new folder, or one to go on in")
    add("--frames", type=int, default=500, metavar="N", help="a fifth of them for the gallery")
    add("--identities", type=int, default=200, metavar="N", help="a third of them for the test")
    add("--cameras", type=int, default=2, metavar="N", help="that see a moment at the same time")
    add("--size", type=int, nargs=2, default=(640, 360), metavar=("W", "H"), help="of a frame")
    add(
        "--min-visible",
        type=float,
        default=0.3,
        metavar="X",
        help="people of whom less is seen have no box; see docs/photographs.md",
    )
    add("--min-height", type=int, default=16, metavar="PIXELS", help="of a labelled person's box")
    add("--seed", type=int, default=0, metavar="N", help="decides everything")
    add("--workers", type=int, metavar="N", help="processes, one for each core if not given")
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    written = write_dataset(size=tuple(args.pop("size")), **args)
    state = "written" if written else "already there, with these parameters; nothing to do"
    print(f"{args['out']}: {state}")


if __name__ == "__main__":
    run_main(main)
