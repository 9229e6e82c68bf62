"""A folder that one process at a time may change."""

import fcntl
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from utils.errors import UserError, reason_of


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; it is let go when this process ends, however it does, and the
    processes that it starts do not hold it. UserError that says who holds it; what: the thing it
    stands for, as a user calls it."""
    try:
        file = open(path, "a+", errors="surrogateescape")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({reason_of(error)})") from None
    os.register_at_fork(after_in_child=file.close)
    with file:
        _take(file, what)
        yield


def _take(file: TextIO, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise UserError(f"{what}: in use by {holder}; wait until it is done") from None
    except OSError as error:  # of network disks that have no locks
        print(f"{what}: not locked against other processes ({reason_of(error)})")
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    me = f"process {os.getpid()} on {socket.gethostname()} since {since}: {shlex.join(sys.argv)}\n"
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), me.encode(errors="surrogateescape"))
    except OSError:  # a full disk, which the work itself tells
        pass
