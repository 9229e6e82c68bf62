"""File names in a form that can be printed or written, whatever characters they contain."""

import hashlib
import os
import reprlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

LONGEST = 200  # bytes of a name made here; file systems allow 255, and its .part is longer
DRAWN = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}  # suffixes of the pictures that are written


def printable(text: str) -> str:
    """Return the text as one line that can be written as UTF-8.

    Other characters are escaped: bytes of a name that are not UTF-8, line ends, and control codes
    of terminals.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def at_home(argument: str) -> str:
    """Replace "~" by the user's home in a command line argument or a path.

    A shell does not replace it in `--out=~/found`, and without a shell it is never replaced.
    """
    option, home, rest = argument.partition("=~")
    if home and not option.startswith("~"):
        return f"{option}={os.path.expanduser('~' + rest)}"
    return os.path.expanduser(argument)


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return each path relative to the deepest folder that contains all of them."""
    base = os.path.commonpath([os.path.abspath(path.parent) for path in paths]) if paths else ""
    return {path: os.path.relpath(path, base) for path in paths}


_CUT = reprlib.Repr()
_CUT.maxstring, _CUT.maxother, _CUT.maxlevel = 120, 120, 3


def shown(value: object) -> str:
    """Return a value as Python prints it, shortened to fit a line."""
    try:
        return _CUT.repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        return f"a {type(value).__name__} that cannot be written"


def free_name(stem: str, is_taken: Callable[[str], object], suffix: str = "") -> str:
    """Return the name, or the first of STEM-2, STEM-3, ... with the suffix that is not taken."""
    number, name = 1, stem + suffix
    while is_taken(name):
        number += 1
        name = f"{stem}-{number}{suffix}"
    return name


def output_names(names: Iterable[str]) -> list[str]:
    """Return a file name for each picture to be written.

    The names differ by more than upper and lower case, and have at most LONGEST bytes. Separators
    of folders become "_". Names with a suffix that is not in DRAWN get .jpg: "sub/a.heic" becomes
    "sub_a.heic.jpg".
    """
    taken: set[str] = set()
    return [_free(name, taken) for name in names]


def _free(name: str, taken: set[str]) -> str:
    """Return a file name for `name` that is not in `taken`, and add it to `taken` in lower case."""
    stem, suffix = os.path.splitext(printable(name).replace("/", "_").replace("\\", "_"))
    if suffix.lower() not in DRAWN:
        stem, suffix = stem + suffix, ".jpg"
    if len((stem + suffix).encode()) > LONGEST:
        mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        stem = f"{stem.encode()[: LONGEST - 20].decode(errors='ignore')}_{mark}"
    free = free_name(stem, lambda name: name.casefold() in taken, suffix)
    taken.add(free.casefold())
    return free
