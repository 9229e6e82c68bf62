"""Measure memory and time of a training step: plain, fast, and with each memory-saving option.

    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet50_base.yaml
    python -m tools.bench_step --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
        --teacher configs/cuhk_sysu/resnet50_base.yaml --measures none INPUT.BATCH_SIZE_TRAIN 1

The plain step is that of models/reference.py, which has the published options only; for another
method, precision or division of the batch it is left out. Plain and fast steps alternate, so that
both are measured under the same load.

Images, of the config's input size, and weights are random; the cost is the same as in training.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

import torch
from tabulate import tabulate
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from engine.device import choose_device, precision_of
from engine.teachers.choice import cached_reads
from engine.training.batching import Batching
from engine.training.generators import seed_everything
from engine.training.train_step import TrainStep
from models import reference
from models.backbones import backbone_of
from models.build import build_distiller, build_net, reference_sizes
from models.cached_teacher import CachedEmbeddings, CachedLogits, CachedTeacher
from models.distill import reads_of
from models.search_net import SearchNet
from tools.measure.machine import describe_machine, matmul_flops, peak_memory
from utils.arguments import add_overrides, positive, program_parser
from utils.errors import UserError, no_memory, run_main
from utils.memory import keep_freed_memory

PEOPLE = 8  # per image
IDENTITIES = 5532
# Keys, and beginnings of keys, of which models/reference.py has the published values only.
OF_NETWORK = ("BACKBONE.FREEZE", "MODEL.RPN.BATCH_SIZE", "MODEL.ROI.POSITIVE_FRACTION")
OF_NETWORK += ("MODEL.OIM.MOMENTUM", "MODEL.OIM.SCALE")
OF_NETWORK += ("SOLVER.AMP", "SOLVER.ACCUMULATE", "SOLVER.OPTIMIZER")
OF_TERMS = ("DISTILLER.DFD.", "DISTILLER.LD.", "DISTILLER.CD.", "DISTILLER.REID_TEACHER")
OF_TERMS += ("DISTILLER.TEACHER_AMP", "DISTILLER.GRADIENT_SHARE")


def measures(batch: int, device: torch.device) -> dict[str, list[str]]:
    """Return the overrides of each memory-saving option.

    SOLVER.ACCUMULATE divides a batch into single images.
    """
    half = {"SOLVER.AMP bf16": ["SOLVER.AMP", "bf16"], "SOLVER.AMP fp16": ["SOLVER.AMP", "fp16"]}
    if device.type == "cpu":  # fp16 is many times slower than float32 there
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
    """Return random images and their targets: people side by side, half as tall as the image."""
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
        {
            "boxes": boxes.to(device),
            "labels": torch.arange(1, PEOPLE + 1, device=device),
            "rows": 2 * torch.arange(PEOPLE * i, PEOPLE * (i + 1), device=device),
            "picture": torch.tensor(2 * i, device=device),
        }
        for i in range(images)
    ]
    return [torch.rand(3, height, width, device=device) for _ in range(images)], targets


class Bench:
    """A TrainStep in a process of its own; `step` runs one training step there."""

    def __init__(self, path: str, teacher: str | None, overrides: list[str], plain: bool = False):
        """Start the process.

        Args:
            path, teacher: config files of the network and of its teacher; None for no teacher.
            overrides: config values of the network.
            plain: whether to compute the plain formulas.
        """
        self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        self.pool.submit(_prepare, path, teacher, overrides, plain).result()

    def step(self) -> tuple[float, float]:
        """Return the seconds of a step, and the peak memory so far in bytes.

        Memory that imports had allocated before is not counted.
        """
        return self.pool.submit(_step).result()

    def flops(self) -> tuple[int, float]:
        """Return the FLOPs of a step, and the machine's FLOP per second in a matrix product."""
        return self.pool.submit(_flops).result()


_train: Callable[[], object]
_device: torch.device
_before: int


def _prepare(path: str, teacher: str | None, overrides: list[str], plain: bool) -> None:
    """Build the network and its training step in the child process; see `Bench.__init__`."""
    global _train, _device, _before
    cfg = load_cfg(path, ["BACKBONE.WEIGHTS", "", *overrides])
    teacher_cfg = load_cfg(teacher, ["BACKBONE.WEIGHTS", ""]) if teacher else None
    _device = choose_device(cfg.DEVICE)
    seed_everything(cfg.SEED)
    _before = 0 if _device.type == "cuda" else peak_memory(_device)
    if plain:
        _train = plain_step(cfg, teacher_cfg)
    else:
        keep_freed_memory(_device.type)
        _train = fast_step(cfg, teacher_cfg)


