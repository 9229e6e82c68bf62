"""Names of files, as they can be printed and written anew: whatever letters a user's files have."""

import hashlib
import os
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path

LONGEST = 200  # bytes of a name that we make; file systems take 255, and beside it lies its .part
DRAWN = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}  # what drawn pictures are saved as


def printable(text: str) -> str:
    """The text on one line, in letters that can be written as UTF-8: others are escaped, as bytes
    of a name that are not UTF-8, line ends, codes that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def at_home(argument: str) -> str:
    """An argument of a command line, or a path, with "~" as the user's home. Shells leave it as it
    is in `--out=~/found`, and whoever starts a program without a shell in every place."""
    option, home, rest = argument.partition("=~")
    if home and not option.startswith("~"):
        return f"{option}={os.path.expanduser('~' + rest)}"
    return os.path.expanduser(argument)


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Each path from the folder on that holds them all."""
    base = os.path.commonpath([os.path.abspath(path.parent) for path in paths]) if paths else ""
    return {path: os.path.relpath(path, base) for path in paths}


_CUT = reprlib.Repr()
_CUT.maxstring, _CUT.maxother, _CUT.maxlevel = 120, 120, 3


def shown(value: object) -> str:
    """A value as Python writes it, in a length that fits a line."""
    try:
        return _CUT.repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return f"a {type(value).__name__} that cannot be written"


def output_names(names: Iterable[str]) -> list[str]:
    """A file name for each drawn picture: all different, also where letters' case does not count,
    never too long, sub-folders written as "_". A format that pictures are not drawn in, and none,
    become JPEG: "sub/a.heic" is "sub_a.heic.jpg"."""
    taken: set[str] = set()
    return [_free(name, taken) for name in names]


def _free(name: str, taken: set[str]) -> str:
    stem, suffix = os.path.splitext(printable(name).replace("/", "_").replace("\\", "_"))
    if suffix.lower() not in DRAWN:
        stem, suffix = stem + suffix, ".jpg"
    if len((stem + suffix).encode()) > LONGEST:
        mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        stem = f"{stem.encode()[: LONGEST - 20].decode(errors='ignore')}_{mark}"
    number, free = 1, stem + suffix
    while free.casefold() in taken:
        number += 1
        free = f"{stem}-{number}{suffix}"
    taken.add(free.casefold())
    return free
