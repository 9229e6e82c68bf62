"""Generate a synthetic person search dataset in the layout of CUHK-SYSU, PRW, or both.

python tools/make_synthetic.py --out data/synthetic --layout cuhk
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from datasets.synthetic import write_dataset  # noqa: E402
from utils.errors import run_main  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="a new folder")
    parser.add_argument(
        "--layout",
        default="cuhk",
        choices=("cuhk", "prw", "both"),
        help="into OUT/CUHK-SYSU, OUT/PRW, or the same scenes into both (default: cuhk)",
    )
    parser.add_argument(
        "--identities", type=int, default=150, help="a third of them for the test (default: 150)"
    )
    parser.add_argument(
        "--frames", type=int, default=500, help="a fifth of them gallery (default: 500)"
    )
    parser.add_argument("--queries", type=int, default=50, help="default: 50")
    parser.add_argument("--width", type=int, default=416, help="pixels (default: 416)")
    parser.add_argument("--height", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument(
        "--seed", type=int, default=0, help="decides everything that is drawn (default: 0)"
    )
    parser.add_argument(
        "--difficulty",
        type=float,
        default=1.0,
        help="scales camera effects and look-alikes, 0 to 1.5 (default: 1)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    args = vars(parser.parse_args())
    written = write_dataset(size=(args.pop("width"), args.pop("height")), **args)
    state = "written" if written else "already there, with these parameters; nothing to do"
    print(f"{args['out']}: {state}")


if __name__ == "__main__":
    run_main(main)
