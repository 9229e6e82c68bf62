"""A user's mistake, or a machine's limit, is one clear line and exit code 2, never a traceback."""

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from utils.early import leave
from utils.names import at_home, printable

FULL = (errno.ENOSPC, errno.EDQUOT)
# What a machine refuses, wherever it does; any other OSError that nobody expects is a defect.
LIMITS = (
    *FULL,
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
    """Bad input: one line naming the file or key, what was expected and what was found."""


class DamagedError(UserError):
    """A file that was read, and is wrong. One that cannot be read is a UserError, but not this."""


def no_memory(error: BaseException) -> bool:
    """True for MemoryError and for the errors of torch, oneDNN and threads that stand for it."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def reason_of(error: BaseException) -> str:
    """Why, in one line: the system's words where it has some, else the error's own first line."""
    if no_memory(error):
        return "not enough memory"
    if not isinstance(error, OSError) or error.errno is None:
        return next((line for line in str(error).splitlines() if line), type(error).__name__)
    if error.errno in FULL:
        return f"the disk is full: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}: ulimit -n says how many there may be"
    return error.strerror or str(error)


def first_of(values: Iterable[Any], most: int = 5) -> str:
    """The first of many things in one line, each cut short, and how many more there are."""
    words = [" ".join(str(value).split()) for value in values]
    words, more = words[:most], len(words) - most
    words = [word if len(word) <= 60 else f"{word[:57]}..." for word in words]
    return (", ".join(words) or "none") + (f" and {more} more" if more > 0 else "")


def _reader_left() -> bool:
    """Does nobody read what is printed any more, as under `| head`? What is left goes nowhere."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)  # asks for errors alone
    if not pipe.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main`; report a UserError, or what the machine refuses, on stderr and exit
    with 2, Ctrl-C with 130; say nothing where `| head` has read enough.

    What the terminal has no letters for is escaped: no file's name breaks a print. A "~" in an
    argument is the user's home."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = map(at_home, sys.argv[1:])
    if signal.getsignal(signal.SIGINT) is leave:  # as it was while the program started
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main() or 0
        sys.stdout.flush()  # where a reader who has left is noticed
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