def fast_step(cfg: CfgNode, teacher_cfg: CfgNode | None) -> Callable[[], object]:
    """Return the training step of a run on a random batch."""
    net = model = build_net(cfg, IDENTITIES).to(_device)
    if teacher_cfg:
        teacher = build_net(teacher_cfg, IDENTITIES).to(_device)
        if cached_reads(cfg):
            teacher = random_cache(cfg, teacher)
        precision = precision_of("DISTILLER.TEACHER_AMP", cfg.DISTILLER.TEACHER_AMP)
        model = build_distiller(cfg, net, teacher, teacher_cfg, precision).to(_device)
    train_step = TrainStep(cfg, model.train(), net, _device)
    batching = Batching.of(cfg)
    parts = batching.parts(*make_batch(cfg, batching.size, _device), batching.size)
    return partial(train_step.step, parts, 1e-4, "a benchmark")


def random_cache(cfg: CfgNode, teacher: SearchNet) -> CachedTeacher:
    """Return a teacher with random cached outputs, whose tables are as long as those of one
    batch."""
    images, count = cfg.INPUT.BATCH_SIZE_TRAIN, cfg.DISTILLER.LD.CACHED_REGIONS
    rows, cached = 2 * images * PEOPLE, cached_reads(cfg)
    corners = torch.rand(images, count, 4) / 2
    embeddings = normalize(torch.randn(rows, teacher.oim.dim)).half()
    return CachedTeacher(
        CachedEmbeddings(embeddings, teacher.oim) if "embeddings" in cached else None,
        CachedLogits(
            torch.randn(rows, 2),
            corners + corners.new_tensor([0, 0, 0.5, 0.5]),
            torch.randn(2 * images, count, 2),
        )
        if "class_logits" in cached
        else None,
        teacher if reads_of(cfg.DISTILLER.TERMS) - cached else None,
    )


def plain_step(cfg: CfgNode, teacher_cfg: CfgNode | None) -> Callable[[], object]:
    """Return the training step of models/reference.py on a random batch."""
    student = reference.Network(reference_sizes(cfg, IDENTITIES)).to(_device)
    weights, teacher, dfd = list(student.parameters()), None, None
    if teacher_cfg:
        teacher = reference.Network(reference_sizes(teacher_cfg, IDENTITIES)).to(_device).eval()
        dfd = reference.DFD(cfg.MODEL.FPN_CHANNELS, teacher_cfg.MODEL.FPN_CHANNELS).to(_device)
        weights += dfd.parameters()
    weights = [weight for weight in weights if weight.requires_grad]
    optimizer = torch.optim.SGD(weights, 1e-4, momentum=0.9, weight_decay=5e-4)
    batch = make_batch(cfg, cfg.INPUT.BATCH_SIZE_TRAIN, _device)

    def step() -> list[float]:
        losses = reference.training_step(student, optimizer, *batch, teacher, dfd)
        return [float(loss) for loss in losses.values()]

    return step


def has_plain_step(cfg: CfgNode, teacher: str | None) -> bool:
    """Return True if models/reference.py computes the step of this config."""
    published, values = flatten(get_cfg()), flatten(cfg)
    fixed = OF_NETWORK + (OF_TERMS if teacher else ())
    if any(values[key] != published[key] for key in values if key.startswith(fixed)):
        return False
    networks = [cfg, *([load_cfg(teacher)] if teacher else [])]
    if not all(
        one.MODEL.NECK == "fpn" and backbone_of(one.BACKBONE.NAME).layers for one in networks
    ):
        return False
    return not teacher or sorted(cfg.DISTILLER.TERMS) == ["cd", "dfd", "ld"]


def _step() -> tuple[float, float]:
    start = time.perf_counter()
    _train()  # returns numbers, so it waits for the GPU
    return time.perf_counter() - start, peak_memory(_device) - _before


def _flops() -> tuple[int, float]:
    with FlopCounterMode(display=False) as counter:
        _train()
    return counter.get_total_flops(), matmul_flops(_device)


def in_turn(benches: list[Bench], repeats: int) -> list[list[tuple[float, float]]]:
    """Return the steps of each bench after one warm-up step. The benches take turns, one at a
    time."""
    for bench in benches:
        bench.step()
    rounds = [[bench.step() for bench in benches] for _ in range(repeats)]
    return [list(steps) for steps in zip(*rounds)]


def summary(steps: list[tuple[float, float]]) -> list[float]:
    """Return the peak GiB and the median seconds."""
    seconds, peaks = zip(*steps)
    return [max(peaks) / 2**30, statistics.median(seconds)]


