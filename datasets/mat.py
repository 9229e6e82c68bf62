"""A reader for MATLAB v5 files, limited to the part of the format that the annotation files use.

scipy.io.loadmat is not used. With scipy 1.17.1, on a synthetic file in the form of TestG4000.mat
with 145 of its 2,900 queries of 4,000 images each (3 MB; on a busy CPU), it takes 12.0 s and 0.63
GiB, hence 12 GiB for all queries; this reader takes 2.6 s and 0.06 GiB. Of 1,000 small uncompressed
files with one to three changed bytes, 41 crash loadmat by SIGSEGV or SIGBUS, and 2 take more than
10 s. Here a matrix stays `bytes` until it is read, and any error in a file is reported in one line.
Format: MathWorks, "MAT-File Level 5 File Format".
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from utils.errors import UserError, no_memory, reason_of

NUMBERS = {
    1: "<i1",
    2: "<u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}  # storage type -> dtype
LETTERS = {
    1: "latin-1",
    2: "latin-1",
    4: "utf-16-le",
    16: "utf-8",
    17: "utf-16-le",
    18: "utf-32-le",
}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4  # classes of matrices; numeric ones are 6 to 15
TAG = struct.Struct("<II")
LARGEST = 2**31 - 1  # larger than any number in these files


@contextmanager
def reading(path: str):
    """Report any error during the reading of a file in one line.

    Raises:
        UserError: The file is missing, damaged, no regular file, or cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe may never end
        raise UserError(f"{path}: expected a file, found a folder, a pipe or a device")
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: missing annotation file") from None
    except Exception as error:  # arbitrary bytes can cause any exception
        if isinstance(error, OSError) or no_memory(error):
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path}: damaged, or not laid out as expected ({reason})") from None


def load(path: str, *names: str) -> bytes:
    """Return the matrix of the first variable whose name is in `names`."""
    with reading(path), open(path, "rb") as file:
        found = []
        for stream in _variables(file):
            whole = stream.read()
            found.append(_head(io.BytesIO(whole))[2])
            if found[-1] in names:
                return whole
        raise UserError(
            f"{path}: expected a variable {' or '.join(names)}, found {', '.join(found) or 'none'}"
        )


def load_structs(path: str, name: str) -> Iterator[dict[str, bytes]]:
    """Yield the elements of a struct array variable. They are read one by one."""
    with reading(path), open(path, "rb") as file:
        found = []
        for stream in _variables(file):
            kind, size, variable = _head(stream)
            found.append(variable)
            if variable == name and kind == STRUCT:
                fields = _field_names(stream)
                for _ in range(size):
                    yield {field: _element(stream)[1] for field in fields}
                stream.read()  # up to the checksum, which zlib verifies
                return
        raise UserError(
            f"{path}: expected a struct variable {name}, found {', '.join(found) or 'none'}"
        )


def fields(matrix: bytes) -> dict[str, list[bytes]]:
    """Return the matrices of each field of a struct array; {} if it is empty."""
    kind, size, stream = _open(matrix)
    if not size:
        return {}
    if kind != STRUCT:
        raise ValueError("expected a struct")
    names = _field_names(stream)
    parts = _matrices(stream.read(), size * len(names))
    return {name: parts[i :: len(names)] for i, name in enumerate(names)}


def cells(matrix: bytes) -> list[bytes]:
    """Return the matrices in a cell array."""
    kind, size, stream = _open(matrix)
    if size and kind != CELL:
        raise ValueError("expected a cell array")
    return _matrices(stream.read(), size) if size else []


def text(matrix: bytes) -> str:
    """Return the text in a character array."""
    kind, size, stream = _open(matrix)
    if kind != CHAR or not size:
        raise ValueError("expected a name")
    stored, data = _element(stream)
    value = data.decode(LETTERS[stored])
    if len(value) != size or not value.isprintable():
        raise ValueError(f"expected a name of {size} letters, found {value!r}")
    return value


