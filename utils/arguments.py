"""Types for argparse options. Their messages name the expected and the found value."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def whole(text: str) -> int:
    """Return a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, found {text}")
    return int(text)


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text}")
    return int(text)


def numbers(text: str) -> list[int]:
    """Return comma-separated whole numbers of at least 1, in rising order: "4,1" -> [1, 4]."""
    return sorted({positive(part) for part in text.split(",")})


def nonempty_path(text: str) -> Path:
    """Return a path that is not empty, because an unset shell variable must not mean the current
    folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path, found {text!r}")
    return Path(text)


def nonempty(text: str) -> str:
    """Return a text that is not empty, because an unset shell variable must not mean the
    default."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a text, found {text!r}")
    return text


def program_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser whose --help begins with the docstring of a program, line breaks included."""
    return argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_overrides(parser: argparse.ArgumentParser, what: str = "config values") -> None:
    """Add the arguments KEY VALUE, which --help explains as `what`."""
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help=what)


def add_size(parser: argparse._ActionsContainer, size: tuple[int, int], what: str) -> None:
    """Add the option --size W H, pixels of `what`, with its default, to a parser or a group."""
    parser.add_argument(
        "--size",
        type=positive,
        nargs=2,
        default=size,
        metavar=("W", "H"),
        help=f"pixels of {what} (default: {size[0]} {size[1]})",
    )


def converted(
    parser: argparse.ArgumentParser, option: str, texts: Sequence[str], kind: Callable[[str], Any]
) -> list:
    """Convert the values of a list option after `configs.defaults.take_overrides`.

    A value that `kind` rejects ends the program, as argparse does.
    """
    try:
        return [kind(text) for text in texts]
    except (argparse.ArgumentTypeError, ValueError) as error:
        parser.error(f"argument {option}: {error}")
