"""MATLAB v5 files; whatever is wrong with one is one clear line."""
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import scipy.io

from utils.errors import UserError


@contextmanager
def reading(path: str):
    """Whatever goes wrong while reading foreign data is the file's fault, said in one line."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: missing annotation file") from None
    except Exception as error:  # scipy alone raises a dozen kinds on a damaged file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path}: damaged, or not laid out as expected ({reason})") from None


def load_mat(path: str, *variables: str) -> np.ndarray:
    """The first of `variables` that the MATLAB v5 file holds."""
    with reading(path):
        content = scipy.io.loadmat(path)
        for variable in variables:
            if variable in content:
                return content[variable]
    found = ", ".join(k for k in content if not k.startswith("__")) or "nothing"
    raise UserError(f"{path}: expected a variable {' or '.join(variables)}, found {found}")


def text(cell: np.ndarray) -> str:
    """A MATLAB string."""
    value = cell.item()
    if not isinstance(value, str):
        raise ValueError(f"expected a name, found {value!r}")
    return value


def load_structs(path: str, variable: str) -> Iterator[np.void]:
    """The elements of a [1, n] struct array, one at a time.

    scipy needs 10 GB for a whole TestG4000.mat. Here it parses one element after the other, each
    repacked as a file of its own; a file that is laid out otherwise is left to scipy as a whole.
    """
    with reading(path), open(path, "rb") as file:
        header = file.read(128)
        kind, size = struct.unpack("<II", file.read(8))
        stream = _Inflate(file) if kind == 15 else file
        if kind == 15:
            kind, size = struct.unpack("<II", stream.read(8))
        (flags, _), (dims, raw_dims), (name, raw_name) = (_element(stream) for _ in range(3))
        known = header[126:] == b"IM" and kind == 14 and flags[:1] == b"\2" and len(dims) == 8
        if known and name == variable.encode():
            raw_flags = struct.pack("<II", 6, 8) + flags
            (width, _), (fields, _) = parts = [_element(stream) for _ in range(2)]
            head = raw_flags + struct.pack("<IIII", 5, 8, 1, 1) + raw_name
            head += b"".join(raw for _, raw in parts)
            count = len(fields) // struct.unpack("<I", width)[0]
            for _ in range(int(np.prod(struct.unpack("<II", dims)))):
                body = head + b"".join(_element(stream)[1] for _ in range(count))
                whole = header + struct.pack("<II", 14, len(body)) + body
                yield scipy.io.loadmat(io.BytesIO(whole))[variable][0, 0]
            stream.read()  # to the checksum
            return
    yield from load_mat(path, variable).ravel()


class _Inflate:
    """Reads on through a zlib stream."""

    def __init__(self, file: BinaryIO):
        self.file, self.inflate, self.ready = file, zlib.decompressobj(), b""

    def read(self, size: int | None = None) -> bytes:
        parts, have = [self.ready], len(self.ready)
        while (size is None or have < size) and (chunk := self.file.read(1 << 16)):
            parts.append(self.inflate.decompress(chunk))
            have += len(parts[-1])
        data = b"".join(parts)
        self.ready = b"" if size is None else data[size:]
        if size is None and not self.inflate.eof:
            raise EOFError("cut short")
        return data if size is None else data[:size]


def _element(stream: BinaryIO | _Inflate) -> tuple[bytes, bytes]:
    """The next data element: its data, and the whole of it with tag and padding."""
    tag = stream.read(8)
    kind, size = struct.unpack("<II", tag)
    if kind >> 16:  # up to four bytes stand in the tag itself
        return tag[4:4 + (kind >> 16)], tag
    body = stream.read(size + -size % 8)
    if len(body) < size:
        raise EOFError("cut short")
    return body[:size], tag + body
