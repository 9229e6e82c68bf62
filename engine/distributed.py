"""Communication between the ranks of one run, which torchrun starts.

Each rank processes its share of every batch. A single process is rank 0 of 1; the functions here
then return their argument without communication.
"""

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
TIMEOUT = timedelta(minutes=30)  # of a collective call; longer than rank 0 scores an evaluation
# Parts of PyTorch's messages when another rank has ended.
LOST_RANK = ("connection closed", "connection reset", "broken pipe", "socket", "nccl", "timed out")
PATIENT = timedelta(days=30)


def ranks() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this rank, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def patience() -> float | None:
    """Return how many seconds a rank waits for the others after a signal; None if it is alone.

    The time is shorter than the timeout after which torchrun kills all ranks.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return None
    return 2 / 3 * float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 30))


@contextmanager
def process_group() -> Iterator[None]:
    """Join the ranks that torchrun started.

    Only rank 0 prints. The first rank that fails reports the error; torchrun then ends the others.

    Raises:
        UserError: if another rank has ended or does not answer.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield
        return
    store, number, count = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=TIMEOUT)
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
        except dist.DistError:  # the failed rank has closed the connection
            first = False
        if not first:
            time.sleep(10)  # torchrun ends this rank; the first failed rank has reported the error
            sys.exit(2)
        if not isinstance(error, UserError) and is_lost_rank(error):
            raise UserError(
                f"rank {number} lost another rank, which has ended or does not answer; torchrun "
                f"names it below ({str(error).splitlines()[0]})"
            ) from None
        raise
    dist.destroy_process_group()


def is_lost_rank(error: Exception) -> bool:
    """Return whether an error means that another rank has ended or does not answer."""
    return any(sign in str(error).lower() for sign in LOST_RANK)


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this rank, or the CPU if `device` is the CPU.

    A run on several ranks makes its GPU the current device, because NCCL communicates through the
    current device. A single process changes nothing.

    Raises:
        UserError: if `device` names one GPU for several ranks, or there are fewer GPUs than ranks.
    """
    if device.type == "cpu" or ranks() == 1:
        return device
    if device.index is not None:
        raise UserError(
            f"DEVICE {device}: expected auto or cuda under torchrun, which gives each rank "
            "its own GPU"
        )
    local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= count:
        raise UserError(
            f"torchrun --nproc_per_node: expected at most {count}, one rank for each GPU of this "
            f"machine; found {os.environ['LOCAL_WORLD_SIZE']}"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def from_first(make: Callable[[], T]) -> T:
    """Call `make` on rank 0 only and return its result on every rank."""
    box: list[Any] = [make() if rank() == 0 else None]
    if ranks() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list:
    """Return the values of all ranks, in the order of the ranks."""
    values = [value]
    if ranks() > 1:
        values = [None] * ranks()
        dist.all_gather_object(values, value)
    return values


def patient_barrier() -> Callable[[], object]:
    """Return a function with which all ranks wait for each other, without the limit TIMEOUT.

    It is for work whose duration may differ by hours between ranks. All ranks must call
    `patient_barrier` within TIMEOUT of each other.
    """
    if ranks() == 1:
        return lambda: None
    group = dist.new_group(backend="gloo", timeout=PATIENT)
    return lambda: dist.barrier(group)


def total(values: Tensor) -> Tensor:
    """Return the sum over all ranks of tensors of the same shape."""
    if ranks() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, in the order of the ranks.

    rows: [n_r, ...] of rank r; n_r may differ between ranks and may be 0.
    """
    return torch.cat(rows_of_ranks(rows)) if ranks() > 1 else rows


def rows_of_ranks(rows: Tensor) -> list[Tensor]:
    """Return the rows of each rank, see `gather_rows`, without a graph."""
    rows = rows.detach()
    if ranks() == 1:
        return [rows]
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(ranks())]
    dist.all_gather(counts, count)
    padded = rows.new_zeros(max(map(int, counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(ranks())]
    dist.all_gather(parts, padded)
    return [part[:n] for part, n in zip(parts, map(int, counts))]


def same_buffers(module: torch.nn.Module) -> None:
    """Copy the buffers of rank 0 to every rank.

    Norm statistics differ between ranks, since every rank has processed other images.
    """
    if ranks() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)
