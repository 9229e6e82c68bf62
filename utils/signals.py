"""Ctrl-C, SIGTERM and SIGHUP, wherever a program is when they come.

Most of a run can be left at once: starting, waiting for a batch, evaluating. What cannot, a step or
a save, is `held`: it is finished first, and the run asks whether a signal has come. Ctrl-C again
ends the process where it stands, within a call that never returns too. So does a rank that waits in
vain for others to come to the end of their step, before torchrun does.
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
    """The signal `number` ends the run: the process leaves with 128 + number. said: what was saved
    or left."""

    def __init__(self, number: int, said: str = "stopped"):
        super().__init__(128 + number)
        self.number, self.said = number, said

    def __str__(self) -> str:
        return f"{signal.Signals(self.number).name}: {self.said}"


@contextmanager
def block_signals() -> Iterator[None]:
    """Signals that stop a run wait meanwhile; processes started within never hear them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """number: the first signal that came, 0 for none. patience: seconds until a signal ends a
    process that has not said `answered`; None: as long as it takes."""

    def __init__(self, patience: float | None = None):
        self.number = 0
        self.answered = False
        self.patience = patience
        self._free = True

    @contextmanager
    def install(self) -> Iterator[None]:
        """Within, they are this object's to answer. SIGHUP stays ignored under nohup."""
        numbers = [
            n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN
        ]
        before = [signal.signal(number, self._come) for number in numbers]
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        told = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(told)
            os.close(writer)  # which ends the thread
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    @contextmanager
    def defer(self) -> Iterator[None]:
        """Within, a signal is noted and leaves the work alone."""
        with self._set(False):
            yield

    @contextmanager
    def released(self) -> Iterator[None]:
        """Within, and on entering where one has come before, a signal raises Stopped."""
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

    def _come(self, number: int, _frame: object) -> None:
        if self.number:
            return
        self.number = number
        if self._free:
            raise Stopped(number)

    def _watch(self, reader: int) -> None:
        """In a thread of its own, which hears them while the main one is within a call."""
        first: float | None = None
        heard = 0
        deadline: float | None = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reader], [], [], left)[0]:
                if not self.answered:
                    _end(heard, "another rank does not answer")
                deadline = None
                continue
            told, now = os.read(reader, 64), time.monotonic()
            if not told:
                os.close(reader)
                return
            for number in filter(STOPPING.__contains__, told):
                if first is None:
                    first, heard, deadline = now, number, self.patience and now + self.patience
                elif number == signal.SIGINT and now - first > AGAIN:
                    _end(number, "ended at once")


def _end(number: int, said: str) -> None:
    """Leave without unwinding anything, and take the processes along that were started here."""
    for child in multiprocessing.active_children():
        child.kill()
    os.write(sys.stderr.fileno(), f"\n{Stopped(number, said)}\n".encode())
    os._exit(128 + number)
