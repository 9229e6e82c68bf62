"""Files that are written completely or not at all, and files of tensors, which never run code."""

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

from utils.early import ended_by_exception
from utils.errors import DamagedError, UserError, no_memory, reason_of


class _Noting:
    """A file that records the system's error, because torch.save replaces it by another one."""

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
    """Open a file that replaces `path` when it is complete and on the disk.

    Several processes may write to the same path at the same time: each writes its own file, and the
    last one that finishes replaces the others. Remains of killed processes are overwritten.

    Raises:
        UserError: if the file cannot be written. The previous file at `path` is unchanged.
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
                with suppress(OSError):  # the disk may have become read-only
                    part.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({reason_of(error)}); files written earlier are complete"
        ) from None


def _own_part(path: Path) -> tuple[Path, BinaryIO]:
    """Open the first of NAME.part, NAME.2.part, ... that no other process is writing.

    The file is emptied, and locked until it is closed.
    """
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
    """Replace the content of `path` by a text. Bytes of file names that are not UTF-8 are
    escaped."""
    with written_beside(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def remove(path: Path) -> None:
    """Remove a file if it exists. A folder with that name stays."""
    if path.is_dir():
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({reason_of(error)})") from None


def erase(path: Path) -> None:
    """Overwrite a file, if it exists, and remove it."""
    with overwritten(path):
        remove(path)


@contextmanager
def overwritten(path: Path) -> Iterator[None]:
    """Overwrite the previous file at `path`, which is replaced or removed within the context.

    The disk itself may keep copies, as flash memory does.
    """
    try:
        file = open(path, "r+b")  # noqa: SIM115
    except OSError:  # there is none, or its removal raises the error
        yield
        return
    with file:
        yield
        with suppress(OSError):  # the disk may have become read-only
            file.write(bytes(os.fstat(file.fileno()).st_size))
            file.flush()
            os.fsync(file.fileno())


def make_folder(folder: Path, key: str) -> None:
    """Create a folder if it does not exist.

    Args:
        key: the option or config key that names it.
    """
    with _reported(folder, key):
        folder.mkdir(parents=True, exist_ok=True)


def expect_new(folder: Path, key: str) -> None:
    """Raise UserError unless `folder` is empty or does not exist."""
    try:
        free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{key} {folder}: cannot be read ({reason_of(error)})") from None
    if not free:
        raise UserError(f"{key} {folder}: expected a new or empty folder, found other content")


@contextmanager
def folder_beside(folder: Path, key: str) -> Iterator[Path]:
    """Yield a new folder, which is renamed to `folder` at the end, or removed after an error or a
    signal.

    If `folder` is a link, the folder to which it points is replaced.

    Raises:
        UserError: if `folder` has content, is a mount point, or cannot be made.
    """
    expect_new(folder, key)
    folder = folder.resolve()
    if os.path.ismount(folder):  # it cannot be replaced
        raise UserError(f"{key} {folder}: expected a folder within this mount point, not itself")
    make_folder(folder.parent, key)
    with _reported(folder, key):
        beside = TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
    with beside, ended_by_exception():
        whole = Path(beside.name, folder.name)
        whole.mkdir()
        yield whole
        with _reported(folder, key):
            os.replace(whole, folder)


@contextmanager
def _reported(folder: Path, key: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{key} {folder}: cannot be made ({reason_of(error)})") from None


def check_target(option: str, path: Path, suffix: str) -> None:
    """Create the folder of a file to be written, and check it before any work.

    Raises:
        UserError: if the name does not end in `suffix`, or no file can be written there.
    """
    if path.suffix != suffix:
        raise UserError(f"{option} {path}: expected a name that ends in {suffix}")
    make_folder(path.parent, option)
    if path.is_dir():
        raise UserError(f"{option} {path}: expected a file, found a folder")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: cannot be written ({os.strerror(errno.EACCES)})")


def file_digest(path: str | Path, what: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a file.

    Args:
        what: the option or config key that named it.

    Raises:
        UserError: if it cannot be read.
    """
    with open_file(path, what) as file, content_of(f"{what} {path}", "a file"):
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # a BufferedReader
    return digest.hexdigest()[:16]


def save_file(content: Any, path: Path) -> None:
    """Save with torch.save, so that `path` never contains an incomplete file."""
    with written_beside(path) as file:
        noting = _Noting(file)
        try:
            torch.save(content, noting)  # type: ignore[arg-type]  # write and flush are enough
        except RuntimeError as error:  # of torch's writer, once its file has failed
            raise noting.error or error from None


def open_file(path: str | Path, what: str) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: the file.
        what: the option or config key that names it.

    Raises:
        UserError: if it does not exist, is no regular file, or cannot be read.
    """
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
    """Report errors during the reading of a file's content in one line.

    Args:
        where: the file, with the option that names it.
        kind: the expected kind of file, for the message.

    Raises:
        DamagedError: if the content is incomplete or of another kind.
        UserError: if the system cannot read it.
    """
    try:
        yield
    except Exception as error:  # many kinds: zip, pickle, EOF, torch's own
        # a damaged file may contain offsets before its start, which are EINVAL
        refused = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if refused or no_memory(error):
            raise UserError(f"{where}: cannot be read ({reason_of(error)})") from None
        raise DamagedError(f"{where}: damaged, or not {kind} ({_said(error)})") from None


def read_text(path: Path, what: str) -> str:
    """Return a text file's content without a byte order mark.

    Raises:
        UserError: if it is not a readable text file.
    """
    where = f"{what} {path}".strip()
    with open_file(path, what) as file:
        try:
            return file.read().decode("utf-8-sig")
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({reason_of(error)})") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error})") from None


def load_file(path: str | Path, what: str) -> dict:
    """Load a dict that torch.save has saved, to the CPU.

    Raises:
        DamagedError: if the file is incomplete, or contains something else.
        UserError: if it cannot be read.
    """
    where = f"{what} {path}"
    with open_file(path, what) as file, content_of(where, "a file of tensors"):
        content = _load(file)
    if not isinstance(content, dict):
        raise DamagedError(f"{where}: expected a dict, found {type(content).__name__}")
    return content


def _load(file: BinaryIO) -> Any:
    if zipfile.is_zipfile(file):  # torch.load does not verify its checksums
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kind of a pickle, which is then refused
        return torch.load(file, map_location="cpu", weights_only=True)


def _said(error: Exception) -> str:
    """Return why torch refused a file, without torch's advice to load it in an unsafe way."""
    if "weights_only" not in str(error):
        return reason_of(error)
    if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it contains {code.group(1)}, which is not a tensor"
    said = re.search(r"Unsupported [^\n]+?(?= was not|\n|$)", str(error))
    return said.group() if said else "it contains more than tensors"
