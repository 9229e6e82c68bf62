"""An index in a folder: people.sqlite (engine.index.people), people.faiss (engine.index.vectors).

The SQLite file is authoritative. The FAISS file may be older: people that it lacks are compared one
by one, and removed people in it are skipped. A FAISS file that is damaged, or belongs to another
index or state, is rebuilt.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np

from engine.index.people import People
from engine.index.records import Origin, Person, PersonFilter
from engine.index.vectors import EXACT, MARK, TooFewPeopleError, Vectors
from utils.errors import DamagedError, UserError
from utils.files import make_folder, remove
from utils.locks import locked
from utils.names import printable

PEOPLE, VECTORS, LOCK = "people.sqlite", "people.faiss", "lock"
PARTS = "people.rank"  # followed by a rank's number and .sqlite
FORMAT = 1
FILTERED = 4096  # candidates from which on those whom a filter selects are compared, not everyone


class LocalPeople(People):
    """The people in SQLite.

    Attributes:
        vectors: of some of them, in FAISS; None without FAISS.
    """

    def __init__(self, path: Path | None = None):
        super().__init__(path)
        self.vectors: Vectors | None = None
        self._identity = self._read_identity()
        self._unknown: tuple[tuple, np.ndarray, np.ndarray] | None = None

    @property
    def origin(self) -> Origin:
        """The network that made the embeddings."""
        with self.parsing():
            if self.fact("format") != FORMAT or len(self.fact("name")) != MARK:
                raise ValueError("not an index of this program")
            probe = np.frombuffer(self.fact("probe"), np.float32)
            return Origin(str(self.fact("network")), str(self.fact("settings")), probe)

    @property
    def states(self) -> list[bytes | None]:
        """Return the states in which a valid FAISS file may have been written."""
        return [self.fact("vectors"), self.fact("vectors_before")]

    def is_current(self) -> bool:
        """Return False if the files have been replaced since they were opened."""
        return self._identity == self._read_identity()

    def _read_identity(self) -> tuple | None:
        if self.path is None:
            return None
        try:
            about = os.stat(self.path)
        except OSError:
            return ()
        return about.st_dev, about.st_ino, self.fact("name"), self.fact("vectors")

    # --- searching ---

    def candidates(
        self,
        queries: np.ndarray,
        count: int,
        exclude: Collection[Path] = (),
        person_filter: PersonFilter | None = None,
    ) -> tuple[list[Person], float]:
        """Find the people near to queries [q, D] float32.

        Returns:
            People who include the `count` nearest ones of every query, but no people of the sources
            `exclude` and none whom `person_filter` rejects; and an upper bound of the similarity of
            all other people, -inf if there are none.
        """
        if person_filter is not None and count > FILTERED:
            ids, bound = self._selected_nearest(queries, count, person_filter)
        else:
            ids, bound = self.nearest(queries, count)
        people = [p for p in self.persons(ids.tolist()) if p.path not in exclude]
        people = [p for p in people if person_filter is None or person_filter(p)]
        with self.parsing():
            if any(len(person.embedding) != queries.shape[1] for person in people):
                raise ValueError("embeddings of different lengths")
        return people, bound

    def nearest(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, float]:
        """Return the ids [n] of people near to the queries, and the bound, as in `candidates`.

        If FAISS finds fewer than `count` of its people, everyone is compared instead: in the graph
        of HNSW some people cannot be reached, for example beside hundreds of equal embeddings.
        """
        ids, bound, last = [], -np.inf, 0
        if self.vectors is not None:
            similar, known = self.vectors.nearest(queries, count)
            if (known[:, : self.vectors.index.ntotal] >= 0).all():
                ids, last = [known[known >= 0]], self.vectors.last
                bound = float(
                    np.where(known[:, -1] >= 0, similar[:, -1], -np.inf).max(initial=-np.inf)
                )
        unknown, rows = self._after(last, queries.shape[1])
        similar = queries @ rows.T
        if len(unknown) > count:
            some = np.argpartition(-similar, count - 1)[:, :count]
            ids.append(unknown[some.ravel()])
            worst = np.take_along_axis(similar, some, 1).min(1).max()
            bound = max(bound, float(worst))
        else:
            ids.append(unknown)
        return np.unique(np.concatenate(ids)), bound

    def _selected_nearest(
        self, queries: np.ndarray, count: int, person_filter: PersonFilter
    ) -> tuple[np.ndarray, float]:
        """Compare all people whom a filter selects.

        Returns:
            As `nearest`, but of these people only.
        """
        which, values = self._selected(person_filter)
        ids = np.zeros((len(queries), 0), np.int64)
        best, bound = np.zeros(ids.shape, np.float32), -np.inf
        for found, rows in self._embeddings_of(which, values):
            similar = np.concatenate([best, queries @ rows.T], 1)
            ids = np.concatenate([ids, np.broadcast_to(found, (len(queries), len(found)))], 1)
            some = np.argpartition(-similar, min(count, similar.shape[1]) - 1, 1)
            kept, left = some[:, :count], some[:, count:]
            bound = max(bound, float(np.take_along_axis(similar, left, 1).max(initial=-np.inf)))
            best, ids = (np.take_along_axis(one, kept, 1) for one in (similar, ids))
        return np.unique(ids), bound

    def _after(self, last: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids [n] and embeddings [n, D] of the people with higher ids than `last`."""
        state = self.fact("state"), self.last_given(), last
        if self._unknown is None or self._unknown[0] != state:
            parts = list(self.embeddings(last))
            ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in parts)])
            with self.parsing():
                empty = np.zeros((0, width), np.float32)
                rows = np.concatenate([empty, *(rows for _, rows in parts)])
            self._unknown = state, ids, rows
        return self._unknown[1:]


