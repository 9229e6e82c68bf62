"""Many ranks as one run: torchrun starts them, each takes its part of every batch. One process
alone is rank 0 of 1, for which everything here is free."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import UserError

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # of a rank that waits for another: more than scoring takes
LOST = ("Connection closed", "Connection reset", "Broken pipe", "Socket", "NCCL", "timed out")


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def patience() -> float | None:
    """Seconds that a rank which was told to stop waits for the others: less than torchrun waits
    until it kills them all. None: there are no others."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return None
    return 2 / 3 * float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 30))


@contextmanager
def process_group() -> Iterator[None]:
    """Join the ranks that torchrun started. Only rank 0 prints; the first rank that fails says
    why, and torchrun, which sees it leave, ends the others."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    try:
        with ExitStack() as stack:
            if number:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield
    except Exception as error:
        try:
            first = store.add("failed", 1) == 1
        except dist.DistError:  # the store went with the first
            first = False
        if not first:
            time.sleep(10)  # torchrun ends this rank; the first one to fail has said why
            sys.exit(2)
        if not isinstance(error, UserError) and any(sign in str(error) for sign in LOST):
            raise UserError(
                f"rank {number} lost another rank, which died or hangs: torchrun names "
                f"it below ({str(error).splitlines()[0]})"
            ) from None
        raise
    dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The GPU of this rank, where the config asks for GPUs; random numbers are its own then."""
    if device.type == "cpu":
        return device
    if ranks() == 1:
        if device.index is not None:
            torch.cuda.set_device(device)
        return device
    if device.index is not None:
        raise UserError(
            f"DEVICE {device}: expected auto or cuda with torchrun, where each rank "
            "has a GPU of its own"
        )
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise UserError(
            f"torchrun --nproc_per_node: expected at most {count}, one rank for each "
            f"GPU of this machine; found {os.environ['LOCAL_WORLD_SIZE']}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, where alone it is called."""
    box: list[Any] = [make() if rank() == 0 else None]
    if ranks() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list:
    """Every rank's value, in order of ranks."""
    values = [value]
    if ranks() > 1:
        values = [None] * ranks()
        dist.all_gather_object(values, value)
    return values


def total(values: Tensor) -> Tensor:
    """Sum over ranks of tensors of one shape."""
    if ranks() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """[n_r, ...] of every rank r -> all rows in order of ranks; n_r may differ, and be 0."""
    if ranks() == 1:
        return rows
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(ranks())]
    dist.all_gather(counts, count)
    padded = rows.new_zeros(max(map(int, counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:n] for part, n in zip(parts, map(int, counts))])


def same_buffers(module: torch.nn.Module) -> None:
    """Rank 0's buffers on every rank (statistics of norms differ, since batches do)."""
    if ranks() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
