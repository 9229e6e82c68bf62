"""The FAISS file of an index, which finds the people nearest to a query without comparing all.

It can be rebuilt from the people (engine.index.people) at any time. A trailer after FAISS's own
bytes connects the file with the index: it contains the index's name, its state when the file was
written, and a checksum. FAISS can read such a file too.
"""

import math
import os
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from engine.index.people import People
from utils.errors import DamagedError, UserError, reason_of
from utils.files import written_beside
from utils.optional import optional

EXACT = "Flat"
REQUIREMENTS = "requirements-index.txt"
MARK = 16  # bytes of an index's name and of its state
CHECKSUM = 4  # bytes
TRAINED_ON = 200_000  # largest number of people that a kind is trained on
PIECE = 1 << 24  # bytes read at once


class TooFewPeopleError(UserError):
    """The error that an index has too few people to train its kind."""


class Vectors:
    """A FAISS index of inner products.

    Args:
        index: FAISS's object.
        kind: FAISS's factory string.

    Attributes:
        learned_from: number of people that it was trained on, 0 if it needs no training.
    """

    def __init__(self, index: Any, kind: str):
        self.index = index
        self.kind = kind
        self.learned_from = 0

    @staticmethod
    def empty(kind: str, width: int) -> "Vectors":
        """Create an empty FAISS index.

        Raises:
            UserError: if FAISS has no such kind for embeddings of this width.
        """
        faiss = load_faiss("an index")
        try:
            index = faiss.index_factory(width, f"IDMap2,{kind}", faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise UserError(
                f"--kind {kind}: expected a factory string of FAISS that supports inner products "
                f"of {width} values, as Flat, HNSW32, IVF1024,Flat or IVF1024,PQ32 "
                f"({_reason(error)})"
            ) from None
        return Vectors(index, kind)

    @staticmethod
    def load(
        path: Path, kind: str, width: int, owner: bytes, states: Collection[bytes | None]
    ) -> "Vectors":
        """Read a file.

        Args:
            owner: name of the index.
            states: states at which the file may have been written; None: by a version of this
                program without states.

        Raises:
            DamagedError: if the file is damaged, belongs to another index, or was written at
                another state.
            UserError: if it cannot be read.
        """
        faiss = load_faiss(str(path))
        try:
            with open(path, "rb") as file:
                _check_trailer(file, path, owner, states)
                file.seek(0)
                index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        except (RuntimeError, MemoryError) as error:
            raise DamagedError(f"{path}: damaged ({_reason(error)})") from None
        if index.d != width:
            raise DamagedError(f"{path}: damaged ({index.d} values for each person, not {width})")
        return Vectors(index, kind)

    def save(self, path: Path, owner: bytes, state: bytes) -> None:
        """Write the file completely or not at all."""
        faiss = load_faiss(str(path))
        checksum = 0

        def write(data: bytes) -> int:
            nonlocal checksum
            checksum = zlib.crc32(data, checksum)
            return file.write(data)

        with written_beside(path) as file:
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(write))
            file.write(owner + state + checksum.to_bytes(CHECKSUM, "little"))

    @property
    def ids(self) -> np.ndarray:
        """The ids of the people, [n]."""
        return load_faiss("").vector_to_array(self.index.id_map)

    @property
    def last(self) -> int:
        """The highest id, 0 if there are no people."""
        return int(self.ids.max(initial=0))

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the people nearest to queries [q, D] float32.

        If the cells of an inverted file that are searched contain fewer than `count` people, all
        cells are searched, so that a filter of the results can select from everyone.

        Returns:
            inner products [q, n] in descending order, and ids [q, n], -1 behind the last; n is
            `count`, or one more than the number of people if `count` is larger.
        """
        count = min(count, self.index.ntotal + 1)
        leaves_out_cells = self._set_effort(count)
        similar, ids = self.index.search(queries, count)
        if leaves_out_cells and (ids[:, : self.index.ntotal] < 0).any():
            self._set_effort(count, every_cell=True)
            similar, ids = self.index.search(queries, count)
        return similar, ids

    def _set_effort(self, count: int, every_cell: bool = False) -> bool:
        """Set how many cells of an inverted file are searched: a sixteenth of them, but at least
        eight, or all. Return whether cells are left out.

        A kind with refinement ("…,RFlat") compares four times as many candidates.
        """
        faiss = load_faiss("")
        inner = self.index
        while deeper := getattr(inner, "base_index", None) or getattr(inner, "index", None):
            inner = faiss.downcast_index(deeper)
            if hasattr(inner, "k_factor"):
                inner.k_factor = 4
        if hasattr(inner, "nprobe"):
            some = min(inner.nlist, max(8, math.ceil(inner.nlist / 16)))
            inner.nprobe = inner.nlist if every_cell else some
        if hasattr(inner, "hnsw"):
            inner.hnsw.efSearch = max(64, count)
        return hasattr(inner, "nprobe") and inner.nprobe < inner.nlist

    def follow(self, people: People) -> "Vectors":
        """Remove people who were deleted and add new ones. If this is not possible, rebuild the
        index.

        It is rebuilt if its kind cannot remove people, or was trained on less than half of the
        present number.
        """
        here = people.numbers()
        gone = np.setdiff1d(self.ids, here)
        self.learned_from = int(people.fact("learned_from") or 0)
        needs_training = not Vectors.empty(self.kind, self.index.d).index.is_trained
        if needs_training and (not self.index.is_trained or len(here) > 2 * self.learned_from):
            return self.made_from(people)
        if len(gone):
            try:
                self.index.remove_ids(gone)
            except RuntimeError:
                return self.made_from(people)
        return self._with_those_after(people, self.last)

    def made_from(self, people: People) -> "Vectors":
        """Build an index of the same kind from all people.

        Raises:
            TooFewPeopleError: if they are too few to train it.
        """
        made, count = Vectors.empty(self.kind, self.index.d), people.count()
        if not made.index.is_trained:
            sample = [rows for _, rows in people.embeddings(one_in=count // TRAINED_ON + 1)]
            try:
                made.index.train(
                    np.concatenate(sample or [np.zeros((0, self.index.d), np.float32)])
                )
            except RuntimeError as error:
                raise TooFewPeopleError(
                    f"--kind {self.kind}: cannot be trained on {count} people "
                    f"({_reason(error)}); until there are more people or --kind is "
                    "changed, everyone is compared one by one"
                ) from None
            made.learned_from = count
        return made._with_those_after(people, 0)

    def _with_those_after(self, people: People, last: int) -> "Vectors":
        for ids, rows in people.embeddings(after=last):
            self.index.add_with_ids(rows, ids)
        return self


def _check_trailer(
    file: BinaryIO, path: Path, owner: bytes, states: Collection[bytes | None]
) -> None:
    """Check the trailer of a FAISS file before FAISS reads it. Errors are those of Vectors.load."""
    trailer = _trailer(file, 2 * MARK)
    if trailer is None and None in states:
        trailer = _trailer(file, MARK)
    if trailer is None:
        raise DamagedError(f"{path}: damaged (its checksum differs)")
    if trailer[:MARK] != owner:
        raise DamagedError(f"{path}: belongs to another index")
    if (trailer[MARK:] or None) not in states:
        raise DamagedError(
            f"{path}: belongs to another state of the index, for example to a restored backup"
        )


def _trailer(file: BinaryIO, length: int) -> bytes | None:
    """Return the last `length` bytes before the checksum; None if the checksum is wrong."""
    left = os.fstat(file.fileno()).st_size - length - CHECKSUM
    checksum = 0
    file.seek(0)
    while left > 0 and (data := file.read(min(left, PIECE))):
        checksum = zlib.crc32(data, checksum)
        left -= len(data)
    trailer = file.read(length)
    return trailer if file.read() == checksum.to_bytes(CHECKSUM, "little") else None


def load_faiss(what: str):
    return optional("faiss", what, REQUIREMENTS)


def _reason(error: BaseException) -> str:
    """Return FAISS's message without the positions in its source code."""
    words = " ".join(str(error).split()).rpartition(" at /")[2].partition(": ")[2] or str(error)
    return words.rpartition("failed: ")[2] or words.removeprefix("Error: ")
