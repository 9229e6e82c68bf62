"""Measure how many frames one CPU core renders in a second.

    python -m tools.bench_rendered --frames 12 --people 8

Every scene is at another place, and each of its cameras records one frame. The time of a frame
includes its people, scene, labels and JPEG. The time to load the body model is reported separately.
The program needs requirements-render.txt.
"""

import io
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from datasets.rendered.body import check_packages, load_body
from datasets.rendered.moments import render_moment
from datasets.rendered.plan import make_plan
from tools.measure.machine import describe_machine
from utils.arguments import add_size, positive, program_parser, whole
from utils.errors import run_main


def main() -> None:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add("--frames", type=positive, default=12, metavar="N", help="frames (default: 12)")
    add("--people", type=positive, default=8, metavar="N", help="people per scene (default: 8)")
    add("--cameras", type=positive, default=2, metavar="N", help="cameras per scene (default: 2)")
    add_size(parser, (640, 360), "a frame")
    add("--seed", type=whole, default=0, metavar="N", help="random seed (default: 0)")
    args = parser.parse_args()
    check_packages()
    torch.set_num_threads(1)
    print(describe_machine(torch.device("cpu")))
    start = time.process_time()
    load_body()
    print(f"body model: {time.process_time() - start:.1f} s")
    rows, seconds, frames = [], [], 0
    plan = make_plan(max(3 * args.people, 3), 40 * args.frames + 10, args.cameras, args.seed)
    for moment in plan.train[::4]:
        if frames >= args.frames:
            break
        moment = replace(moment, people=tuple(range(1, args.people + 1)))
        start = time.process_time()
        for image, quality, _ in render_moment(moment, args.cameras, tuple(args.size), args.seed):
            Image.fromarray(image).save(io.BytesIO(), "JPEG", quality=quality)
        seconds.append((time.process_time() - start) / moment.cameras)
        frames += moment.cameras
        rows.append([moment.place_kind, moment.framing, seconds[-1]])
    print(tabulate(rows, ["place", "framing", "CPU seconds a frame"], floatfmt=".2f"))
    mean = float(np.mean(seconds))
    print(f"{args.people} people, {args.size[0]}x{args.size[1]}: {1 / mean:.2f} frames/s and core")


if __name__ == "__main__":
    run_main(main)
