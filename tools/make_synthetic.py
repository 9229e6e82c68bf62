"""Generate a synthetic person search dataset in the layout of CUHK-SYSU, PRW, both, or own data."""

import argparse

from datasets.synthetic import write_dataset
from utils.errors import run_main


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--out", default="data/synthetic", metavar="FOLDER", help="a new folder")
    add(
        "--layout",
        default="cuhk",
        choices=("cuhk", "prw", "both", "coco"),
        help="into OUT/CUHK-SYSU, OUT/PRW, the same scenes into both, or OUT/COCO as own data",
    )
    add("--identities", type=int, default=150, metavar="N", help="a third of them for the test")
    add("--frames", type=int, default=500, metavar="N", help="a fifth of them for the gallery")
    add("--queries", type=int, default=50, metavar="N", help="people to search for")
    add("--width", type=int, default=416, metavar="PIXELS", help="of a frame")
    add("--height", type=int, default=256, metavar="PIXELS", help="of a frame")
    add("--seed", type=int, default=0, metavar="N", help="decides everything that is drawn")
    add(
        "--difficulty",
        type=float,
        default=1.0,
        metavar="X",
        help="scales camera effects and the share of look-alikes, 0 to 1.5; 0.2 suits minutes of "
        "training from random weights, 1 hours",
    )
    add("--workers", type=int, metavar="N", help="processes, one for each core if not given")
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    written = write_dataset(size=(args.pop("width"), args.pop("height")), **args)
    state = "written" if written else "already there, with these parameters; nothing to do"
    print(f"{args['out']}: {state}")


if __name__ == "__main__":
    run_main(main)
