"""A user's mistake is one clear line and exit code 2, never a traceback."""

import io
import sys
from collections.abc import Callable
from typing import NoReturn

from utils.names import at_home, printable


class UserError(Exception):
    """Bad input: one line naming the file or key, what was expected and what was found."""


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main`; report a UserError on stderr and exit with 2, Ctrl-C with 130.

    What the terminal has no letters for is escaped: no file's name breaks a print. A "~" in an
    argument is the user's home."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.argv[1:] = map(at_home, sys.argv[1:])
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