def open_people(folder: Path, origin: Origin | None = None) -> LocalPeople:
    """Open an index for searching.

    Raises:
        UserError: if there is none, it is damaged, or it was made with another network than
            `origin`.
    """
    people = _existing(folder)
    check_same(people.origin, origin, folder)
    people.vectors = _load_vectors(folder, people)
    return people


def _existing(folder: Path) -> LocalPeople:
    people = LocalPeople(folder / PEOPLE) if (folder / PEOPLE).is_file() else None
    if people is None or people.fact("format") is None:
        raise UserError(
            f"--index {folder}: no index there; python -m tools.index_gallery makes one"
        )
    return people


@contextmanager
def writing(folder: Path, origin: Origin | None, kind: str | None = None) -> Iterator[LocalPeople]:
    """Open an index for one process to change. FAISS is brought up to date at the end.

    Args:
        origin: the network; if there is no index, one is created. None: an index of any network is
            opened, and must exist.
        kind: FAISS's factory string; None: as before, EXACT for a new index.
    """
    if origin is None:
        _existing(folder).close()
    make_folder(folder, "--index")
    with locked(folder / LOCK, f"--index {folder}"):
        people = LocalPeople(folder / PEOPLE)
        if origin is not None and people.fact("format") is None:
            _begin(people, origin)
        made = people.origin
        check_same(made, origin, folder)
        kind = kind or people.fact("kind") or EXACT
        Vectors.empty(kind, len(made.probe))
        absorb_parts(folder, people)
        yield people
        absorb_parts(folder, people)
        follow(folder, people, kind)
        people.close()


def partial_index_path(folder: Path, rank: int) -> Path:
    """Return the file to which a rank other than the first one writes."""
    return folder / f"{PARTS}{rank}.sqlite"


def absorb_parts(folder: Path, people: People) -> None:
    """Merge the files of the other ranks, of this run or of a killed one."""
    for path in sorted(folder.glob(f"{PARTS}*.sqlite")):
        part = People(path)
        people.absorb(part)
        part.close()
        path.unlink()


def follow(folder: Path, people: LocalPeople, kind: str) -> None:
    """Bring the FAISS file up to date; rebuild it if it is invalid or of another kind.

    Without the people that the index's kind needs for its training, the file is removed, and is
    built again when there are enough.

    Raises:
        TooFewPeopleError: if a new kind cannot be trained.
    """
    path, vectors = folder / VECTORS, Vectors.empty(kind, len(people.origin.probe))
    if path.exists() and people.fact("kind") == kind:
        try:
            vectors = _read_vectors(path, people)
        except DamagedError as error:
            _report_rebuilt(error)
    try:
        vectors = vectors.follow(people)
    except TooFewPeopleError as error:
        if people.fact("kind") != kind:
            raise
        print(error, file=sys.stderr)
        remove(path)
    else:
        _save_vectors(path, people, vectors)


def _load_vectors(folder: Path, people: LocalPeople) -> Vectors | None:
    """Read the FAISS file, or rebuild it if it is invalid; None if there is none."""
    path = folder / VECTORS
    if not path.exists():
        return None
    try:
        return _read_vectors(path, people)
    except DamagedError as error:
        _report_rebuilt(error)
    try:
        vectors = Vectors.empty(people.fact("kind"), len(people.origin.probe)).made_from(people)
    except TooFewPeopleError as error:
        print(error, file=sys.stderr)
        return None
    with suppress(UserError), locked(folder / LOCK, f"--index {folder}"):
        _save_vectors(path, people, vectors)
    return vectors


def _report_rebuilt(error: DamagedError) -> None:
    print(f"{error}; rebuilt from {PEOPLE}", file=sys.stderr)


def _read_vectors(path: Path, people: LocalPeople) -> Vectors:
    kind, width, name = people.fact("kind"), len(people.origin.probe), people.fact("name")
    return Vectors.load(path, kind, width, name, people.states)


def _save_vectors(path: Path, people: LocalPeople, vectors: Vectors) -> None:
    """Write the FAISS file. If the process ends before that, the old file stays valid."""
    state = uuid4().bytes
    facts = {"kind": vectors.kind, "learned_from": vectors.learned_from}
    people.set_facts(**facts, vectors_before=people.fact("vectors"), vectors=state)
    vectors.save(path, people.fact("name"), state)


def _begin(people: People, origin: Origin) -> None:
    people.set_facts(
        name=uuid4().bytes,
        network=printable(origin.name),
        settings=origin.settings,
        probe=origin.probe.astype(np.float32).tobytes(),
        format=FORMAT,
    )


def check_same(made: Origin, origin: Origin | None, index: Path | str) -> None:
    """Check that the network `origin`, if given, is the one with which an index was made.

    Raises:
        UserError: if it is another network.
    """
    if origin is not None and (reason := origin.differs_from(made)):
        raise UserError(
            f"--index {index}: made by the network {made.name}, not by {origin.name} ({reason}); "
            "their embeddings cannot be compared"
        )
