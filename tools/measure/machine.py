"""The machine on which a program measures: its name, memory and speed."""

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

SIDE = 2048  # of the matrices whose product is timed


def cpu_name() -> str:
    """Return the model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def machine_name(device: torch.device) -> str:
    """Return the name of the GPU, if `device` is one, the name of the processor, and the number of
    cores."""
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{gpu}{cpu_name()}, {os.cpu_count()} CPU cores"


def describe_machine(device: torch.device) -> str:
    """Return one line to print above measurements: hardware, threads and software versions."""
    return (
        f"{machine_name(device)}, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of all tensors on a GPU, or of this process on the
    CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, ru_maxrss includes what the parent process held at the fork
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gib() -> float:
    """Return the peak memory of this process so far in GiB, including its data."""
    return peak_memory(torch.device("cpu")) / 2**30


def elapsed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call of `work` takes, including its kernels on the GPU."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def matmul_flops(device: torch.device) -> float:
    """Return the FLOP per second of a float32 product of two square matrices, the best of ten
    runs."""
    a = torch.rand(SIDE, SIDE, device=device)
    best = min(elapsed(lambda: a @ a, device) for _ in range(10))
    return 2 * SIDE**3 / best
