"""Lock files, which allow one process at a time to change a folder."""

import errno
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from utils.addresses import without_secrets
from utils.errors import UserError, reason_of

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # of network disks


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`.

    The lock is released when this process ends for any reason; child processes do not hold it. If
    the disk does not support locks, one line is printed and the block runs without a lock.

    Args:
        path: the lock file. It contains the name of the process that holds the lock, and is not
            deleted.
        what: name of the locked thing in messages.

    Raises:
        UserError: if another process holds the lock, which the message names, or if the file cannot
            be written.
    """
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_text(errors="surrogateescape").strip() or "another process"
        raise UserError(f"{what}: in use by {holder}; wait until it is done") from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise UserError(f"{path}: cannot be written ({reason_of(error)})") from None
        print(f"{what}: not locked against other processes ({reason_of(error)})")
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {since}: "
    try:
        with suppress(OSError):  # a full disk is reported by the work itself
            command = shlex.join(map(without_secrets, sys.argv))
            path.write_text(f"{holder}{command}\n", errors="surrogateescape")
        yield
    finally:
        with suppress(OSError):
            path.write_text("")
        lock.release()
