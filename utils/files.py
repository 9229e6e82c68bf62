"""Files: written beside and renamed; those of tensors loaded without running code from them."""

import errno
import hashlib
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import torch
from filelock import lock_descriptor

from utils.errors import DamagedError, UserError, no_memory, reason_of


class _Noting:
    """A file to write to that keeps the system's error: torch.save tells another of its own."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` once it is complete and on the disk.

    Several processes may write to one path at a time: each writes a file of its own, and the last
    one to end stays. What a killed process has left is overwritten by the next one.

    Raises:
        UserError: The disk refuses it. What was at `path` before is whole.
    """
    try:
        part, file = _own_part(path)
        with file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(part, path)
            except BaseException:
                with suppress(OSError):  # a disk that became read-only keeps it
                    part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason_of(error)}); earlier files are whole"
        ) from None


def _own_part(path: Path) -> tuple[Path, BinaryIO]:
    """Open the first of NAME.part, NAME.2.part, ... that no other writer has, emptied and locked
    until it is closed."""
    number = 1
    while True:
        part = path.with_name(f"{path.name}{f'.{number}' if number > 1 else ''}.part")
        file = open(os.open(part, os.O_WRONLY | os.O_CREAT, 0o666), "wb")  # noqa: SIM115
        try:
            own = lock_descriptor(file.fileno(), blocking=False)
        except OSError:  # a network disk without locks
            own = number == os.getpid()
            number = os.getpid()
        else:
            number += 1
        with suppress(FileNotFoundError):  # another writer has renamed it since
            if own and os.path.samestat(os.stat(part), os.fstat(file.fileno())):
                file.truncate(0)
                return part, file
        file.close()


def write_text(text: str, path: Path) -> None:
    """Text that takes the place of what `path` held once it is written whole. Bytes of a name that
    are not UTF-8 are escaped."""
    with written_beside(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def remove(path: Path) -> None:
    """A file that may be gone already; a folder of its name stays."""
    if path.is_dir():
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({reason_of(error)})") from None


def make_folder(folder: Path, key: str) -> None:
    """`folder`, made where it is not there; key: the option or config key that named it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{key} {folder}: cannot be made ({reason_of(error)})") from None


def expect_new(folder: Path, key: str) -> None:
    """UserError where there is something in `folder`, or in its place, already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{key} {folder}: expected a new or empty folder, found other content")


@contextmanager
def folder_beside(folder: Path, key: str) -> Iterator[Path]:
    """A folder that becomes `folder` once all is in it, and vanishes if anything goes wrong."""
    expect_new(folder, key)
    make_folder(folder.parent, key)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        whole = Path(beside, folder.name)
        whole.mkdir()
        yield whole
        os.replace(whole, folder)


def check_target(option: str, path: Path, suffix: str) -> None:
    """Make the folder of a file to be written; UserError unless its name ends in `suffix`."""
    if path.suffix != suffix:
        raise UserError(f"{option} {path}: expected a name that ends in {suffix}")
    make_folder(path.parent, option)


def file_digest(path: str | Path, what: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file. what: the option or config key that
    named it.

    Raises:
        UserError: if it cannot be read.
    """
    with open_file(path, what) as file, content_of(f"{what} {path}", "a file"):
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # a BufferedReader
    return digest.hexdigest()[:16]


def save_file(content: Any, path: Path) -> None:
    """torch.save that never leaves half a file at `path`."""
    with written_beside(path) as file:
        noting = _Noting(file)
        try:
            torch.save(content, noting)  # type: ignore[arg-type]  # write and flush are enough
        except RuntimeError as error:  # of torch's writer, once its file has failed
            raise noting.error or error from None


def open_file(path: str | Path, what: str) -> BinaryIO:
    """The file at `path`, open for reading; UserError where it is not there, is no file, or cannot
    be read. what: the option or config key that named it."""
    where = f"{what} {path}".strip()
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):
            return open(path, "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{where}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{where}: cannot be read ({reason_of(error)})") from None
    raise UserError(f"{where}: expected a file, found a folder, a pipe or a device")


@contextmanager
def content_of(where: str, kind: str) -> Iterator[None]:
    """Within, the content of a file is read. Damaged where it is not whole or not of its kind, a
    UserError where the system does not give it."""
    try:
        yield
    except Exception as error:  # many kinds: zip, pickle, EOF, torch's own
        # a damaged file leads to places before its start, which the system calls invalid
        refused = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if refused or no_memory(error):
            raise UserError(f"{where}: cannot be read ({reason_of(error)})") from None
        raise DamagedError(f"{where}: damaged, or not {kind} ({_said(error)})") from None


def read_text(path: Path, what: str) -> str:
    """A text file's content, without a byte order mark; UserError where it cannot be read."""
    where = f"{what} {path}".strip()
    with open_file(path, what) as file:
        try:
            return file.read().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({reason_of(error)})") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not a text in UTF-8 ({error})") from None


def load_file(path: str | Path, what: str) -> dict:
    """A dict saved by torch.save, on the CPU. Damaged where it is not whole or not data; UserError
    where it cannot be read."""
    where = f"{what} {path}"
    with open_file(path, what) as file, content_of(where, "a file of tensors"):
        content = _load(file)
    if not isinstance(content, dict):
        raise DamagedError(f"{where}: expected a dict, found {type(content).__name__}")
    return content


def _load(file: BinaryIO) -> Any:
    if zipfile.is_zipfile(file):  # torch does not look at its files' checksums
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is another")
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a pickle which it then refuses is of another kind
        return torch.load(file, map_location="cpu", weights_only=True)


def _said(error: Exception) -> str:
    """What torch's safe loader did not like, without its advice to load the file in another way."""
    if "weights_only" not in str(error):
        return reason_of(error)
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {code.group(1)}, which is no tensor"
    said = re.search(r"Unsupported [^\n]+?(?= was not|\n|$)", str(error))
    return said.group() if said else "it holds more than tensors"
