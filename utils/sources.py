"""Images and videos in files and folders."""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from PIL import Image

from utils.errors import UserError, reason_of
from utils.media import FORMATS, HEIC, open_image
from utils.names import printable
from utils.video_files import is_video

PICTURE, VIDEO = "picture", "video"
VIDEOS = re.compile(
    r"\.(mp4|m4v|mov|avi|mkv|webm|mpe?g|mpe|m2v|m?ts|m2ts|wmv|asf|flv|f4v|3gp|3g2|ogv|vob|mxf"
    r"|mjpe?g|h?26[45]|hevc|y4m|dav|mod|tod|m2p|ivf|dv|divx|ogm)",
)  # suffixes


@dataclass(frozen=True)
class MediaFile:
    """An image or a video.

    Attributes:
        name: for messages, its path within the source that contains it.
        kind: PICTURE or VIDEO.
    """

    path: Path
    name: str
    kind: str


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not used, and the reason."""

    name: str
    reason: str


def walk(
    sources: Iterable[Path],
    what: str,
    kinds: Collection[str] = (PICTURE,),
    out: Path | None = None,
) -> tuple[list[MediaFile], list[LeftOut]]:
    """Find the images and videos in files and folders, including subfolders.

    Args:
        sources: files and folders. A file that is itself a source is used whatever its name is; it
            is a video if it can be read as one.
        what: the option that names the sources, for messages.
        kinds: PICTURE, VIDEO or both.
        out: a folder of earlier results, which is left out.

    Returns:
        The media, each once, in the order of their names; and what was left out, such as other
        files and hidden ones.

    Raises:
        UserError: if a source does not exist.
    """
    found: dict[str, MediaFile] = {}
    left: list[LeftOut] = []
    for source in sources:
        for path, name in _files(source, what, out, left):
            kind = kind_of(path)
            if kind is None and path == source and VIDEO in kinds and is_video(path):
                kind = VIDEO
            if kind is not None and kind in kinds:
                found.setdefault(os.path.abspath(path), MediaFile(path, name, kind))
            else:
                left.append(LeftOut(name, f"a {kind}" if kind else "no picture"))
    return list(found.values()), left


def kind_of(path: Path) -> str | None:
    """Return PICTURE, VIDEO or None by the suffix of a file; if the suffix is unknown, by its
    content."""
    if VIDEOS.fullmatch(path.suffix.lower()):
        return VIDEO
    if without_suffix(path.name) != path.name:
        return PICTURE
    try:
        with open_image(path):
            return PICTURE
    except Exception:  # Pillow's decoders raise many types
        return None


def without_suffix(name: str) -> str:
    """Return a name without its suffix if it is the suffix of an image."""
    stem, suffix = os.path.splitext(name)
    format = Image.registered_extensions().get(suffix.lower())
    known = suffix.lower() in HEIC or (format in Image.OPEN and format in FORMATS)
    return stem if known else name


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a file in a folder is hidden, itself or by a subfolder that contains it."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def told(left: Iterable[LeftOut], shown: int = 5) -> list[str]:
    """Format what was left out, one line per reason, with the first names: "left out, hidden: 2
    (._a.jpg, …)"."""
    names: dict[str, list[str]] = {}
    for one in left:
        names.setdefault(printable(one.reason), []).append(printable(one.name))
    return [
        f"left out, {reason}: {len(some)} ({', '.join(some[:shown])}"
        f"{', ...' if len(some) > shown else ''})"
        for reason, some in names.items()
    ]


def print_left_out(left: Iterable[LeftOut], file: TextIO | None = None) -> None:
    """Print the lines of `told`; None: to stdout."""
    for line in told(left):
        print(line, file=file)


def unread(medium: MediaFile, error: Exception) -> LeftOut:
    """Return the record of a file that could not be read."""
    reason = str(error) if isinstance(error, UserError) else reason_of(error)
    return LeftOut(medium.name, reason.removeprefix(f"{medium.path}: "))


def _files(
    source: Path, what: str, out: Path | None, left: list[LeftOut]
) -> Iterator[tuple[Path, str]]:
    """Yield the regular files of a source, with their names within it."""
    try:
        mode = os.stat(source).st_mode
    except FileNotFoundError:
        raise UserError(f"{what} {source}: no such file or folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {source}: cannot be read ({_why(error)})") from None
    if stat.S_ISREG(mode):
        yield source, source.name
    elif stat.S_ISDIR(mode):
        results = {_key(os.stat(out)): "results"} if out and os.path.isdir(out) else {}
        yield from _inside(source, source, left, results)
    else:
        raise UserError(f"{what} {source}: expected a file or a folder, found a pipe or a device")


def _inside(
    folder: Path, source: Path, left: list[LeftOut], seen: dict[tuple[int, int], str]
) -> Iterator[tuple[Path, str]]:
    """Yield the files in a folder of a source.

    Args:
        seen: from the key of each folder that is not entered to the reason; this ends cycles of
            links.
    """
    try:
        key, names = _key(os.stat(folder)), sorted(os.listdir(folder))
    except OSError as error:
        left.append(LeftOut(f"{folder.relative_to(source)}/", _why(error)))
        return
    if key in seen:
        left.append(LeftOut(f"{folder.relative_to(source)}/", seen[key]))
        return
    seen[key] = "a link to a folder that was already searched"
    for path in (folder / name for name in names):
        told_as = str(path.relative_to(source))
        if path.name.startswith("."):
            left.append(LeftOut(told_as, "hidden"))
        elif os.path.isdir(path):
            yield from _inside(path, source, left, seen)
        elif os.path.isfile(path):
            yield path, told_as
        else:
            left.append(LeftOut(told_as, "not a regular file" if path.exists() else "missing"))


def _key(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
