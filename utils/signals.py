"""Handling of Ctrl-C, SIGTERM and SIGHUP at any point of a program.

Most of a run can be interrupted at once: starting, waiting for a batch, evaluating. During a step
or a save signals are deferred: the step is completed first, and then the run checks for a signal. A
second Ctrl-C ends the process at once, even within a call that never returns. In a run on several
ranks, a process that waits too long for the others ends itself before torchrun does.
"""

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 0.1  # seconds: `timeout -s INT` and some launchers send a signal twice at once


class Stopped(SystemExit):
    """The end of a run after a signal, with exit code 128 + `number`.

    Attributes:
        said: what was saved.
    """

    def __init__(self, number: int, said: str = "stopped"):
        super().__init__(128 + number)
        self.number, self.said = number, said

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name}: {self.said}"


@contextmanager
def block_signals() -> Iterator[None]:
    """Block the signals that stop a run within the context.

    Processes that are started in it keep them blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """The signals that a process has received.

    Attributes:
        number: the first one, 0 for none.
        answered: whether the run has reacted to it.
        patience: seconds after which a signal ends a process that has not reacted; None: never.
    """

    def __init__(self, patience: float | None = None):
        self.number = 0
        self.answered = False
        self.patience = patience
        self._free = True

    @contextmanager
    def install(self) -> Iterator[None]:
        """Handle the signals within the context. If SIGHUP is ignored (nohup), it stays ignored."""
        numbers = [
            n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN
        ]
        before = [signal.signal(number, self._receive) for number in numbers]
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(earlier)
            os.close(writer)  # which ends the thread
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Only record signals within the context."""
        with self._set(False):
            yield

    @contextmanager
    def released(self) -> Iterator[None]:
        """Raise Stopped within the context for a signal, also for one that was received before."""
        with self._set(True):
            if self.number:
                raise Stopped(self.number)
            yield

    @contextmanager
    def _set(self, free: bool) -> Iterator[None]:
        before, self._free = self._free, free
        try:
            yield
        finally:
            self._free = before

    def _receive(self, number: int, _frame: object) -> None:
        """Record the first signal; raise Stopped unless signals are deferred."""
        if self.number:
            return
        self.number = number
        if self._free:
            raise Stopped(number)

    def _watch(self, reader: int) -> None:
        """End the process when it must not wait.

        This runs in a thread of its own, which receives the numbers of signals through a pipe, even
        while the main thread is within a call.
        """
        first: float | None = None
        received = 0
        deadline: float | None = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                if not self.answered:
                    _end(received, "another rank does not answer")
                deadline = None
                continue
            numbers, now = os.read(reader, 64), time.monotonic()
            if not numbers:
                os.close(reader)
                return
            for number in filter(STOPPING.__contains__, numbers):
                if first is None:
                    first, received, deadline = now, number, self.patience and now + self.patience
                elif number == signal.SIGINT and now - first > AGAIN:
                    _end(number, "ended at once")


def _end(number: int, said: str) -> None:
    """Exit without unwinding the stack, after killing the child processes."""
    for child in multiprocessing.active_children():
        child.kill()
    os.write(sys.stderr.fileno(), f"\n{Stopped(number, said)}\n".encode())
    os._exit(128 + number)
