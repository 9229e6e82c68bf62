"""One run at a time in an OUTPUT_DIR."""

import errno
import fcntl
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.distributed import from_first
from utils.errors import UserError, reason_of
from utils.files import make_folder, remove

NAME = ".lock"
# The beginnings of files that a run was killed over: names that only `written_beside` and the
# parts of an evaluation have.
PARTS = re.compile(
    r"(?:(?:epoch_\d+(?:_step_\d+)?|best|eval_cache)\.pth|config\.yaml|evaluations\.jsonl"
    r"|results\.json)\.part|eval_cache\.part\d+"
)


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other runs out of it; UserError where there is one, which it names.
    The lock dies with the process that holds it, the first rank, however that ends."""
    held = []
    from_first(lambda: held.append(_take(folder)))
    try:
        yield
    finally:
        for file in held:
            os.ftruncate(file, 0)
            os.close(file)


def _take(folder: Path) -> int:
    """The locked file. A POSIX lock: loader processes do not inherit it."""
    make_folder(folder, "OUTPUT_DIR")
    try:
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {folder}: cannot be written ({reason_of(error)})") from None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.read(file, 500).decode(errors="replace") or "another run"
            raise UserError(
                f"OUTPUT_DIR {folder}: in use by {holder}; wait for it, or give another OUTPUT_DIR"
            ) from None
        print(f"OUTPUT_DIR {folder}: not locked against other runs ({reason_of(error)})")
    _remove_parts(folder)
    with suppress(OSError):  # a full disk, which the run itself tells
        os.ftruncate(file, 0)
        os.write(file, _me().encode(errors="surrogateescape"))
    return file


def _me() -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}: {shlex.join(sys.argv)}"


def _remove_parts(folder: Path) -> None:
    for path in folder.iterdir():
        if PARTS.fullmatch(path.name):
            remove(path)
