"""Compare the time of a picture: students, and a detector with a re-identification network.

    python -m tools.bench_speed --runtime openvino
    python -m tools.bench_speed --runtime openvino --bf16 --sizes 384x640 900x1500

All networks have random weights and take turns, round by round, on one picture with --people
people. A student's time includes everything from the picture to boxes, scores and embeddings. The
pair is YOLO26n and OSNet x0.25 on one crop of 256x128 for each of the people; only its networks are
timed, not its resizing, cropping and reading of boxes. The pair is left out unless the package
ultralytics is installed (AGPL-3.0; not among the requirements of this project).

A ratio is the median, over the rounds, of two times of one round, so that other programs on the
machine affect both sides. --clock cpu takes the CPU seconds of all threads instead, for a machine
that other programs use.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from configs.defaults import load_cfg, take_overrides
from engine.onnx_net import INPUTS, OUTPUTS, OnnxFile
from engine.runtimes.openvino_session import OpenVinoSession
from models.fast.inference import optimize_for_inference
from tools.export_onnx import to_onnx
from tools.measure.machine import describe_machine
from tools.measure.network import make_net
from utils.arguments import add_overrides, converted, positive, program_parser
from utils.errors import UserError, run_main

CONFIGS = [
    f"configs/cuhk_sysu/{name}_base.yaml" for name in ("mobilenet_v3_large_c4", "mobilenet_v2_slim")
]
RUNTIMES = "pytorch", "onnxruntime", "openvino"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PAIR = "YOLO26n + OSNet x0.25"
YOLO_STRIDE = 32  # the sides of its pictures are multiples of it
CPU = torch.device("cpu")
Run = Callable[[], object]


class LightConv(nn.Sequential):
    """A pointwise convolution and a depthwise one of 3x3, with BatchNorm and ReLU."""

    def __init__(self, width: int):
        depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        pointwise = nn.Conv2d(width, width, 1, bias=False)
        super().__init__(pointwise, depthwise, nn.BatchNorm2d(width), nn.ReLU())


class OmniScaleBlock(nn.Module):
    """Residual block with four streams of one to four LightConv, weighted by one shared gate
    (Zhou et al., Omni-Scale Feature Learning, ICCV 2019)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        width = after // 4
        self.reduce = _conv(before, width, 1)
        self.streams = nn.ModuleList(
            nn.Sequential(*(LightConv(width) for _ in range(depth))) for depth in (1, 2, 3, 4)
        )
        hidden = max(width // 16, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
            nn.Sigmoid(),
        )
        self.expand = nn.Sequential(nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        streams = [stream(reduced) for stream in self.streams]
        total = sum(stream * self.gate(stream) for stream in streams)
        return torch.relu(self.expand(total) + self.shortcut(x))


def _conv(before: int, after: int, side: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, side, stride, side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


def osnet_x025() -> nn.Module:
    """Return OSNet with a quarter of the channels: crops [n, 3, 256, 128] -> [n, 512]."""
    layers: list[nn.Module] = [_conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for before, after in ((16, 64), (64, 96)):
        blocks = OmniScaleBlock(before, after), OmniScaleBlock(after, after)
        layers += [*blocks, _conv(after, after, 1), nn.AvgPool2d(2)]
    layers += [OmniScaleBlock(96, 128), OmniScaleBlock(128, 128), _conv(128, 128, 1)]
    layers += [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 512),
        nn.BatchNorm1d(512),
        nn.ReLU(),
    ]
    return nn.Sequential(*layers).eval()


def yolo26n(size: tuple[int, int]) -> tuple[nn.Module, bytes]:
    """Return YOLO26n, and the ONNX file that its package exports for pictures of this size."""
    with TemporaryDirectory() as folder:
        os.environ |= {"YOLO_CONFIG_DIR": folder, "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"}
        from ultralytics import YOLO

        model = YOLO("yolo26n.yaml", verbose=False)
        before, threads = Path.cwd(), torch.get_num_threads()
        os.chdir(folder)
        try:
            file = model.export(format="onnx", imgsz=list(size), simplify=False, verbose=False)
            return model.model.fuse(verbose=False).eval(), Path(file).read_bytes()
        finally:
            os.chdir(before)
            # the export changes it for the whole process: findings/ultralytics_torch_threads.sh
            torch.set_num_threads(threads)


def exported(net: nn.Module, example: Tensor) -> bytes:
    program = torch.onnx.export(net, (example,), dynamo=True, opset_version=18, verbose=False)
    return program.model_proto.SerializeToString()


def session(data: bytes, runtime: str, amp: torch.dtype | None, name: str):
    if runtime == "openvino":
        return OpenVinoSession(data, amp, name)
    return OnnxFile(name, data, {}).session(CPU)


def student(cfg_path: str, size: tuple[int, int], args: argparse.Namespace) -> Run:
    """Return a detection pass of a config's network on one picture."""
    sides = ["INPUT.MIN_SIZE", min(size), "INPUT.MAX_SIZE", max(size)]
    people = ["MODEL.ROI.DETECTIONS_PER_IMAGE", args.people]
    cfg = load_cfg(cfg_path, list(map(str, sides + people)) + args.overrides)
    net = make_net(cfg, CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    if args.runtime == "pytorch":
        fast = optimize_for_inference(net)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return lambda: fast.detect([image], amp_of(args))
    run = session(to_onnx(net, {}).SerializeToString(), args.runtime, amp_of(args), cfg_path)
    feed = dict(zip(INPUTS, (pixels, np.zeros((0, 4), np.float32))))
    return lambda: run.run(list(OUTPUTS), feed)


def pair(size: tuple[int, int], args: argparse.Namespace) -> Run:
    """Return YOLO26n on one picture, followed by OSNet x0.25 on the crops."""
    torch.manual_seed(0)
    height, width = (-(-side // YOLO_STRIDE) * YOLO_STRIDE for side in size)
    crops, picture = torch.rand(args.people, 3, 256, 128), torch.rand(1, 3, height, width)
    identify = osnet_x025()
    detect, file = yolo26n((height, width))
    if args.runtime == "pytorch":
        amp = amp_of(args)

        def both() -> None:
            with torch.no_grad(), torch.autocast("cpu", amp or torch.bfloat16, amp is not None):
                detect(picture), identify(crops)

        return both
    runs = []
    for data, values in ((file, picture), (exported(identify, crops), crops)):
        one = session(data, args.runtime, amp_of(args), PAIR)
        runs.append((one, *_names(data), values.numpy()))
    return lambda: [one.run(outputs, {inputs[0]: values}) for one, inputs, outputs, values in runs]


def _names(data: bytes) -> tuple[list[str], list[str]]:
    """Return the names of the inputs and outputs of an ONNX file."""
    import onnx

    graph = onnx.load_from_string(data).graph
    return [one.name for one in graph.input], [one.name for one in graph.output]


def amp_of(args: argparse.Namespace) -> torch.dtype | None:
    return torch.bfloat16 if args.bf16 else None


def measure(
    runs: dict[str, Run], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds of each run in each round, after three rounds that are not timed."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 3):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: some[3:] for name, some in times.items()}


def table(times: dict[str, list[float]]) -> list[list]:
    """Return the rows: milliseconds (median, smallest), and the ratios to all networks."""
    rows = []
    for name, some in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(some, others)) for others in times.values()
        ]
        rows.append([name, 1e3 * statistics.median(some), 1e3 * min(some), *ratios])
    return rows


def size_of(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return positive(height), positive(width)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = program_parser(__doc__)
    add = parser.add_argument
    add("--cfg", nargs="+", default=CONFIGS, metavar="FILE", help="YAML configs")
    add("--runtime", choices=RUNTIMES, default="openvino", help="default: %(default)s")
    add("--bf16", action="store_true", help="bfloat16 (pytorch and openvino)")
    add(
        "--sizes",
        nargs="+",
        default=["384x640"],
        metavar="HxW",
        help="of the picture (default: 384x640)",
    )
    add(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="time that is measured (default: %(default)s)",
    )
    add("--people", type=positive, default=8, metavar="N", help="in the picture (default: 8)")
    add("--rounds", type=positive, default=30, metavar="N", help="of all networks (default: 30)")
    add("--threads", type=positive, default=2, metavar="N", help="CPU threads (default: 2)")
    add_overrides(parser)
    args = parser.parse_intermixed_args(argv)
    take_overrides(args, "cfg", "sizes")
    args.sizes = converted(parser, "--sizes", args.sizes, size_of)
    if args.bf16 and args.runtime == "onnxruntime":
        raise UserError("--bf16: expected --runtime pytorch or openvino, found onnxruntime")
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print(f"{describe_machine(CPU)}, {args.runtime}, {'bfloat16' if args.bf16 else 'float32'}")
    for size in args.sizes:
        runs = {
            Path(path).stem.removesuffix("_base"): student(path, size, args) for path in args.cfg
        }
        if find_spec("ultralytics"):
            runs[PAIR] = pair(size, args)
        heads = [f"{size[0]}x{size[1]}", "ms, median", "smallest", *(f"/ {name}" for name in runs)]
        with torch.no_grad():
            rows = table(measure(runs, args.rounds, CLOCKS[args.clock]))
        print(tabulate(rows, heads, floatfmt=("", ".1f", ".1f", *[".2f"] * len(runs))), flush=True)


if __name__ == "__main__":
    run_main(main)
