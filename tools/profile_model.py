"""What models cost: parameters by part, FLOPs, memory and speed of a detection pass.

Weights are random, with the box and class predictions at zero, so that every image has as many
regions and people as the config allows: the most that a pass can cost.
"""

import argparse
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from configs.defaults import load_cfg
from models.build import build_net, choose_device
from models.fast.inference import optimize_for_inference
from models.search_net import SearchNet
from utils.errors import UserError, run_main
from utils.names import short_names


def parts(net: SearchNet) -> dict[str, list[nn.Module]]:
    heads = net.roi_heads
    return {
        "backbone": [net.backbone.body],
        "neck": [net.backbone.fpn],
        "RPN": [net.rpn],
        "detection branch": [heads.box_head, heads.box_predictor],
        "re-id branch": [heads.reid_head, heads.embedding_head],
    }


def parameters(net: SearchNet) -> dict[str, int]:
    """Parameters by part and in all; buffers do not count."""
    counts = {
        name: sum(p.numel() for module in modules for p in module.parameters())
        for name, modules in parts(net).items()
    }
    return counts | {"all": sum(p.numel() for p in net.parameters())}


def make_net(cfg: CfgNode, device: torch.device) -> SearchNet:
    """A random network in eval mode whose boxes stay where anchors and proposals put them."""
    torch.manual_seed(cfg.SEED)
    net = build_net(cfg, num_pids=1, pretrained=False)
    predictor = net.roi_heads.box_predictor
    for layer in (net.rpn.head.bbox_pred, predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net.to(device).eval()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors on the GPU, or this process on the CPU, have held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: ru_maxrss would count what the parent held when it forked
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def pass_seconds(net: SearchNet, images: list[Tensor]) -> float:
    """Seconds of one detection pass."""
    return _seconds(lambda: net.detect(images), images[0].device)


@torch.inference_mode()
def count_regions(net: SearchNet, image: Tensor) -> tuple[int, int]:
    """Proposals and people of one image."""
    resized, _ = net.transform([image])
    proposals, _ = net.rpn(resized, net.backbone(resized.tensors))
    return len(proposals[0]), len(net.detect([image])[0].boxes)


def count_flops(net: SearchNet, image: Tensor) -> int:
    """Of a detection pass of one image, 2 for each multiply-add; RoI pooling is not in it."""
    with FlopCounterMode(display=False) as counter:
        net.detect_and_embed([image], [image.new_zeros(0, 4)])
    return counter.get_total_flops()


def matmul_flops(device: torch.device, side: int = 2048) -> float:
    """What the machine reaches in a second in a product of float32 matrices, the best of ten."""
    a = torch.rand(side, side, device=device)
    best = min(_seconds(lambda: a @ a, device) for _ in range(10))
    return 2 * side**3 / best


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of `work`, all of the GPU's included."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def fast_shares(net: SearchNet, image: Tensor, repeats: int) -> dict[str, float]:
    """EVAL_FAST's time over the exact network's, pass by pass in turn; with bfloat16, too, where
    the processor knows it: others are many times slower with it than without."""
    fast, nobody = optimize_for_inference(net), [torch.zeros(0, 4, device=image.device)]
    passes = {"": (net, None), "EVAL_FAST": (fast, None)}
    if image.is_cuda or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        passes["EVAL_FAST, bf16"] = fast, torch.bfloat16

    def seconds(one: SearchNet, amp: torch.dtype | None) -> float:
        return _seconds(lambda: one.detect_and_embed([image], nobody, amp), image.device)

    rounds = [[seconds(*kind) for kind in passes.values()] for _ in range(repeats + 1)][1:]
    times = torch.tensor(rounds)
    return dict(zip(passes, (times / times[:, :1]).median(dim=0).values.tolist()))


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def machine_of(device: torch.device) -> str:
    """GPU, if that is the device, and processor."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{cpu_name()}, {os.cpu_count()} CPU cores"


def machine(device: torch.device) -> str:
    """What the numbers were measured on, in words."""
    return (
        f"{machine_of(device)}, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def measure(path: str, overrides: list[str], batches: list[int], repeats: int) -> dict:
    """Every number of one config; expects a fresh process, whose peak memory is the model's.

    batches: images per pass, rising. repeats: timed passes, after one that is not.
    """
    cfg = load_cfg(path, overrides)
    device = choose_device(cfg.DEVICE)
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
    proposals, people = count_regions(net, image)
    return {
        "size": size,
        "parameters": parameters(net),
        "flops": flops,
        "proposals": proposals,
        "people": people,
        "peaks": peaks,
        "rates": rates,
        "of_peak": flops * rates[batches[0]] / matmul_flops(device),
        "shares": fast_shares(net, image, repeats),
        "machine": machine(device),
    }


def in_fresh_process(path: str, *args) -> dict:
    """`measure` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, path, *args).result()
        except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
            raise UserError(
                f"--cfg {path}: the measurement was stopped, most likely for want of "
                "memory; expected smaller --batch or INPUT.MAX_SIZE"
            ) from None


def table(results: dict[str, dict]) -> str:
    """One column for each config, one line for each number."""
    columns = []
    for result in results.values():
        counts = {f"parameters, {part}": f"{n:,}" for part, n in result["parameters"].items()}
        columns.append(
            counts
            | {
                "input": "{}×{}".format(*result["size"]),
                "regions, people": f"{result['proposals']}, {result['people']}",
                "GFLOPs per image": f"{result['flops'] / 1e9:.1f}",
                **{f"peak MiB, batch {b}": f"{n / 2**20:,.0f}" for b, n in result["peaks"].items()},
                **{f"images/s, batch {b}": f"{rate:.3g}" for b, rate in result["rates"].items()},
                "of the machine's matmul": f"{result['of_peak']:.0%}",
                **{f"time with {k}": f"{v:.2f}" for k, v in result["shares"].items() if k},
            }
        )
    lines = [[name, *(column[name] for column in columns)] for name in columns[0]]
    align = ("left", *["right"] * len(columns))
    return tabulate(lines, headers=["", *results], colalign=align, disable_numparse=True)


def whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text}")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, found {text}")
    return int(text)


def batch_sizes(text: str) -> list[int]:
    """ "1,4" -> [1, 4], rising, since memory is measured by its peak."""
    return sorted({positive(part) for part in text.split(",")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cfg",
        required=True,
        action="append",
        metavar="FILE",
        help="YAML config; again for each model to compare",
    )
    parser.add_argument(
        "--batch", type=batch_sizes, default=[1, 4], metavar="N,N", help="images per pass"
    )
    parser.add_argument("--repeats", type=positive, default=5, help="timed passes; their median")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config values for all")
    args = parser.parse_intermixed_args()
    cfgs = [load_cfg(path, args.overrides) for path in args.cfg]  # all of them, before any work
    choose_device(cfgs[0].DEVICE)
    results = {}
    for path, name in short_names([Path(path) for path in args.cfg]).items():
        print(f"measuring {path}", file=sys.stderr)
        results[name] = in_fresh_process(str(path), args.overrides, args.batch, args.repeats)
    print(f"{next(iter(results.values()))['machine']}\n\n{table(results)}\n")
    print(
        "FLOPs: PyTorch's counter, 2 for each multiply-add; RoI pooling is not in it. Peak: "
        "weights and one pass. Regions and people: the most that the config allows. Time with "
        "EVAL_FAST: over the exact network's, at batch 1."
    )


if __name__ == "__main__":
    run_main(main)
