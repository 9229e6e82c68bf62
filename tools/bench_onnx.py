"""Compare the speed of a network in PyTorch and as ONNX files.

    python -m tools.bench_onnx --cfg F --ckpt F --onnx student.onnx student_int8.onnx

All networks process the same pictures in the same order, one at a time, and take turns after every
picture. All use as many threads as PyTorch. The first round is a warm-up and is not timed.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

from tabulate import tabulate
from torch import Tensor

from configs.defaults import load_cfg, take_overrides
from engine.checkpoint import load_net
from engine.device import choose_device
from models.network import Network
from tools.export.parity import PICTURES
from tools.measure.machine import describe_machine
from utils.arguments import add_overrides, positive, program_parser
from utils.errors import run_main
from utils.media import read_pixels
from utils.memory import keep_freed_memory
from utils.names import short_names


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of that config")
    parser.add_argument(
        "--onnx",
        required=True,
        nargs="+",
        metavar="FILE",
        help="files that tools.export_onnx made from this checkpoint",
    )
    parser.add_argument(
        "--pictures",
        nargs="+",
        default=PICTURES,
        metavar="IMAGE",
        help="pictures to search for people (default: three of demo_imgs)",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=10,
        metavar="N",
        help="timed rounds over the pictures (default: 10)",
    )
    add_overrides(parser)
    args = parser.parse_intermixed_args()
    take_overrides(args, "onnx", "pictures")
    return args


def seconds(net: Network, image: Tensor) -> float:
    """Return the seconds of one detection pass, until its result is on the CPU."""
    start = time.perf_counter()
    for people in net.detect([image]):
        people.scores.cpu()
    return time.perf_counter() - start


def measure(nets: dict[str, Network], images: list[Tensor], repeats: int) -> dict[str, float]:
    """Return the median seconds per image of each network. The first round is not timed."""
    times: dict[str, list[float]] = {name: [] for name in nets}
    for _, image in itertools.product(range(repeats + 1), images):
        for name, net in nets.items():
            times[name].append(seconds(net, image))
    return {name: statistics.median(some[len(images) :]) for name, some in times.items()}


def main() -> None:
    args = parse_args()
    cfg = load_cfg(args.cfg, args.overrides)
    device = choose_device(cfg.DEVICE)
    keep_freed_memory(device.type)
    images = [read_pixels(path, upright=True).to(device) for path in args.pictures]
    names = short_names([Path(path) for path in args.onnx])
    files = {"PyTorch": Path(args.ckpt)} | {name: path for path, name in names.items()}
    nets = {name: load_net(cfg, path, device) for name, path in files.items()}
    taken = measure(nets, images, args.repeats)
    print(describe_machine(device))
    rows = [
        [name, files[name].stat().st_size / 1e6, 1e3 * one, f"{one / taken['PyTorch']:.2f}×"]
        for name, one in taken.items()
    ]
    print(tabulate(rows, ["", "file, MB", "ms per image", "relative to PyTorch"], floatfmt=".1f"))


if __name__ == "__main__":
    run_main(main)
