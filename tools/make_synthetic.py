"""Generate a synthetic person search dataset in the layout of CUHK-SYSU, PRW, both or custom data,
or synthetic videos of several cameras with the true tracks.
"""

import argparse

from datasets.synthetic import write_dataset
from datasets.synthetic.videos import write_videos
from utils.arguments import nonempty, program_parser
from utils.errors import UserError, run_main


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=nonempty,
        default="data/synthetic",
        metavar="FOLDER",
        help="a new folder (default: data/synthetic)",
    )
    add(
        "--layout",
        default="cuhk",
        choices=("cuhk", "prw", "both", "coco", "video"),
        help="what is written: OUT/CUHK-SYSU, OUT/PRW, both with the same scenes, OUT/COCO (the "
        "form of custom data), or videos and their tracks in OUT/video (default: cuhk)",
    )
    add(
        "--identities",
        type=int,
        metavar="N",
        help="people with an identity (default: 150; videos: 20); a third of them is for the test",
    )
    add(
        "--frames",
        type=int,
        metavar="N",
        help="number of images (default: 500); a fifth of them is the gallery; not for videos",
    )
    add("--queries", type=int, metavar="N", help="query people (default: 50); not for videos")
    add("--cameras", type=int, metavar="N", help="videos only: number (default: 3)")
    add("--seconds", type=float, metavar="S", help="videos only: length of each (default: 60)")
    add("--rate", type=int, metavar="N", help="videos only: frames per second (default: 10)")
    add("--width", type=int, metavar="PIXELS", help="of a frame (default: 416; videos: 640)")
    add("--height", type=int, metavar="PIXELS", help="of a frame (default: 256; videos: 384)")
    add("--seed", type=int, default=0, metavar="N", help="random seed of everything (default: 0)")
    add(
        "--difficulty",
        type=float,
        default=1.0,
        metavar="X",
        help="factor of camera effects and of the share of look-alikes, 0 to 1.5 (default: 1); "
        "0.2 is for minutes of training from random weights, 1 for hours",
    )
    add("--workers", type=int, metavar="N", help="processes (default: one per core)")
    return parser.parse_args()


IMAGES_ONLY, VIDEOS_ONLY = ("frames", "queries"), ("cameras", "seconds", "rate")


def main() -> None:
    args = vars(parse_args())
    video = args["layout"] == "video"
    given = {name: value for name, value in args.items() if value is not None}
    for name in IMAGES_ONLY if video else VIDEOS_ONLY:
        if name in given:
            raise UserError(f"--{name}: not an option of --layout {args['layout']}")
    width, height = (640, 384) if video else (416, 256)
    given["size"] = (given.pop("width", width), given.pop("height", height))
    if video:
        del given["layout"]
    written = (write_videos if video else write_dataset)(**given)
    state = "written" if written else "already there, with these parameters; nothing to do"
    print(f"{args['out']}: {state}")


if __name__ == "__main__":
    run_main(main)
