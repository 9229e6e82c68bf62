"""The embeddings of an index in FAISS: a file that finds who is near without asking everyone.

It can always be made again from the people (engine.index.people). Behind FAISS's own bytes stand
the name of the index it belongs to and a checksum; FAISS reads such a file too.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.index.people import People
from utils.errors import UserError, reason_of
from utils.files import written_beside
from utils.optional import optional

EXACT = "Flat"
REQUIREMENTS = "requirements-index.txt"
OWNER = 16  # bytes of an index's name
TRAINED_ON = 200_000  # people at most, to train kinds that need it


class Vectors:
    """A FAISS index of inner products, of a kind that FAISS's factory string names."""

    def __init__(self, index: Any, kind: str):
        self.index = index
        self.kind = kind

    @staticmethod
    def empty(kind: str, width: int) -> "Vectors":
        """UserError where FAISS knows no such kind for embeddings of this width."""
        faiss = load_faiss("an index")
        try:
            index = faiss.index_factory(width, f"IDMap2,{kind}", faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise UserError(
                f"--kind {kind}: expected a factory string of FAISS that serves inner products of "
                f"{width} numbers, as Flat, HNSW32, IVF1024,Flat or IVF1024,PQ32 ({_said(error)})"
            ) from None
        return Vectors(index, kind)

    @staticmethod
    def load(path: Path, kind: str, width: int, owner: bytes) -> "Vectors":
        """UserError where the file is missing, damaged, or another index's."""
        faiss = load_faiss(str(path))
        try:
            with open(path, "rb") as file:
                checked = _Checked(file.read)
                index = faiss.read_index(faiss.PyCallbackIOReader(checked))
                checked(0)
                crc, tail = checked.crc, file.read()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        except (RuntimeError, MemoryError) as error:
            raise UserError(f"{path}: damaged ({_said(error)})") from None
        if tail[OWNER:] != crc.to_bytes(4, "little") or index.d != width:
            raise UserError(f"{path}: damaged (its checksum is another)")
        if tail[:OWNER] != owner:
            raise UserError(f"{path}: belongs to another index")
        return Vectors(index, kind)

    def save(self, path: Path, owner: bytes) -> None:
        """Written beside and renamed."""
        faiss = load_faiss(str(path))
        with written_beside(path) as file:
            checked = _Checked(file.write)
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(checked))
            file.write(owner + checked.crc.to_bytes(4, "little"))

    @property
    def ids(self) -> np.ndarray:
        """[n] the numbers of the people in it."""
        return load_faiss("").vector_to_array(self.index.id_map)

    @property
    def last(self) -> int:
        """The highest of them, 0 if none."""
        return int(self.ids.max(initial=0))

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """queries [q, D] float32 -> inner products [q, count], falling, and numbers [q, count], -1
        where it knows no more."""
        self._look_in_enough(count)
        return self.index.search(queries, count)

    def _look_in_enough(self, count: int) -> None:
        """Of the cells of an inverted file, a sixteenth is looked into, and eight at least."""
        faiss = load_faiss("")
        inner = faiss.downcast_index(self.index.index)
        inner = faiss.downcast_index(getattr(inner, "index", inner))
        if hasattr(inner, "nprobe"):
            inner.nprobe = min(inner.nlist, max(8, math.ceil(inner.nlist / 16)))
        if hasattr(inner, "hnsw"):
            inner.hnsw.efSearch = max(64, count)

    def follow(self, people: People) -> "Vectors":
        """The people as they are now: those gone are taken out, new ones put in. A kind that cannot
        forget, or learned its cells from less than half as many people, is made anew."""
        here = people.numbers()
        gone = np.setdiff1d(self.ids, here)
        learned = people.fact("learned_from") or 0
        needs_training = not Vectors.empty(self.kind, self.index.d).index.is_trained
        if needs_training and (not self.index.is_trained or len(here) > 2 * learned):
            return self.made_from(people)
        if len(gone):
            try:
                self.index.remove_ids(gone)
            except RuntimeError:
                return self.made_from(people)
        return self._with_those_after(people, self.last)

    def made_from(self, people: People) -> "Vectors":
        """The same kind, of all the people. UserError where they are too few to train it."""
        made, count = Vectors.empty(self.kind, self.index.d), people.count()
        if not made.index.is_trained:
            sample = [rows for _, rows in people.embeddings(one_in=count // TRAINED_ON + 1)]
            try:
                made.index.train(
                    np.concatenate(sample or [np.zeros((0, self.index.d), np.float32)])
                )
            except RuntimeError as error:
                raise UserError(
                    f"--kind {self.kind}: cannot be trained on {count} people ({_said(error)}); "
                    "all are kept, searched one by one until there are more, or --kind is another"
                ) from None
            people.set_facts(learned_from=count)
        return made._with_those_after(people, 0)

    def _with_those_after(self, people: People, last: int) -> "Vectors":
        for ids, rows in people.embeddings(after=last):
            self.index.add_with_ids(rows, ids)
        return self


class _Checked:
    """Reads or writes, and keeps a checksum of what went through."""

    def __init__(self, through: Callable):
        self.through = through
        self.crc = 0

    def __call__(self, what):
        done = self.through(what)
        self.crc = zlib.crc32(done if isinstance(done, bytes) else what, self.crc)
        return done


def load_faiss(what: str):
    return optional("faiss", what, REQUIREMENTS)


def _said(error: BaseException) -> str:
    """FAISS's own words, without the places in its code."""
    words = " ".join(str(error).split()).rpartition(" at /")[2].partition(": ")[2] or str(error)
    return words.rpartition("failed: ")[2] or words.removeprefix("Error: ")
