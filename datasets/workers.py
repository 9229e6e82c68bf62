"""Worker processes that read images. They ignore signals, and an error in one is a single line.

A batch leaves its worker as a `PackedBatch`, which is packed where an error can still be caught.
PyTorch would pack it in a thread of the worker: an error there is lost, and the run would wait for
the batch without end.
"""

import copy
import errno
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from utils.errors import UserError, no_memory, reason_of
from utils.signals import STOPPING, block_signals

SIGNS = ("DataLoader worker (pid", "Too many open files", "new thread", "shm")
SHM = "docker run --shm-size 8g makes /dev/shm larger, a smaller INPUT.NUM_WORKERS needs less of it"
LESS = "a smaller INPUT.NUM_WORKERS needs less; 0 reads images in the run itself"
ENDS = {  # signals that end a worker from outside, and why
    signal.SIGBUS: f"/dev/shm was too small for a worker; {SHM}",
    signal.SIGKILL: f"a worker was killed, as the system does when memory runs out; {LESS}",
}


class PackedBatch:
    """A batch on its way from a worker to the main process.

    Its tensors are in shared memory. If there is not enough shared memory, they are sent through a
    pipe instead, and `note` gives the reason.
    """

    def __init__(self, batch: list):
        self.note = ""
        try:
            for tensor in _tensors(batch):
                tensor.share_memory_()  # all of them, before any is announced to the receiver
            self.content: Any = bytes(ForkingPickler.dumps(batch))
        except (OSError, RuntimeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            self.note = said.rpartition(": ")[2]  # without the name of a segment
            self.content = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)

    def open(self) -> list:
        """Unpack and return the batch."""
        if isinstance(self.content, bytes):
            self.content = pickle.loads(self.content)
        return self.content

    def pin_memory(self) -> "PackedBatch":
        """Pin the batch's memory; DataLoader calls this if batches go to a GPU."""
        self.content = _pinned(self.open())
        return self


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (list, tuple, dict)):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _tensors(inner)


def _pinned(content: Any) -> Any:
    """Return nested lists, tuples and dicts with their tensors in pinned memory."""
    if isinstance(content, Tensor):
        return content.pin_memory()
    if isinstance(content, dict):
        return {key: _pinned(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(_pinned(value) for value in content)
    return content


def prepare_worker(_number: int) -> None:
    """Ignore signals in this process, since the main process handles them, and end when the main
    process ends."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _exit_with_errno
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()


def _exit_with_errno(_kind: object, error: BaseException, _trace: object) -> None:
    """Handle an error of the thread that passes file descriptors on.

    The thread would try again forever while the run waits. The worker therefore exits, with the
    reason as its exit code.
    """
    os._exit(getattr(error, "errno", None) or 1)


def _exit_with(parent: int) -> None:
    """Wait until the parent process has ended, and exit."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def recording_context(started: list[BaseProcess]) -> BaseContext:
    """Return the default multiprocessing context, extended to append each process that it creates
    to `started`, because DataLoader does not publish its workers."""
    context: Any = copy.copy(multiprocessing.get_context())
    make = context.Process

    def record(*args: Any, **options: Any) -> BaseProcess:
        started.append(make(*args, **options))
        return started[-1]

    context.Process = record
    return context


def from_workers(loader: DataLoader) -> Iterator[list]:
    """Yield a loader's batches, and end its workers when the iteration ends for any reason.

    Raises:
        UserError: Workers cannot be started, or cannot go on.
    """
    if not loader.num_workers:
        yield from loader
        return
    workers: list[BaseProcess] = []
    try:
        for packed in _start(loader, workers):
            if packed.note:
                _say_once(packed.note)
            yield packed.open()
    except (OSError, EOFError, RuntimeError, MemoryError) as error:
        if isinstance(error, (EOFError, ConnectionError)):  # of a worker that is about to end
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline and not any(w.exitcode for w in workers if w.pid):
                time.sleep(0.01)
        why = _why(error, [worker.exitcode for worker in workers if worker.pid])
        if not why:
            raise
        raise UserError(f"INPUT.NUM_WORKERS {loader.num_workers}: {why}") from None
    finally:
        for worker in workers:
            if worker.pid is not None:  # it was started
                worker.kill()
                worker.join()


@cache
def _say_once(note: str) -> None:
    tqdm.write(f"images pass through pipes, which is slower ({note}); {SHM}")


def _start(loader: DataLoader, workers: list[BaseProcess]) -> Iterator[PackedBatch]:
    """Start the workers, append them to `workers`, and return the iterator over their batches.

    The handler of SIGCHLD is left unchanged. PyTorch's handler would raise an error within a step
    when a worker ends unexpectedly, although this is noticed anyway when its batch is awaited.
    """
    before = signal.getsignal(signal.SIGCHLD)
    loader.multiprocessing_context = recording_context(workers)
    with block_signals():
        try:
            return iter(loader)
        except (OSError, RuntimeError, MemoryError) as error:
            with _unraisable_ignored():  # of the incomplete iterator, which lacks attributes
                traceback.clear_frames(error.__traceback__)
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, before)


@contextmanager
def _unraisable_ignored() -> Iterator[None]:
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _why(error: BaseException, exits: list[int | None]) -> str:
    """Return why workers cannot be started or continue; "" if the machine is not the reason.

    Args:
        error: What was raised in the main process.
        exits: The exit codes of the workers; None: running.
    """
    for number in (signal.Signals(-code) for code in exits if code and code < 0):
        return ENDS.get(number, f"a worker was terminated by {number.name}")
    if given := [code for code in exits if code and code > 1]:
        error = OSError(given[0], os.strerror(given[0]))
    elif "ancdata" in str(error):  # a file descriptor that this side cannot open looks like this
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    refused = isinstance(error, (OSError, EOFError)) or no_memory(error)
    if refused or any(sign in str(error) for sign in SIGNS):
        return f"workers cannot be started or continue ({reason_of(error)}); {LESS}"
    return ""
