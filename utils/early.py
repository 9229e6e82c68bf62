"""Signal handling before a program's imports, which take seconds: a signal then ends the
program."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def leave(number: int, _frame: FrameType | None) -> None:
    """Handle a signal: exit with 128 + its number, without a traceback."""
    os._exit(128 + number)


def leave_on_signals() -> None:
    """Make SIGINT and SIGTERM end the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


@contextmanager
def ended_by_exception() -> Iterator[None]:
    """Let SIGTERM raise SystemExit within the context, so that unfinished files are removed.

    It has an effect only where `leave` would end the process at once.
    """
    if signal.getsignal(signal.SIGTERM) is not leave:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, leave)
