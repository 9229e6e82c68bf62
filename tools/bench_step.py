"""Memory and time of a training step, plain, fast and with each memory-saving measure.

Plain: by the formulas of what models/fast computes, step by step in turn with the fast one.

    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet50_base.yaml
    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
        --teacher configs/cuhk_sysu/resnet50_base.yaml --measures none INPUT.BATCH_SIZE_TRAIN 1

Random images of the config's full input size, random weights; the cost is the real one.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

import torch
from tabulate import tabulate
from torch.utils.flop_counter import FlopCounterMode

from configs.defaults import load_cfg
from engine.training.generators import seed_everything
from engine.training.train_step import TrainStep
from models.build import build_distiller, build_net, choose_device
from tools.plain import plain_formulas
from tools.profile_model import machine, matmul_flops, peak_memory, positive
from utils.errors import UserError, no_memory, run_main

PEOPLE = 8  # in each image
IDENTITIES = 5532


def measures(batch: int, device: torch.device) -> dict[str, list[str]]:
    """Name -> config values; a batch is cut into single images."""
    half = {"SOLVER.AMP bf16": ["SOLVER.AMP", "bf16"], "SOLVER.AMP fp16": ["SOLVER.AMP", "fp16"]}
    if device.type == "cpu":  # which computes fp16 many times slower than float32
        half.popitem()
    single = half | {
        f"SOLVER.ACCUMULATE {batch}": ["SOLVER.ACCUMULATE", str(batch)],
        "BACKBONE.CHECKPOINT True": ["BACKBONE.CHECKPOINT", "True"],
        "BACKBONE.FROZEN_BN True": ["BACKBONE.FROZEN_BN", "True"],
    }
    parts = [f"SOLVER.ACCUMULATE {batch}", "BACKBONE.CHECKPOINT True"]
    return (
        {"none": []}
        | single
        | {
            "ACCUMULATE and CHECKPOINT": [value for name in parts for value in single[name]],
            "bf16, ACCUMULATE and CHECKPOINT": [
                value for name in ["SOLVER.AMP bf16", *parts] for value in single[name]
            ],
        }
    )


def make_batch(cfg, images: int, device: torch.device) -> tuple[list, list]:
    """Random images with people of half their height side by side."""
    height, width = cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE
    left = torch.arange(PEOPLE) * width / PEOPLE
    boxes = torch.stack(
        [
            left,
            torch.full_like(left, height / 4),
            left + width / PEOPLE / 2,
            torch.full_like(left, 3 * height / 4),
        ],
        dim=1,
    )
    targets = [
        {"boxes": boxes.to(device), "labels": torch.arange(1, PEOPLE + 1, device=device)}
        for _ in range(images)
    ]
    return [torch.rand(3, height, width, device=device) for _ in range(images)], targets


class Bench:
    """A train_step in a process of its own, which takes a step when asked."""

    def __init__(self, path: str, teacher: str | None, overrides: list[str], plain: bool = False):
        """path, teacher: configs; plain: by the plain formulas."""
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.pool.submit(_prepare, path, teacher, overrides, plain).result()

    def step(self) -> tuple[float, float]:
        """Seconds, and the peak so far in bytes, beside what the process held before."""
        return self.pool.submit(_step).result()

    def flops(self) -> tuple[int, float]:
        """Of a step, and of the machine in a second."""
        return self.pool.submit(_flops).result()


_learn: Callable[[], None]
_device: torch.device
_before: int
_formulas = ExitStack()  # in force for as long as it lives: with the process


def _prepare(path: str, teacher: str | None, overrides: list[str], plain: bool) -> None:
    global _learn, _device, _before
    if plain:
        _formulas.enter_context(plain_formulas())
    cfg = load_cfg(path, ["BACKBONE.WEIGHTS", "", *overrides])
    _device = choose_device(cfg.DEVICE)
    seed_everything(cfg.SEED)
    _before = 0 if _device.type == "cuda" else peak_memory(_device)
    net = model = build_net(cfg, IDENTITIES).to(_device)
    if teacher:
        teacher_cfg = load_cfg(teacher, ["BACKBONE.WEIGHTS", ""])
        teacher_net = build_net(teacher_cfg, IDENTITIES).to(_device)
        model = build_distiller(cfg, net, teacher_net, teacher_cfg).to(_device)
    train_step = TrainStep(cfg, model.train(), net, _device)
    batch = cfg.INPUT.BATCH_SIZE_TRAIN
    images, targets = make_batch(cfg, batch, _device)
    _learn = partial(train_step.step, images, targets, batch, 1e-4, "a benchmark")


def _step() -> tuple[float, float]:
    start = time.perf_counter()
    _learn()  # ends with numbers: it waits for a GPU
    return time.perf_counter() - start, peak_memory(_device) - _before


def _flops() -> tuple[int, float]:
    with FlopCounterMode(display=False) as counter:
        _learn()
    return counter.get_total_flops(), matmul_flops(_device)


def in_turn(benches: list[Bench], repeats: int) -> list[list[tuple[float, float]]]:
    """For each bench its steps, after one that does not count; one bench waits for the other."""
    for bench in benches:
        bench.step()
    rounds = [[bench.step() for bench in benches] for _ in range(repeats)]
    return [list(steps) for steps in zip(*rounds)]


def summary(steps: list[tuple[float, float]]) -> list[float]:
    """Peak GiB, median seconds."""
    seconds, peaks = zip(*steps)
    return [max(peaks) / 2**30, statistics.median(seconds)]


def compare_with_plain(options: tuple, repeats: int) -> tuple[list[list], str]:
    """Rows of the plain formulas and the fast ones, step by step in turn, and a line on both."""
    fast, plain = Bench(*options), Bench(*options, plain=True)
    steps = in_turn([fast, plain], repeats)
    ratios = [a / b for (a, _), (b, _) in zip(*steps)]
    flops, peak = fast.flops()
    rows = [[name, *summary(one)] for name, one in zip(("none", "plain formulas"), steps)]
    return rows, (
        f"fast over plain formulas, pair by pair: {statistics.median(ratios):.2f} of the time "
        f"({min(ratios):.2f} to {max(ratios):.2f}); a step is {flops / 1e9:.0f} GFLOP, at "
        f"{flops / rows[0][2] / peak:.0%} of this machine's {peak / 1e9:.0f} GFLOP/s of matmul"
    )


def tell(*rows: list) -> None:
    """What is measured, as it comes: the table stands at the end of many minutes."""
    for name, peak, seconds in rows:
        said = "out of memory" if seconds is None else f"{peak:.2f} GiB, {seconds:.2f} s a step"
        print(f"{name}: {said}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        help="a teacher's config: the step is a distillation step under it",
    )
    parser.add_argument(
        "--measures",
        choices=("none", "all"),
        default="all",
        help="of saving memory; none: the plain step alone (default: all)",
    )
    parser.add_argument("--repeats", type=positive, default=3, help="timed steps, after one")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.cfg, args.overrides)
    device = choose_device(cfg.DEVICE)
    trials = measures(cfg.INPUT.BATCH_SIZE_TRAIN, device)
    setting = args.cfg, args.teacher
    try:
        rows, line = compare_with_plain((*setting, args.overrides), args.repeats)
    except BrokenProcessPool:
        raise UserError(
            f"--cfg {args.cfg}: a step was stopped, most likely for want of memory; expected a "
            "smaller INPUT.BATCH_SIZE_TRAIN or INPUT.MAX_SIZE"
        ) from None
    tell(*rows)
    for name, options in list(trials.items())[1:] if args.measures == "all" else []:
        try:
            (steps,) = in_turn([Bench(*setting, [*args.overrides, *options])], args.repeats)
            rows.append([name, *summary(steps)])
        except UserError as error:  # a measure that is not for this network
            print(f"{name}: {error}", file=sys.stderr)
            continue
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, BrokenProcessPool) or no_memory(error)):
                raise
            rows.append([name, None, None])
        tell(rows[-1])
    _, memory, seconds = rows[0]
    table = [
        [*row, row[1] / memory, row[2] / seconds] if row[1] and memory else row for row in rows
    ]
    print(
        f"{machine(device)}\n{args.cfg}{f' under {args.teacher}' if args.teacher else ''}, batch "
        f"{cfg.INPUT.BATCH_SIZE_TRAIN} of {cfg.INPUT.MIN_SIZE} x {cfg.INPUT.MAX_SIZE}; "
        f"seed {cfg.SEED}, median of {args.repeats} steps"
    )
    print(
        tabulate(
            table,
            ["measure", "peak GiB", "s per step", "memory", "time"],
            floatfmt=".2f",
            missingval="out of memory",
        )
    )
    print(line)


if __name__ == "__main__":
    run_main(main)
