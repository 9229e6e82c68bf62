"""Signal handling before a program's imports, which take seconds: a signal then ends the
program."""

import os
import signal
from types import FrameType


def leave(number: int, _frame: FrameType | None) -> None:
    """Handle a signal: exit with 128 + its number, without a traceback."""
    os._exit(128 + number)


def leave_on_signals() -> None:
    """Make SIGINT and SIGTERM end the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