def numbers(matrix: bytes) -> np.ndarray:
    """Return the numbers in a matrix, [n] float64, in the order of the file (by column)."""
    kind, size, stream = _open(matrix)
    if not size:
        return np.zeros(0)
    if not 6 <= kind <= 15:
        raise ValueError("expected numbers")
    stored, data = _element(stream)
    values = np.frombuffer(data, NUMBERS[stored]).astype(np.float64)
    if len(values) != size or not (np.abs(values) < LARGEST).all():
        raise ValueError(f"expected {size} pixels or identities, found {values[:8].tolist()}")
    return values


def _variables(file: BinaryIO) -> Iterator["BinaryIO | _Inflate"]:
    """Yield the content of each top-level matrix as a stream."""
    head = file.read(128)
    if head.startswith((b"MATLAB 7.3", b"\x89HDF")) or head[124:] == b"\0\2IM":
        raise UserError(
            f"{file.name}: a file of MATLAB 7.3 (HDF5), expected version 5 to 7: load it in MATLAB "
            "and save it with save(..., '-v7')"
        )
    if head[124:] != b"\0\1IM":
        raise ValueError("expected a little-endian MATLAB v5 file")
    while tag := file.read(8):
        kind, size = TAG.unpack(tag)
        body = file.read(size)
        if len(body) < size:
            raise EOFError("cut short")
        if kind == COMPRESSED:
            stream: BinaryIO | _Inflate = _Inflate(body)
            kind, _ = TAG.unpack(stream.read(8))
        else:
            stream = io.BytesIO(body)
        if kind == MATRIX:
            yield stream


class _Inflate:
    """A stream of decompressed data; zlib verifies its checksum at the end."""

    def __init__(self, data: bytes, step: int = 1 << 13):
        view = memoryview(data)
        self.inflate, self.ready = zlib.decompressobj(), b""
        self.left = (view[i : i + step] for i in range(0, len(data), step))

    def read(self, size: int | None = None) -> bytes:
        """Return the next `size` bytes, or all that are left."""
        parts, have = [self.ready], len(self.ready)
        while (size is None or have < size) and (part := next(self.left, None)):
            parts.append(self.inflate.decompress(part))
            have += len(parts[-1])
        data = b"".join(parts)
        if size is None and not self.inflate.eof:
            raise EOFError("cut short")
        size = len(data) if size is None else size
        self.ready = data[size:]
        return data[:size]


def _element(stream: "BinaryIO | _Inflate") -> tuple[int, bytes]:
    """Read the next data element. Return its type, and its data without padding."""
    tag = stream.read(8)
    kind, size = TAG.unpack(tag)
    if kind >> 16:  # up to four bytes are in the tag itself
        return kind & 0xFFFF, tag[4 : 4 + (kind >> 16)]
    data = stream.read(size + -size % 8)
    if len(data) < size:
        raise EOFError("cut short")
    return kind, data[:size]


def _head(stream: "BinaryIO | _Inflate") -> tuple[int, int, str]:
    """Read the header of a matrix. Return its class, number of elements and name."""
    (_, flags), (_, dims), (_, name) = (_element(stream) for _ in range(3))
    shape = np.frombuffer(dims, "<i4").tolist()
    if len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"a matrix of shape {shape}")
    return flags[0], math.prod(shape), name.decode()


def _open(matrix: bytes) -> tuple[int, int, BinaryIO]:
    """Return the class, number of elements and content of a matrix. Zero bytes are an empty
    matrix."""
    stream = io.BytesIO(matrix)
    kind, size, _ = _head(stream) if matrix else (6, 0, "")
    return kind, size, stream


def _field_names(stream: "BinaryIO | _Inflate") -> list[str]:
    """Read the names of the fields of a struct array."""
    (_, width), (_, names) = _element(stream), _element(stream)
    (width,) = struct.unpack("<i", width)
    return [names[i : i + width].split(b"\0")[0].decode() for i in range(0, len(names), width)]


def _matrices(data: bytes, count: int) -> list[bytes]:
    """Split the data of `count` consecutive matrices. This function takes most of the reading
    time."""
    found, start, unpack = [], 0, TAG.unpack_from
    while start < len(data):
        kind, size = unpack(data, start)
        if kind != MATRIX:
            raise ValueError("expected a matrix")
        found.append(data[start + 8 : start + 8 + size])
        start += 8 + size
    if len(found) != count or start > len(data):
        raise ValueError(f"expected {count} matrices, found {len(found)}")
    return found
