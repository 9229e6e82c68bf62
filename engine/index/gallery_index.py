"""An index of everyone in many pictures and videos, made once and searched in milliseconds.

A folder with people.sqlite, which holds the truth (engine.index.people), and people.faiss, which
finds the nearest embeddings fast (engine.index.vectors) and may lag behind: whoever it does not
know yet is compared one by one, whoever is gone is passed over. So a process killed at any moment
leaves an index that can be searched and continued.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from torch import Tensor

from engine.index.people import People, Person
from engine.index.vectors import EXACT, Vectors
from utils.errors import UserError
from utils.files import make_folder
from utils.locks import locked

PEOPLE, VECTORS, LOCK = "people.sqlite", "people.faiss", "lock"
PARTS = "people.rank"  # then the rank's number and .sqlite
FORMAT = 1
SAME = 5e-3  # largest difference of one network's embeddings: of processors, of ONNX, of halves
MARGIN = 1e-5  # of float32's inner products


@dataclass(frozen=True)
class Origin:
    """The network that made embeddings: name, the checkpoint's path; settings that change them,
    in words; probe [D] float32, its unit embedding of a picture that is always the same."""

    name: str
    settings: str
    probe: np.ndarray

    def differs_from(self, other: "Origin") -> str:
        """Why the embeddings of both cannot be compared; "" where they can."""
        if self.settings != other.settings:
            return f"{other.settings} there, {self.settings} here"
        same = len(self.probe) == len(other.probe)
        if same and np.abs(self.probe - other.probe).max() <= SAME:
            return ""
        return "other weights"


@dataclass(frozen=True)
class Match:
    """A person who is similar to one of the queries (its row): in a video, the best of an
    appearance that goes on from its first second to its last (span)."""

    person: Person
    similarity: float
    query: int
    span: tuple[float, float] | None


class GalleryIndex:
    """People, and vectors of those of them that FAISS knows. By default empty and in memory, which
    needs no FAISS."""

    def __init__(self, people: People | None = None, vectors: Vectors | None = None):
        self.people = people or People()
        self.vectors = vectors
        self._fresh: tuple[int, np.ndarray, np.ndarray] | None = None

    def search(
        self,
        query_embeddings: Tensor,
        top: int,
        min_similarity: float = -np.inf,
        exclude: Collection[Path] = (),
    ) -> list[Match]:
        """Return the `top` best matches with a similarity of at least `min_similarity`.

        query_embeddings: [q, D], of length 1 or less; a person's similarity is the largest inner
        product with a row of it. exclude: sources whose people do not count.

        FAISS proposes; similarities are computed from the people's own embeddings, so that they are
        the same whatever proposed. More are asked for until no one unseen could be among the best.
        """
        query_embeddings = query_embeddings.float().cpu()
        queries = np.ascontiguousarray(query_embeddings.numpy())
        most = self.people.last_given() + 1  # more than FAISS knows, removed people among them
        count = max(64, 8 * top)
        while True:
            count = min(count, most)
            ids, bound = self.nearest(queries, count)
            found = self._best_of_tracklets(ids, query_embeddings, exclude)[:top]
            if bound == -np.inf or count == most:
                break
            if len(found) == top and found[-1].similarity > bound + MARGIN:
                break
            if len(found) < top and bound < min_similarity - MARGIN:
                break
            count *= 4
        found = [match for match in found if match.similarity >= min_similarity]
        spans = self.people.spans([match.person.tracklet for match in found])
        return [Match(m.person, m.similarity, m.query, spans.get(m.person.tracklet)) for m in found]

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """queries [q, D] float32 -> numbers [n] of people, the `count` nearest of every query among
        them; and the largest similarity that anyone else can have, -inf where there is no one."""
        ids, bound = [], -np.inf
        if self.vectors is not None:
            similar, known = self.vectors.nearest(queries, count)
            ids.append(known[known >= 0])
            bound = float(np.where(known[:, -1] >= 0, similar[:, -1], -np.inf).max(initial=-np.inf))
        fresh, rows = self._not_in_vectors()
        similar = queries @ rows.T if len(fresh) else np.zeros((len(queries), 0), np.float32)
        if len(fresh) > count:
            some = np.argpartition(-similar, count - 1)[:, :count]
            ids.append(fresh[some.ravel()])
            worst = np.take_along_axis(similar, some, 1).min(1).max()
            bound = max(bound, float(worst))
        else:
            ids.append(fresh)
        return np.unique(np.concatenate(ids)), bound

    def _not_in_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers [n] and embeddings [n, D] of the people whom FAISS does not know yet."""
        last = self.people.last_given()
        if self._fresh is None or self._fresh[0] != last:
            parts = list(self.people.embeddings(self.vectors.last if self.vectors else 0))
            ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in parts)])
            rows = np.concatenate([rows for _, rows in parts]) if parts else np.zeros((0, 0))
            self._fresh = last, ids, rows
        return self._fresh[1:]

    def _best_of_tracklets(
        self, ids: np.ndarray, query_embeddings: Tensor, exclude: Collection[Path]
    ) -> list[Match]:
        """One match for each appearance among these people, best first."""
        persons = [p for p in self.people.persons(ids.tolist()) if p.path not in exclude]
        if not persons:
            return []
        similar = similarities(persons, query_embeddings)
        row = similar.argmax(1)
        matches = [
            Match(person, float(values[query]), int(query), None)
            for person, values, query in zip(persons, similar, row)
        ]
        matches.sort(key=_place)
        best: dict[int, Match] = {}
        for match in matches:
            best.setdefault(match.person.tracklet, match)
        return list(best.values())


