"""What a program does first: its imports take seconds, in which a signal just ends it."""

import os
import signal
from types import FrameType


def leave(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def leave_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
