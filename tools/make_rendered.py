"""Render a person search dataset of people in three dimensions, as custom data.

    python -m tools.make_rendered --out data/rendered --frames 1500 --identities 500 --seed 2

It needs requirements-render.txt. An interrupted run continues with the same command. What the
options mean and what is in the images: docs/photographs.md.
"""

import argparse

from datasets.rendered import write_dataset
from utils.arguments import add_size, nonempty, positive, program_parser, whole
from utils.errors import run_main


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=nonempty,
        default="data/rendered",
        metavar="FOLDER",
        help="a new folder, or that of an interrupted run (default: data/rendered)",
    )
    add(
        "--frames",
        type=positive,
        default=500,
        metavar="N",
        help="images (default: 500); a fifth of them is the gallery",
    )
    add(
        "--identities",
        type=positive,
        default=200,
        metavar="N",
        help="people with an identity (default: 200); a third of them is for the test",
    )
    add(
        "--cameras",
        type=positive,
        default=2,
        metavar="N",
        help="cameras that see a scene at the same time (default: 2)",
    )
    add_size(parser, (640, 360), "a frame")
    add(
        "--min-visible",
        type=float,
        default=0.3,
        metavar="X",
        help="minimum visible share of a person with a box (default: 0.3)",
    )
    add(
        "--min-height",
        type=positive,
        default=16,
        metavar="PIXELS",
        help="minimum height of a box (default: 16)",
    )
    add("--seed", type=whole, default=0, metavar="N", help="random seed of everything (default: 0)")
    add("--workers", type=positive, metavar="N", help="processes (default: one per core)")
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    written = write_dataset(size=tuple(args.pop("size")), **args)
    state = "written" if written else "already there, with these parameters; nothing to do"
    print(f"{args['out']}: {state}")


if __name__ == "__main__":
    run_main(main)