def similarities(people: Sequence[Person], query_embeddings: Tensor) -> np.ndarray:
    """Return [n, q] float64 of n people and query_embeddings [q, D].

    The sums are per row: in a product of matrices the last digit of a similarity would depend on
    the other rows.
    """
    rows = np.stack([person.embedding for person in people]).astype(np.float64)
    return np.stack([(rows * query).sum(1) for query in query_embeddings.double().numpy()], 1)


def _place(match: Match):
    """By falling similarity; of equal ones, by where they stand."""
    person = match.person
    return -match.similarity, str(person.path), person.time or 0.0, person.box


def open_index(folder: Path, origin: Origin | None = None) -> GalleryIndex:
    """For searching. UserError where there is none, it is damaged, or another network than
    `origin` made it."""
    people = People(folder / PEOPLE) if (folder / PEOPLE).is_file() else None
    if people is None or people.fact("format") is None:
        raise UserError(
            f"--index {folder}: no index there; python -m tools.index_gallery makes one"
        )
    made = _origin_of(people)
    _check_same(made, origin, folder)
    vectors = None
    if (folder / VECTORS).exists():
        kind, name = people.fact("kind"), people.fact("name")
        vectors = Vectors.load(folder / VECTORS, kind, len(made.probe), name)
    return GalleryIndex(people, vectors)


@contextmanager
def writing(folder: Path, origin: Origin | None, kind: str | None = None) -> Iterator[GalleryIndex]:
    """The index in this folder, for one process to change; FAISS follows at the end. One that is
    not there is made, if `origin` says by which network; else any network's is opened. kind:
    FAISS's factory string; None: as it was, at first the exact one."""
    if origin is None:
        open_index(folder).people.close()
    make_folder(folder, "--index")
    with locked(folder / LOCK, f"--index {folder}"):
        people = People(folder / PEOPLE)
        if origin is not None and people.fact("format") is None:
            _begin(people, origin)
        made = _origin_of(people)
        _check_same(made, origin, folder)
        kind = kind or people.fact("kind") or EXACT
        Vectors.empty(kind, len(made.probe))
        absorb_parts(folder, people)
        yield GalleryIndex(people)
        absorb_parts(folder, people)
        follow(folder, people, kind)
        people.close()


def partial_index_path(folder: Path, rank: int) -> Path:
    """Where another rank than the first writes what it finds, until the first takes it in."""
    return folder / f"{PARTS}{rank}.sqlite"


def absorb_parts(folder: Path, people: People) -> None:
    """Take in what other ranks wrote, in this run or in one that was killed."""
    for path in sorted(folder.glob(f"{PARTS}*.sqlite")):
        part = People(path)
        people.absorb(part)
        part.close()
        path.unlink()


def follow(folder: Path, people: People, kind: str) -> None:
    """Bring FAISS's file up to the people. One that is damaged or of another kind is made anew."""
    path, width = folder / VECTORS, len(np.frombuffer(people.fact("probe"), np.float32))
    name = people.fact("name")
    vectors = Vectors.empty(kind, width)
    if path.exists() and people.fact("kind") == kind:
        try:
            vectors = Vectors.load(path, kind, width, name)
        except UserError as error:
            print(f"{error}; made again")
    elif path.exists():
        path.unlink()
    people.set_facts(kind=kind)
    vectors.follow(people).save(path, name)


def _begin(people: People, origin: Origin) -> None:
    people.set_facts(
        name=uuid4().bytes,
        network=origin.name,
        settings=origin.settings,
        probe=origin.probe.astype(np.float32).tobytes(),
        format=FORMAT,
    )


def _origin_of(people: People) -> Origin:
    if people.fact("format") != FORMAT:
        raise UserError(f"{people.path}: damaged, or no index of this program")
    probe = np.frombuffer(people.fact("probe"), np.float32)
    return Origin(people.fact("network"), people.fact("settings"), probe)


def _check_same(made: Origin, origin: Origin | None, folder: Path) -> None:
    if origin is not None and (why := origin.differs_from(made)):
        raise UserError(
            f"--index {folder}: made by the network {made.name}, not by {origin.name} ({why}); "
            "their embeddings cannot be compared"
        )
