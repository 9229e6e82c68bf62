"""Measure the cost of models: parameters by part, FLOPs, memory and speed of a detection pass.

    python -m tools.profile_model --cfg configs/prw/resnet50_base.yaml \\
        --cfg configs/prw/resnet18_base.yaml

The weights are random and the box and class predictions are zero, so every image has as many
proposals and detections as the config allows: the largest cost of a pass.
"""

import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from configs.defaults import load_cfg
from engine.device import choose_device
from models.fast.inference import optimize_for_inference
from models.search_net import SearchNet
from tools.measure.machine import describe_machine, elapsed, matmul_flops, peak_memory
from tools.measure.network import count_flops, make_net
from utils.arguments import add_overrides, numbers, positive, program_parser
from utils.errors import UserError, run_main
from utils.memory import keep_freed_memory
from utils.names import short_names

NOTE = (
    "FLOPs: PyTorch's counter, 2 per multiply-add, without RoI pooling. Peak: weights and one "
    "pass. Proposals and detections: the largest number that the config allows. Time with "
    "EVAL_FAST: relative to the exact network, at batch size 1."
)


def parts(net: SearchNet) -> dict[str, list[nn.Module]]:
    """Return the modules of each part.

    The C4 form has no neck, and a stage that both branches share counts as detection.
    """
    heads = net.roi_heads
    return {
        "backbone": [net.backbone.body],
        "neck": [fpn for fpn in [getattr(net.backbone, "fpn", None)] if fpn is not None],
        "RPN": [net.rpn],
        "detection branch": [heads.box_head, heads.box_predictor],
        "re-id branch": [m for m in (heads.reid_head, heads.embedding_head) if m is not None],
    }


def parameters(net: SearchNet) -> dict[str, int]:
    """Return the number of parameters of each part and of the whole network ("all"), without
    buffers."""
    counts = {
        name: sum(p.numel() for module in modules for p in module.parameters())
        for name, modules in parts(net).items()
    }
    return counts | {"all": sum(p.numel() for p in net.parameters())}


def pass_seconds(net: SearchNet, images: list[Tensor]) -> float:
    """Return the seconds of one detection pass."""
    return elapsed(lambda: net.detect(images), images[0].device)


@torch.inference_mode()
def count_regions(net: SearchNet, image: Tensor) -> tuple[int, int]:
    """Return the number of proposals and of detections in one image."""
    resized, _ = net.transform([image])
    proposals, _ = net.rpn(resized, net.backbone(resized.tensors))
    return len(proposals[0]), len(net.detect([image])[0].boxes)


def fast_shares(net: SearchNet, image: Tensor, repeats: int) -> dict[str, float]:
    """Return the time of EVAL_FAST relative to the exact network ("": 1), measured in alternating
    passes.

    bfloat16 is included if the processor supports it. On other processors it is many times slower
    than float32.
    """
    fast = optimize_for_inference(net)
    passes = {"": (net, None), "EVAL_FAST": (fast, None)}
    if image.is_cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        passes["EVAL_FAST, bf16"] = fast, torch.bfloat16

    def seconds(one: SearchNet, amp: torch.dtype | None) -> float:
        return elapsed(lambda: one.detect([image], amp), image.device)

    rounds = [[seconds(*kind) for kind in passes.values()] for _ in range(repeats + 1)][1:]
    times = torch.tensor(rounds)
    return dict(zip(passes, (times / times[:, :1]).median(dim=0).values.tolist()))


def measure(path: str, overrides: list[str], batches: list[int], repeats: int) -> dict:
    """Measure the network of one config, in a process that has measured nothing before.

    Args:
        path, overrides: the config.
        batches: images per pass, ascending, since memory is measured by its peak.
        repeats: number of timed passes after one warm-up pass.

    Returns:
        All values that `table` shows.
    """
    cfg = load_cfg(path, overrides)
    device = choose_device(cfg.DEVICE)
    keep_freed_memory(device.type)
    before = 0 if device.type == "cuda" else peak_memory(device)
    net = make_net(cfg, device)
    generator = torch.Generator().manual_seed(cfg.SEED)
    size = cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE
    image = torch.rand(3, *size, generator=generator).to(device)
    peaks, rates = {}, {}
    for batch in batches:
        pass_seconds(net, [image] * batch)
        seconds = statistics.median(pass_seconds(net, [image] * batch) for _ in range(repeats))
        peaks[batch], rates[batch] = peak_memory(device) - before, batch / seconds
    flops = count_flops(net, image)
    proposals, detections = count_regions(net, image)
    return {
        "size": size,
        "parameters": parameters(net),
        "flops": flops,
        "proposals": proposals,
        "detections": detections,
        "peaks": peaks,
        "rates": rates,
        "of_peak": flops * rates[batches[0]] / matmul_flops(device),
        "shares": fast_shares(net, image, repeats),
        "machine": describe_machine(device),
    }


def in_fresh_process(path: str, *args) -> dict:
    """Call `measure` in a new process.

    Raises:
        UserError: if the process runs out of memory.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, path, *args).result()
        except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
            raise UserError(
                f"--cfg {path}: the measurement was stopped, most likely for lack of memory; "
                "expected a smaller --batch or INPUT.MAX_SIZE"
            ) from None


def table(results: dict[str, dict]) -> str:
    """Format the results: one column per config, one line per measured value."""
    columns = []
    for result in results.values():
        counts = {f"parameters, {part}": f"{n:,}" for part, n in result["parameters"].items()}
        columns.append(
            counts
            | {
                "input": "{}×{}".format(*result["size"]),
                "proposals, detections": f"{result['proposals']}, {result['detections']}",
                "GFLOPs per image": f"{result['flops'] / 1e9:.1f}",
                **{f"peak MiB, batch {b}": f"{n / 2**20:,.0f}" for b, n in result["peaks"].items()},
                **{f"images/s, batch {b}": f"{rate:.3g}" for b, rate in result["rates"].items()},
                "share of matmul speed": f"{result['of_peak']:.0%}",
                **{f"time with {k}": f"{v:.2f}" for k, v in result["shares"].items() if k},
            }
        )
    lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
    align = ("left", *["right"] * len(columns))
    return tabulate(lines, headers=["", *results], colalign=align, disable_numparse=True)


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--cfg",
        required=True,
        action="append",
        metavar="FILE",
        help="YAML config; repeat the option to compare several models",
    )
    parser.add_argument(
        "--batch",
        type=numbers,
        default=[1, 4],
        metavar="N,N",
        help="images per pass (default: 1,4)",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=5,
        metavar="N",
        help="timed passes per median (default: 5)",
    )
    add_overrides(parser, "config values for all models")
    args = parser.parse_intermixed_args()
    cfgs = [load_cfg(path, args.overrides) for path in args.cfg]  # errors appear before any work
    choose_device(cfgs[0].DEVICE)
    results = {}
    for path, name in short_names([Path(path) for path in args.cfg]).items():
        print(f"measuring {path}", file=sys.stderr)
        results[name] = in_fresh_process(str(path), args.overrides, args.batch, args.repeats)
    print(f"{next(iter(results.values()))['machine']}\n\n{table(results)}\n\n{NOTE}")


if __name__ == "__main__":
    run_main(main)
