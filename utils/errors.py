"""A user's mistake is one clear line and exit code 2, never a traceback."""

import sys
from collections.abc import Callable
from typing import NoReturn


class UserError(Exception):
    """Bad input: one line naming the file or key, what was expected and what was found."""


def run_main(main: Callable[[], int | None]) -> NoReturn:
    """Run a program's `main`; report a UserError on stderr and exit with 2, Ctrl-C with 130."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
