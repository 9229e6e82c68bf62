"""Compare the speed of tools.watch with that of the network alone on the same pictures.

    python -m tools.bench_watch --ckpt student.onnx hall.mp4 door.mp4 RUNTIME openvino

Both take turns, round by round: the network in a loop over frames of the videos that were decoded
before, and tools.watch, which plays the videos as cameras at their pace, into a new index. Printed
are frames per second, CPU milliseconds per frame (all threads), and the medians over the rounds of
the ratios of both. The CPU time of tools.watch includes the decoding of frames that it drops.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor

from engine.cameras.sources import Camera, name_cameras
from engine.default_network import add_network_options, network_of, parse_sources
from engine.search.searcher import Searcher
from tools.measure.machine import describe_machine
from tools.watch import run_watch
from utils.arguments import positive, program_parser
from utils.errors import UserError, run_main
from utils.memory import keep_freed_memory
from utils.streams import is_stream
from utils.videos import sample_frames

PICTURES = 20  # frames of each video that the network alone processes
EVERY = 0.5  # seconds between them


class Deadline:
    """In place of signals: `number` is not 0 when the time is over."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def number(self) -> int:
        return int(time.monotonic() >= self.end)


def network_alone(searcher: Searcher, pictures: list[Tensor], seconds: float) -> int:
    """Detect people in one picture after another; return the number of pictures."""
    deadline = Deadline(seconds)
    for count, picture in enumerate(cycle(pictures), 1):
        searcher.detect([picture])
        if deadline.number:
            return count
    return 0


def watched(searcher: Searcher, cameras: list[Camera], seconds: float) -> int:
    """Run tools.watch into a new index; return the number of frames."""
    with tempfile.TemporaryDirectory() as folder:
        args = argparse.Namespace(
            index=Path(folder) / "index",
            watch_for=[],
            min_similarity=None,
            false_alarms=None,
            post=None,
            recorded=None,
            keep_days=math.inf,
            max_gb=math.inf,
        )
        return run_watch(args, cameras, searcher, Deadline(seconds))


def measure(work: Callable[[], int]) -> tuple[float, float]:
    """Return frames per second and CPU milliseconds per frame.

    Raises:
        UserError: if there was no frame.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    frames = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if not frames:
        raise UserError(f"--seconds: expected more, found no frame in {wall:.1f} s")
    return frames / wall, 1000 * cpu / frames


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    add_network_options(parser)
    parser.add_argument(
        "--seconds", type=positive, default=20, metavar="N", help="of a turn (default: 20)"
    )
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="turns of each (default: 5)"
    )
    parser.add_argument(
        "sources", nargs="+", metavar="VIDEO", help="a camera; also config values as KEY VALUE"
    )
    return parse_sources(parser)


def main() -> None:
    args = parse_args()
    cameras = name_cameras(args.sources)
    if not cameras or any(is_stream(camera.source) for camera in cameras):
        raise UserError("VIDEO: expected files")
    searcher = Searcher.load(*network_of(args.cfg, args.ckpt, args.overrides))
    keep_freed_memory(searcher.device.type)
    pictures = [
        frame.pixels
        for camera in cameras
        for frame in islice(sample_frames(Path(camera.source), EVERY, None, print), PICTURES)
    ]
    measure(lambda: network_alone(searcher, pictures, 1))  # warms up
    alone, whole = [], []
    for _ in range(args.rounds):
        alone.append(measure(lambda: network_alone(searcher, pictures, args.seconds)))
        whole.append(measure(lambda: watched(searcher, cameras, args.seconds)))
    print(describe_machine(torch.device("cpu")))
    medians = [[statistics.median(column) for column in zip(*rows)] for rows in (alone, whole)]
    rows = [[name, *row] for name, row in zip(("network alone", "tools.watch"), medians)]
    print(tabulate(rows, ["", "frames/s", "CPU ms/frame"], floatfmt=".2f"))
    speed = statistics.median(w[0] / a[0] for a, w in zip(alone, whole))
    cpu = statistics.median(a[1] / w[1] for a, w in zip(alone, whole))
    print(f"ratio of frames/s {speed:.3f}; of frames per CPU second {cpu:.3f}")


if __name__ == "__main__":
    run_main(main)
