"""Errors. A user's mistake or a limit of the machine is one line with exit code 2, without a
traceback."""

import errno
import io
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from utils.early import leave
from utils.names import at_home, printable

FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors of the machine and missing permissions, anywhere in a program. Any other OSError that is
# not caught is a defect.
LIMITS = (
    *FULL,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EIO,
    errno.EROFS,
    errno.ESTALE,
    errno.ENAMETOOLONG,
)

NO_MEMORY = (  # texts of errors that mean a lack of memory
    "allocate memory",
    "out of memory",
    "could not create a primitive",  # oneDNN
    "can't start new thread",
    "bad allocation",
    "std::bad_alloc",
)


class UserError(Exception):
    """Bad input. The message is one line with the file or key, what was expected and what was
    found."""


class DamagedError(UserError):
    """The content of a file that was read is wrong. A file that cannot be read is a plain
    UserError."""


def no_memory(error: BaseException) -> bool:
    """Return True for MemoryError, and for the errors of torch, oneDNN and threads with the same
    cause."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def reason_of(error: BaseException) -> str:
    """Return the reason of an error in one line: the system's text, or the first line of the
    error's own."""
    if no_memory(error):
        return "not enough memory"
    if not isinstance(error, OSError) or error.errno is None:
        return next((line for line in str(error).splitlines() if line), type(error).__name__)
    if error.errno in FULL:
        return f"the disk is full: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}: ulimit -n shows the limit"
    return error.strerror or str(error)


def first_of(values: Iterable[Any], most: int = 5) -> str:
    """Return the first `most` values in one line, each shortened, and the number of the remaining
    values."""
    words = [" ".join(str(value).split()) for value in values]
    words, more = words[:most], len(words) - most
    words = [word if len(word) <= 60 else f"{word[:57]}..." for word in words]
    return (", ".join(words) or "none") + (f" and {more} more" if more > 0 else "")


def _reader_left() -> bool:
    """Return whether the reader of stdout has ended, as in `| head`. If so, discard the remaining
    output."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)  # errors only
    if not pipe.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main` and exit.

    The exit code is that of `main`, 2 after a UserError or an error of the machine, which is one
    line on stderr, 130 after Ctrl-C, and 141, without a message, if the reader of stdout has ended
    (`| head`). Characters that the terminal cannot show are escaped. A "~" in an argument becomes
    the user's home.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about files that can be read nevertheless
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = map(at_home, sys.argv[1:])
    if signal.getsignal(signal.SIGINT) is leave:  # as it was while the program started
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main() or 0
        sys.stdout.flush()  # fails if the reader has ended
        sys.exit(code)
    except BrokenPipeError:
        if not _reader_left():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        said = str(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (OSError, MemoryError, RuntimeError) as error:
        if not (no_memory(error) or getattr(error, "errno", None) in LIMITS):
            raise
        place = getattr(error, "filename", None)
        said = (f"{place}: " if place else "") + reason_of(error)
    print(f"error: {printable(said)}", file=sys.stderr)
    sys.exit(2)
