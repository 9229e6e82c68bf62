"""The processes that read images: they answer no signal, and whatever ends them is told as theirs.

A batch leaves its worker as a `PackedBatch`, which is packed where an error can still be caught.
PyTorch packs it in a thread of the worker: an error there is lost, and the run would never end.
"""

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
from multiprocessing.reduction import ForkingPickler
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from tqdm import tqdm

from utils.errors import UserError, no_memory, reason_of
from utils.signals import STOPPING, block_signals

SIGNS = ("DataLoader worker (pid", "Too many open files", "new thread", "shm")
SHM = "docker run --shm-size 8g gives more room in /dev/shm, a smaller INPUT.NUM_WORKERS needs less"
LESS = "a smaller INPUT.NUM_WORKERS needs less; 0 reads images in the run itself"
ENDS = {  # what ends a worker from outside, and why
    signal.SIGBUS: f"a worker found no room in /dev/shm; {SHM}",
    signal.SIGKILL: f"a worker was killed, as the system does where memory runs out; {LESS}",
}


class PackedBatch:
    """A batch on its way: its tensors in shared memory, or, where there is no room for them, among
    the bytes of a pipe; `note` says why then."""

    def __init__(self, batch: list):
        self.note = ""
        try:
            for tensor in _tensors(batch):
                tensor.share_memory_()  # all of them, before any is promised to the other side
            self.content: Any = bytes(ForkingPickler.dumps(batch))
        except (OSError, RuntimeError) as error:
            said = getattr(error, "strerror", None) or str(error)
            self.note = said.rpartition(": ")[2]  # without the name of a segment
            self.content = pickle.dumps(batch, pickle.HIGHEST_PROTOCOL)

    def open(self) -> list:
        """The batch."""
        if isinstance(self.content, bytes):
            self.content = pickle.loads(self.content)
        return self.content

    def pin_memory(self) -> "PackedBatch":
        """What DataLoader's thread calls, where batches go to a GPU."""
        self.content = pin_memory(self.open())
        return self


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (list, tuple, dict)):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from _tensors(inner)


def lone_worker(_number: int) -> None:
    """Signals are the main process's to answer; without it, a worker has nothing to live for."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _leave_because
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()


def _leave_because(_kind: object, error: BaseException, _trace: object) -> None:
    """Called with an error of the thread that hands files over. It would try again for ever, while
    the run waits for them; so the worker leaves, and its exit code says why."""
    os._exit(getattr(error, "errno", None) or 1)


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def from_workers(loader: DataLoader) -> Iterator[list]:
    """A loader's batches. UserError where its workers cannot be started or go on; none is left in
    the end, also where it is stopped and hangs in a dead disk."""
    if not loader.num_workers:
        yield from loader
        return
    others = set(multiprocessing.active_children())
    workers: set = set()
    try:
        batches = _start(loader)
        workers = set(multiprocessing.active_children()) - others
        for parcel in batches:
            if parcel.note:
                _tell_once(parcel.note)
            yield parcel.open()
    except (OSError, EOFError, RuntimeError, MemoryError) as error:
        if isinstance(error, (EOFError, ConnectionError)):  # of one that is about to be gone
            any(worker.join(0.5) or worker.exitcode for worker in workers)
        why = _why(error, [worker.exitcode for worker in workers])
        if not why:
            raise
        raise UserError(f"INPUT.NUM_WORKERS {loader.num_workers}: {why}") from None
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
            worker.join()


@cache
def _tell_once(note: str) -> None:
    tqdm.write(f"images pass through pipes, which is slower ({note}); {SHM}")


def _start(loader: DataLoader) -> Iterator[PackedBatch]:
    """PyTorch would have a dead worker's signal raise an error in the midst of a step; it is told
    where its batch is awaited too."""
    before = signal.getsignal(signal.SIGCHLD)
    with block_signals():
        try:
            return iter(loader)
        except (OSError, RuntimeError, MemoryError) as error:
            with _unheard():  # the half-made iterator's complaints of its missing parts
                traceback.clear_frames(error.__traceback__)
            raise
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, before)


@contextmanager
def _unheard() -> Iterator[None]:
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = before


def _why(error: BaseException, exits: list[int | None]) -> str:
    """Why workers cannot be started or go on, "" where it is no fault of the machine's."""
    for number in (signal.Signals(-code) for code in exits if code and code < 0):
        return ENDS.get(number, f"a worker was ended by {number.name}")
    if told := [code for code in exits if code and code > 1]:
        error = OSError(told[0], os.strerror(told[0]))
    elif "ancdata" in str(error):  # what a file that cannot be opened on this side looks like
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    refused = isinstance(error, (OSError, EOFError)) or no_memory(error)
    if refused or any(sign in str(error) for sign in SIGNS):
        return f"workers cannot be started or go on ({reason_of(error)}); {LESS}"
    return ""
