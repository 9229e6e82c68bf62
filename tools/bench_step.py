"""Memory and time of a training step, plain and with each memory-saving measure, side by side.

    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet50_base.yaml
    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
        --teacher configs/cuhk_sysu/resnet50_base.yaml --measures none INPUT.BATCH_SIZE_TRAIN 1

Random images of the config's full input size, random weights; the cost is the real one.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import torch
from tabulate import tabulate

from configs.defaults import load_cfg
from engine.generators import seed_everything
from engine.learner import Learner
from models.build import build_distiller, build_net, choose_device
from tools.profile_model import machine, peak_memory
from utils.errors import run_main

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


def measure(
    path: str, teacher: str | None, overrides: list[str], repeats: int
) -> tuple[float, float]:
    """Peak bytes beside what the process held before, and median seconds of a step; expects a
    fresh process. path, teacher: configs."""
    cfg = load_cfg(path, ["BACKBONE.WEIGHTS", "", *overrides])
    device = choose_device(cfg.DEVICE)
    seed_everything(cfg.SEED)
    before = 0 if device.type == "cuda" else peak_memory(device)
    net = model = build_net(cfg, IDENTITIES).to(device)
    if teacher:
        teacher_cfg = load_cfg(teacher, ["BACKBONE.WEIGHTS", ""])
        teacher_net = build_net(teacher_cfg, IDENTITIES).to(device)
        model = build_distiller(cfg, net, teacher_net, teacher_cfg).to(device)
    learner = Learner(cfg, model.train(), net, device)
    batch = cfg.INPUT.BATCH_SIZE_TRAIN
    images, targets = make_batch(cfg, batch, device)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        learner.step(images, targets, batch, 1e-4, "a benchmark")  # ends with numbers: it waits
        times.append(time.perf_counter() - start)
    return peak_memory(device) - before, statistics.median(times[1:])


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
    parser.add_argument("--repeats", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.cfg, args.overrides)
    rows = []
    device = choose_device(cfg.DEVICE)
    trials = measures(cfg.INPUT.BATCH_SIZE_TRAIN, device)
    for name, options in list(trials.items())[: 1 if args.measures == "none" else None]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                job = pool.submit(
                    measure, args.cfg, args.teacher, [*args.overrides, *options], args.repeats
                )
                memory, seconds = job.result()
                rows.append([name, memory / 2**30, seconds])
            except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
                rows.append([name, None, None])
        print(f"{name}: done", file=sys.stderr)
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


if __name__ == "__main__":
    run_main(main)
