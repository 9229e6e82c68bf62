"""Files: written beside and renamed; those of tensors loaded without running code from them."""

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch

from utils.errors import UserError


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """A file that takes `path`'s place once it is written whole and lies on the disk."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        part.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({str(error).splitlines()[0]}); earlier files are whole"
        ) from None


def write_text(text: str, path: Path) -> None:
    """Text that takes the place of what `path` held once it is written whole. Bytes of a name that
    are not UTF-8 are escaped."""
    with written_beside(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def make_folder(folder: Path, key: str) -> None:
    """`folder`, made where it is not there; key: the option or config key that named it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key} {folder}: cannot be made ({error.strerror or error})") from None


def expect_new(folder: Path, key: str) -> None:
    """UserError where there is something in `folder`, or in its place, already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{key} {folder}: expected a new or empty folder, found other content")


@contextmanager
def folder_beside(folder: Path, key: str) -> Iterator[Path]:
    """A folder that becomes `folder` once all is in it, and vanishes if anything goes wrong."""
    expect_new(folder, key)
    make_folder(folder, key)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        whole = Path(beside, folder.name)
        whole.mkdir()
        yield whole
        os.replace(whole, folder)


def save_file(content: Any, path: Path) -> None:
    """torch.save that never leaves half a file at `path`."""
    with written_beside(path) as file:
        torch.save(content, file)


def _check_file(path: str | Path, what: str) -> None:
    """UserError where `path` is no file: missing, a folder, a pipe or a device, which may never
    end, or no path at all. what: the option or key that names it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UserError(f"{what} {path}: expected a file, found a folder, a pipe or a device")
    except FileNotFoundError:
        raise UserError(f"{what} {path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{what} {path}: cannot be read ({reason})") from None


def read_text(path: Path, what: str) -> str:
    """A text file's content, without a byte order mark; UserError where it cannot be read."""
    _check_file(path, what)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{what} {path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path}: not a text in UTF-8 ({error})") from None


def load_file(path: str | Path, what: str) -> dict:
    """A dict saved by torch.save, on the CPU; UserError where missing, damaged or not data."""
    if not Path(path).is_file():
        raise UserError(f"{what} {path}: no such file")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at its files' checksums
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise ValueError(f"the checksum of {damaged} is another")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds: zip, pickle, EOF, torch's own
        said = re.search(r"Unsupported [^\n]+?(?= was not|\n|$)", str(error))  # by the safe loader
        reason = said.group() if said else next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{what} {path}: damaged, or not a file of tensors ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{what} {path}: expected a dict, found {type(content).__name__}")
    return content
