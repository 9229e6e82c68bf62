"""An index of the people in many pictures and videos, which is created once and searched
quickly."""

import os
from argparse import ArgumentTypeError
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from engine.index import local, milvus, milvus_writer
from engine.index.milvus import Address
from engine.index.records import IndexedSource, Match, Origin, Person, PersonFilter, camera_of
from utils.arguments import nonempty_path
from utils.errors import reason_of

MARGIN = 1e-5  # of inner products in float32


class Store(Protocol):
    """The functions of a store of people that a search needs; implemented by engine.index.local and
    .milvus."""

    def candidates(
        self,
        queries: np.ndarray,
        count: int,
        exclude: Collection[Path] = (),
        person_filter: PersonFilter | None = None,
    ) -> tuple[list[Person], float]: ...

    def spans(self, tracklets: Sequence[int]) -> dict[int, tuple[float, float]]: ...

    def count(self) -> int: ...

    def known(self) -> list[IndexedSource]: ...

    def version(self, path: Path) -> tuple[int, int] | None: ...

    def read_until(self, path: Path) -> float: ...

    def pictured(
        self, tracklets: Sequence[int], person_filter: PersonFilter | None = None
    ) -> dict[int, Person]: ...

    def in_scene(self, path: Path, time: float | None) -> list[Person]: ...

    def is_current(self) -> bool: ...


class GalleryIndex:
    """A store of people that can be searched. By default it is an empty one in memory, which needs
    no FAISS."""

    def __init__(self, people: Store | None = None):
        self.people = local.LocalPeople() if people is None else people

    def search(
        self,
        query_embeddings: Tensor,
        top: int,
        min_similarity: float = -np.inf,
        exclude: Collection[Path] = (),
        person_filter: PersonFilter | None = None,
    ) -> list[Match]:
        """Return the `top` best matches, best first, at most one for each tracklet.

        The store proposes candidates. Similarities are computed from their embeddings, so they do
        not depend on the store. The number of candidates grows until no other person can be among
        the `top` best.

        Args:
            query_embeddings: [q, D], of length 1 or less. A person's similarity is the largest
                inner product with one of them.
            min_similarity: lowest similarity of a match.
            exclude: sources whose people are no matches.
            person_filter: who may be a match; None: everyone.
        """
        query_embeddings = query_embeddings.float().cpu()
        queries = np.ascontiguousarray(query_embeddings.numpy())
        count = max(64, 8 * top)
        while True:
            people, bound = self.people.candidates(queries, count, exclude, person_filter)
            found = _best_of_tracklets(people, query_embeddings)[:top]
            if bound == -np.inf or not top:
                break
            if len(found) == top and found[-1].similarity > bound + MARGIN:
                break
            if len(found) < top and bound < min_similarity - MARGIN:
                break
            count *= 4
        found = [match for match in found if match.similarity >= min_similarity]
        tracklets = [match.person.tracklet for match in found]
        spans = self.people.spans(tracklets)
        pictured = self.people.pictured(tracklets, person_filter)
        return [
            Match(pictured.get(number, m.person), m.similarity, m.query, spans.get(number))
            for number, m in zip(tracklets, found)
        ]


def _best_of_tracklets(people: Sequence[Person], query_embeddings: Tensor) -> list[Match]:
    """Return the best match of each tracklet, best first."""
    if not people:
        return []
    similar = similarities(people, query_embeddings)
    rows = similar.argmax(1)
    matches = [
        Match(person, float(values[row]), int(row), None)
        for person, values, row in zip(people, similar, rows)
    ]
    matches.sort(key=_order)
    best: dict[int, Match] = {}
    for match in matches:
        best.setdefault(match.person.tracklet, match)
    return list(best.values())


def similarities(people: Sequence[Person], query_embeddings: Tensor) -> np.ndarray:
    """Return the similarities of n people to the query embeddings [q, D]: [n, q] float64.

    They are summed row by row: in a product of matrices the last digit of a similarity would depend
    on the other rows.
    """
    rows = np.stack([person.embedding for person in people]).astype(np.float64)
    return np.stack([(rows * query).sum(1) for query in query_embeddings.double().numpy()], 1)


def _order(match: Match):
    """Return a sort key: descending similarity; equal ones by path, time and box."""
    person = match.person
    return -match.similarity, str(person.path), person.time or 0.0, person.box


def stale_sources(people: Store, paths: Iterable[Path]) -> dict[Path, str]:
    """Return the files that have changed since they were indexed, each with the reason.

    A box in the index may not fit the present content of such a file. Cameras are not files.
    """
    stale = {}
    for path in dict.fromkeys(path for path in paths if camera_of(path) is None):
        try:
            about = os.stat(path)
        except FileNotFoundError:
            stale[path] = "missing on the disk"
            continue
        except OSError as error:
            stale[path] = f"cannot be read ({reason_of(error)})"
            continue
        if (about.st_size, about.st_mtime_ns) != people.version(path):
            stale[path] = "changed since it was indexed"
    return stale


def index_place(text: str) -> Path | Address:
    """Convert a command line argument to an index's folder, or to an address of Milvus.

    Raises:
        UserError: if an address of Milvus has the wrong form.
    """
    return Address(text) if Address.accepts(text) else nonempty_path(text)


def folder_of(place: Path | Address | None) -> Path | None:
    """Return the folder of a local index, which may contain pictures of cameras; None for
    Milvus."""
    return place if isinstance(place, Path) else None


def index_folder(text: str) -> Path:
    """Convert a command line argument of a program that changes only local indexes."""
    place = index_place(text)
    if isinstance(place, Address):
        raise ArgumentTypeError(f"expected a folder, found {place}, an address of Milvus")
    return place


def open_index(place: Path | Address, origin: Origin | None = None) -> GalleryIndex:
    """Open an index for searching.

    Args:
        place: see index_place.

    Raises:
        UserError: if there is none, it is damaged, or it was made with another network than
            `origin`.
    """
    if isinstance(place, Address):
        return GalleryIndex(milvus.open_people(place, origin))
    return GalleryIndex(local.open_people(place, origin))


@contextmanager
def writing(
    place: Path | Address, origin: Origin | None, kind: str | None = None
) -> Iterator[GalleryIndex]:
    """Open an index for changes; see `writing` in engine.index.local and .milvus_writer."""
    if isinstance(place, Address):
        with milvus_writer.writing(place, origin, kind) as there:
            yield GalleryIndex(there)
    else:
        with local.writing(place, origin, kind) as here:
            yield GalleryIndex(here)
