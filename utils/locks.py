"""A folder that one process at a time may change."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`; it is let go when this process ends, however it does.
    UserError that says who holds it; what: the thing it stands for, as a user calls it."""
    try:
        file = open(path, "a+")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{what}: is being written by {holder}; wait until it is done"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