def compare_with_plain(options: tuple, plain: bool, repeats: int) -> tuple[list[list], list[str]]:
    """Return table rows of the fast step and, with `plain`, of the plain step, and lines about
    them."""
    benches = [Bench(*options)] + ([Bench(*options, plain=True)] if plain else [])
    steps = in_turn(benches, repeats)
    flops, peak = benches[0].flops()
    rows = [[name, *summary(one)] for name, one in zip(("none", "plain formulas"), steps)]
    lines = [
        f"one step is {flops / 1e9:.0f} GFLOP and reaches {flops / rows[0][2] / peak:.0%} of the "
        f"{peak / 1e9:.0f} GFLOP/s of a matrix product on this machine"
    ]
    if plain:
        ratios = [a / b for (a, _), (b, _) in zip(*steps)]
        lines.append(
            f"time of fast relative to plain formulas, over pairs of steps: median "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    return rows, lines


def compare_teachers(path: str, teacher: str, overrides: list[str], repeats: int) -> str:
    """Return a table of the step alone, with a teacher, and with cached teachers."""
    terms = ["DISTILLER.TERMS"]
    cd, ld = ["DISTILLER.CD.CACHED", "True"], ["DISTILLER.LD.CACHED", "True"]
    overrides = [*overrides, "DISTILLER.DECAY", "[]"]  # costs nothing, and names other terms
    settings = {
        "alone": (None, overrides),
        "teacher": (teacher, overrides),
        "cached cd": (teacher, [*overrides, *terms, "['cd']", *cd]),
        "cached ld, cd": (teacher, [*overrides, *terms, "['ld','cd']", *cd, *ld]),
    }
    benches = [Bench(path, net, values) for net, values in settings.values()]
    steps = in_turn(benches, repeats)
    rows = []
    for name, one in zip(settings, steps):
        ratios = [a / b for (a, _), (b, _) in zip(one, steps[0])]
        rows.append([name, *summary(one), statistics.median(ratios), min(ratios), max(ratios)])
    headers = ["step", "peak GiB", "s per step", "time (relative)", "smallest", "largest"]
    return tabulate(rows, headers, floatfmt=".2f")


def report(*rows: list) -> None:
    """Print measured rows to stderr at once, since the final table can take many minutes."""
    for name, peak, seconds in rows:
        text = "out of memory" if seconds is None else f"{peak:.2f} GiB, {seconds:.2f} s per step"
        print(f"{name}: {text}", file=sys.stderr)


def measure_option(setting: tuple, name: str, options: list[str], repeats: int) -> list | None:
    """Return the table row of a memory-saving option; None if this network does not support it."""
    path, teacher, overrides = setting
    try:
        (steps,) = in_turn([Bench(path, teacher, [*overrides, *options])], repeats)
        return [name, *summary(steps)]
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, BrokenProcessPool) or no_memory(error)):
            raise
        return [name, None, None]


def table(rows: list[list]) -> str:
    """Format the rows, with their memory and time relative to the first row."""
    _, memory, seconds = rows[0]
    rows = [[*row, row[1] / memory, row[2] / seconds] if row[1] and memory else row for row in rows]
    headers = ["option", "peak GiB", "s per step", "memory (relative)", "time (relative)"]
    return tabulate(rows, headers, floatfmt=".2f", missingval="out of memory")


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument(
        "--teacher",
        metavar="FILE",
        help="YAML config of a teacher; the step is then a distillation step",
    )
    parser.add_argument(
        "--measures",
        choices=("none", "all", "teachers"),
        default="all",
        help="none: only the fast and the plain step; all: also every memory-saving option; "
        "teachers: in turn the step alone, with --teacher, and with its cached outputs "
        "(default: all)",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=3,
        metavar="N",
        help="timed steps after a warm-up (default: 3)",
    )
    add_overrides(parser)
    return parser.parse_intermixed_args()


def main() -> None:
    args = parse_args()
    cfg = load_cfg(args.cfg, args.overrides)
    device = choose_device(cfg.DEVICE)
    setting = args.cfg, args.teacher, args.overrides
    if args.measures == "teachers":
        if not args.teacher:
            raise UserError("--measures teachers: expected --teacher FILE")
        print(f"{describe_machine(device)}\n{compare_teachers(*setting, args.repeats)}")
        return
    options = measures(cfg.INPUT.BATCH_SIZE_TRAIN, device)
    try:
        plain = has_plain_step(cfg, args.teacher)
        rows, lines = compare_with_plain(setting, plain, args.repeats)
    except BrokenProcessPool:
        raise UserError(
            f"--cfg {args.cfg}: a step was stopped, most likely for lack of memory; expected a "
            "smaller INPUT.BATCH_SIZE_TRAIN or INPUT.MAX_SIZE"
        ) from None
    report(*rows)
    for name in list(options)[1:] if args.measures == "all" else []:
        if row := measure_option(setting, name, options[name], args.repeats):
            rows.append(row)
            report(row)
    print(
        f"{describe_machine(device)}\n{args.cfg}"
        f"{f' with teacher {args.teacher}' if args.teacher else ''}, batch of "
        f"{cfg.INPUT.BATCH_SIZE_TRAIN} images of {cfg.INPUT.MIN_SIZE}×{cfg.INPUT.MAX_SIZE}; "
        f"seed {cfg.SEED}, median of {args.repeats} steps\n{table(rows)}"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    run_main(main)
