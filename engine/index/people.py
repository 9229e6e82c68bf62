"""The SQLite file of an index: sources, people and their embeddings.

Ids are never reused. People are added in the same transaction as the record of how far their source
has been read, so the file is consistent even if the process is killed. A new version of a changed
source is stored hidden, beside the old version, and replaces it in the transaction that finishes
it.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.index.records import (
    IndexedSource,
    Person,
    PersonFilter,
    Sample,
    Source,
    camera_of,
)
from engine.index.tracklets import MEMORY, Tracklets
from models.outputs import Detections
from utils.errors import UserError
from utils.sqlite import marks, select_in, transaction

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB UNIQUE NOT NULL, bytes INTEGER NOT NULL, changed INTEGER NOT NULL, every REAL,
    samples INTEGER NOT NULL, until REAL, finished INTEGER NOT NULL, note TEXT NOT NULL);
CREATE TABLE people (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    time REAL, x1 REAL, y1 REAL, x2 REAL, y2 REAL, score REAL,
    appearance INTEGER NOT NULL, embedding BLOB NOT NULL);
CREATE INDEX people_by_source ON people (source, time);
CREATE INDEX people_by_appearance ON people (appearance, time);
"""  # the column `appearance` holds the tracklet
PICTURES = """
CREATE TABLE IF NOT EXISTS pictures (
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    time REAL NOT NULL, bytes INTEGER NOT NULL, pinned INTEGER NOT NULL,
    PRIMARY KEY (source, time))
"""  # the frames of cameras that are kept as files; a pinned one belongs to an alarm
HIDDEN = b"\0"  # suffix of the path of a new version that is not finished; no path contains it
PART = 1 << 16  # embeddings read together
TIMEOUT = 60  # seconds to wait for another process's transaction


class People:
    """The people in an SQLite database.

    Args:
        path: the file, created if missing; None: in memory.

    Raises:
        UserError: from every method, naming the file, if it is damaged or cannot be written.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        # for each unfinished source, until when it was read, and its current tracklets
        self._current: dict[int, tuple[float | None, Tracklets]] = {}
        with self._errors():
            self.db = sqlite3.connect(
                path or ":memory:", timeout=TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self.db.execute("PRAGMA foreign_keys = ON")
            tables = self._tables()
            if not tables:
                self.db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            elif missing := {"facts", "people", "sources"} - tables:
                raise sqlite3.DatabaseError(f"no table {', '.join(sorted(missing))}")

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert errors of SQLite to UserErrors."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            if "full" in reason:
                reason = "the disk is full; what was written before is kept"
            elif not isinstance(error, sqlite3.OperationalError) or "no such" in reason:
                reason = f"damaged ({reason})"
            raise UserError(f"{self.path}: {reason}") from None

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """Convert errors caused by values that this program never writes to UserErrors."""
        try:
            yield
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise UserError(f"{self.path}: damaged ({error})") from None

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction, which is committed completely or not at all; nested ones belong to
        the outer one.

        Each transaction renews the fact "state".
        """
        if self.db.in_transaction:
            yield self.db
            return
        with self._errors(), transaction(self.db):
            yield self.db
            self.db.execute(_SET_FACT, ["state", os.urandom(16)])

    def select(self, statement: str, values: Sequence = ()) -> list[tuple]:
        """Run a statement and return its rows."""
        with self._errors():
            return self.db.execute(statement, values).fetchall()

    def fact(self, name: str) -> Any:
        """Return the value stored under a name, or None."""
        return next((value for (value,) in self.select(_FACT, [name])), None)

    def set_facts(self, **facts) -> None:
        with self.changing() as db:
            db.executemany(_SET_FACT, facts.items())

    # --- sources ---

    def known(self, hidden: bool = False) -> list[IndexedSource]:
        """Return every source, in order of path.

        Args:
            hidden: whether unfinished new versions are included.
        """
        counts = dict(self.select("SELECT source, COUNT(*) FROM people GROUP BY source"))
        rows = self.select(f"SELECT {_SOURCE} FROM sources ORDER BY path")
        with self.parsing():
            return [
                IndexedSource(
                    Source(_path(path), int(size), int(changed), _seconds(every)),
                    int(samples),
                    _seconds(until),
                    bool(finished),
                    str(note),
                    counts.get(id, 0),
                )
                for id, path, size, changed, every, samples, until, finished, note in rows
                if hidden or not path.endswith(HIDDEN)
            ]

    def add(self, source: Source, samples: Iterable[Sample], finished=True, note="") -> None:
        """Add the next samples of a source in order of time, and link the people of consecutive
        ones.

        If `finished`, an earlier version of the source is removed in the same transaction.

        Raises:
            UserError: if an embedding is not finite.
        """
        with self.changing() as db:
            id, until = self._row_of(db, source)
            read, tracklets = self._current.pop(id, (None, None))
            if tracklets is None or read != until:  # of another process, or a failed transaction
                tracklets = self._tracklets(id, until)
            for sample in samples:
                linked: list[int | None] = [None] * len(sample.people.boxes)
                if sample.time is not None:
                    linked = tracklets.link(sample.time, sample.people)
                given = self._write(db, id, sample, linked)
                if sample.time is not None:
                    tracklets.add(sample.time, sample.people, given)
                until = sample.time
            if finished:
                path = os.fsencode(source.path)
                db.execute("DELETE FROM sources WHERE path = ? AND id != ?", [path, id])
                db.execute("UPDATE sources SET path = ? WHERE id = ?", [path, id])
            db.execute(
                "UPDATE sources SET until = ?, finished = ?, note = ? WHERE id = ?",
                [until, finished, note, id],
            )
            if not finished:
                self._current[id] = until, tracklets

    def add_tracked(
        self, source: Source, samples: Iterable[tuple[Sample, Sequence[int | None]]]
    ) -> list[list[int]]:
        """Add samples of a camera.

        Args:
            samples: each with the tracklets of its people; None for a new tracklet.

        Returns:
            For each sample the tracklets of its people.
        """
        with self.changing() as db:
            id, _ = self._row_of(db, source)
            given = []
            for sample, tracklets in samples:
                given.append(self._write(db, id, sample, tracklets))
                db.execute(
                    "UPDATE sources SET until = max(coalesce(until, 0), ?), finished = 1 "
                    "WHERE id = ?",
                    [sample.time, id],
                )
            return given

    def begin_at(self, people: int, sources: int) -> None:
        """Set the last used ids of people and of sources."""
        with self.changing() as db:
            db.execute("DELETE FROM sqlite_sequence")
            rows = ("people", people), ("sources", sources)
            db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", rows)

    def absorb(self, part: "People") -> None:
        """Add the sources of another file, except those that this file contains. The ids of both
        differ."""
        with self.changing() as db:
            for id, path, *about in part.select(f"SELECT {_SOURCE} FROM sources"):
                size, changed, every, _, _, finished, _ = about
                here = db.execute(_VERSION, [path]).fetchone()
                if here is not None and here[1:] == (size, changed, every):
                    continue
                if here is not None and finished:
                    db.execute("DELETE FROM sources WHERE id = ?", [here[0]])
                elif here is not None:
                    path = path + HIDDEN
                    db.execute("DELETE FROM sources WHERE path = ?", [path])
                db.execute(
                    f"INSERT INTO sources ({_SOURCE}) VALUES ({marks(9)})", [id, path, *about]
                )
                db.executemany(_INSERT, part.select(_ROWS, [id]))

    def remove(self, paths: Iterable[Path]) -> int:
        """Remove sources and their people; return the number of sources removed."""
        with self.changing() as db:
            count = 0
            for path in map(os.fsencode, paths):
                count += db.execute("DELETE FROM sources WHERE path = ?", [path]).rowcount
                db.execute("DELETE FROM sources WHERE path = ?", [path + HIDDEN])
            return count

    def forget_places(self, paths: Iterable[Path]) -> None:
        """Adapt the sources of people who were removed.

        An unfinished new version of a file, which may contain the same people, is removed: the file
        is read again from its beginning. A camera's times continue after the people who remain.
        """
        with self.changing() as db:
            for path in paths:
                key = os.fsencode(path)
                db.execute("DELETE FROM sources WHERE path = ?", [key + HIDDEN])
                if camera_of(path) is not None:
                    db.execute(
                        "UPDATE sources SET until = "
                        "(SELECT MAX(time) FROM people WHERE source = sources.id) WHERE path = ?",
                        [key],
                    )

    def _row_of(self, db, source: Source) -> tuple[int, float | None]:
        """Return the id of this version of a source, and until when it was read. Add a row if there
        is none.

        The row of a new version is hidden. An earlier hidden row of another version is removed.
        """
        path, version = os.fsencode(source.path), (source.bytes, source.changed, source.every)
        for key in (path, path + HIDDEN):
            row = db.execute(_VERSION, [key]).fetchone()
            if row is None:
                break
            if row[1:] == version:
                return row[0], db.execute(
                    "SELECT until FROM sources WHERE id = ?", row[:1]
                ).fetchone()[0]
            if key != path:
                db.execute("DELETE FROM sources WHERE id = ?", row[:1])
        added = db.execute(
            "INSERT INTO sources (path, bytes, changed, every, samples, finished, note) "
            "VALUES (?, ?, ?, ?, 0, 0, '')",
            [key, *version],
        )
        return added.lastrowid, None

    def _tracklets(self, source: int, until: float | None) -> Tracklets:
        """Return the tracklets with which samples after the second `until` are linked."""
        if until is None:
            return Tracklets()
        rows = self.select(
            "SELECT time, appearance, x1, y1, x2, y2, score, embedding FROM people WHERE "
            "appearance IN (SELECT appearance FROM people WHERE source = ? AND time >= ?) "
            "ORDER BY time, id",
            [source, until - MEMORY],
        )
        tracklets = Tracklets()
        with self.parsing():
            for time, sample in groupby(rows, key=lambda row: float(row[0])):
                _, numbers, *columns, score, embedding = zip(*sample)
                unit = torch.nn.functional.normalize(torch.from_numpy(_matrix(embedding)))
                boxes = torch.tensor(columns).T.contiguous()
                people = Detections(boxes, torch.tensor(score), unit)
                tracklets.add(time, people, list(map(int, numbers)))
        return tracklets

    def _write(self, db, source: int, sample: Sample, linked: Sequence[int | None]) -> list[int]:
        """Write a sample, whose people belong to the tracklets `linked`, and return their
        tracklets.

        A new tracklet, given as None, gets the id of its first person.
        """
        people, embeddings = sample.people, sample.people.weighted_embeddings
        if not embeddings.isfinite().all():
            raise UserError(f"{self.path}: expected finite embeddings, found NaN or infinity")
        first = self.last_given() + 1
        ids = range(first, first + len(linked))
        given = [id if number is None else number for number, id in zip(linked, ids)]
        columns = people.boxes.tolist(), people.scores.tolist(), given, embeddings.numpy()
        db.executemany(
            _INSERT,
            (
                (id, source, sample.time, *box, score, tracklet, row.tobytes())
                for id, box, score, tracklet, row in zip(ids, *columns)
            ),
        )
        db.execute("UPDATE sources SET samples = samples + 1 WHERE id = ?", [source])
        return given

    # --- people ---

    def last_given(self, table: str = "people") -> int:
        """Return the highest id ever used; 0 if there is none."""
        with self.parsing():
            return next((int(id) for (id,) in self.select(_LAST, [table])), 0)

    def count(self) -> int:
        """Return the number of people, except those of hidden versions."""
        return self.select(
            "SELECT COUNT(*) FROM people WHERE source NOT IN "
            "(SELECT id FROM sources WHERE instr(path, x'00'))"
        )[0][0]

    def numbers(self) -> np.ndarray:
        """Return the ids of all people, including hidden ones, in ascending order: [n] int64."""
        with self.parsing():
            return np.array(self.select("SELECT id FROM people ORDER BY id"), np.int64).reshape(-1)

    def embeddings(
        self, after: int = 0, one_in: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the finite embeddings in parts, including those of hidden versions.

        Args:
            after: only people with higher ids.
            one_in: only people whose id is a multiple of it.

        Yields:
            ids [n] int64 and embeddings [n, D] float32.
        """
        while rows := self.select(
            "SELECT id, embedding FROM people WHERE id > ? AND id % ? = 0 ORDER BY id "
            f"LIMIT {PART}",
            [after, one_in],
        ):
            after = rows[-1][0]
            yield self._finite(rows)

    def _embeddings_of(
        self, which: str, values: Sequence
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield ids and finite embeddings in parts, as `embeddings`, of the people who meet an SQL
        condition."""
        with self._errors():
            cursor = self.db.execute(f"SELECT id, embedding FROM people WHERE {which}", values)
            while rows := cursor.fetchmany(PART):
                yield self._finite(rows)

    def _finite(self, rows: Sequence[tuple]) -> tuple[np.ndarray, np.ndarray]:
        """Return ids [n] and embeddings [n, D] of rows (id, embedding), without those that are not
        finite."""
        with self.parsing():
            ids, matrix = np.array([id for id, _ in rows]), _matrix([row for _, row in rows])
        finite = np.isfinite(matrix).all(1)
        return ids[finite], matrix[finite]

    def persons(self, ids: Sequence[int]) -> list[Person]:
        """Return the people with these ids, in any order, without those that were removed.

        People of hidden versions, and people whose embedding is not finite, are left out.
        """
        return self._people(self._in_chunks(_PERSON + "people.id IN ({})", ids))

    def in_scene(self, path: Path, time: float | None) -> list[Person]:
        """Return the people in a picture (time None), or in a video's frame at that second."""
        statement = f"{_PERSON}path = ? AND time IS ? ORDER BY people.id"
        return self._people(self.select(statement, [os.fsencode(path), time]))

    def _people(self, rows: Iterable[tuple]) -> list[Person]:
        with self.parsing():
            people = [_person(row) for row in rows if not row[-1].endswith(HIDDEN)]
            return [person for person in people if np.isfinite(person.embedding).all()]

    def version(self, path: Path) -> tuple[int, int] | None:
        """Return size and modification time that a source had when it was read; None for an unknown
        source."""
        rows = self.select(_VERSION, [os.fsencode(path)])
        return rows[0][1:3] if rows else None

    def read_until(self, path: Path) -> float:
        """Return the second of the last sample of a video or a camera; 0 for an unknown source."""
        rows = self.select("SELECT until FROM sources WHERE path = ?", [os.fsencode(path)])
        with self.parsing():
            return next((float(until) for (until,) in rows if until is not None), 0.0)

    def seen_between(self, path: Path, first: float, last: float) -> tuple[float, float] | None:
        """Return the first and last second between two seconds in which a source has people, or
        None if it has none."""
        rows = self.select(
            "SELECT MIN(time), MAX(time) FROM people JOIN sources ON source = sources.id "
            "WHERE path = ? AND time BETWEEN ? AND ?",
            [os.fsencode(path), first, last],
        )
        with self.parsing():
            return next(((float(a), float(b)) for a, b in rows if a is not None), None)

    def spans(self, tracklets: Sequence[int]) -> dict[int, tuple[float, float]]:
        """Return the first and last second of each of these tracklets that belongs to a video or a
        camera."""
        rows = self._in_chunks(
            "SELECT appearance, MIN(time), MAX(time) FROM people WHERE appearance IN ({}) "
            "GROUP BY appearance",
            tracklets,
        )
        with self.parsing():
            return {id: (float(a), float(b)) for id, a, b in rows if a is not None}

    def ids_of(self, tracklets: Sequence[int]) -> list[int]:
        """Return the ids of the people of these tracklets."""
        rows = self._in_chunks("SELECT id FROM people WHERE appearance IN ({})", tracklets)
        return [id for (id,) in rows]

    def best_of(
        self, tracklets: Sequence[int], person_filter: PersonFilter | None = None
    ) -> dict[int, Person]:
        """Return the best person of each tracklet among those whom `person_filter` selects.

        The best one has the largest product of score and area of the box.
        """
        which, values = self._selected(person_filter)
        rows = self._in_chunks(
            f"SELECT id, MAX({_QUALITY}) FROM people WHERE appearance IN ({{}}) AND {which} "
            "GROUP BY appearance",
            tracklets,
            values,
        )
        return {one.tracklet: one for one in self.persons([id for id, _ in rows])}

    def pictured(
        self, tracklets: Sequence[int], person_filter: PersonFilter | None = None
    ) -> dict[int, Person]:
        """Return, for each camera tracklet with stored pictures, the best person in one of these.

        People whom `person_filter` selects precede others.
        """
        if "pictures" not in self._tables():
            return {}
        which, values = self._selected(person_filter)
        rows = self._in_chunks(
            f"{_PERSON}appearance IN ({{}}) AND EXISTS (SELECT 1 FROM pictures WHERE "
            "pictures.source = people.source AND pictures.time = people.time) "
            f"ORDER BY {which}, {_QUALITY}",
            tracklets,
            values,
        )
        return {person.tracklet: person for person in self._people(rows)}

    def _selected(self, person_filter: PersonFilter | None) -> tuple[str, list]:
        """Return an SQL condition on people, and its values: those whom `person_filter` selects."""
        if not person_filter:
            return "1", []
        rows = self.select("SELECT id, path FROM sources")
        with self.parsing():
            sources = [id for id, path in rows if person_filter.may_select(_path(path))]
        which = "source IN (SELECT value FROM json_each(?))"
        values: list[Any] = [json.dumps(sources)]
        for limit, compared in ((person_filter.after, ">="), (person_filter.before, "<=")):
            if limit is not None:
                which, values = f"{which} AND time {compared} ?", [*values, limit]
        return f"({which})", values

    def _tables(self) -> set[str]:
        return {name for (name,) in self.select(_TABLES)}

    def _in_chunks(
        self, statement: str, values: Sequence[int], more: Sequence = ()
    ) -> Iterator[tuple]:
        """Run a statement that contains "IN ({})" for all values; see `select_in`."""
        with self._errors():
            yield from select_in(self.db, statement, values, more)


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path.removesuffix(HIDDEN)))


def _person(row: tuple) -> Person:
    """Build a Person from a row of the statement _PERSON."""
    id, _, time, *box, score, tracklet, embedding, path = row
    x1, y1, x2, y2 = map(float, box)
    place = _path(path), _seconds(time), (x1, y1, x2, y2)
    return Person(id, *place, float(score), int(tracklet), np.frombuffer(embedding, np.float32))


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
_SOURCE = "id, path, bytes, changed, every, samples, until, finished, note"
_PERSON = "SELECT people.*, path FROM people JOIN sources ON source = sources.id WHERE "
_QUALITY = "score * (x2 - x1) * (y2 - y1)"
_VERSION = "SELECT id, bytes, changed, every FROM sources WHERE path = ?"
_FACT = "SELECT value FROM facts WHERE name = ?"
_SET_FACT = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = ?"
_ROWS = "SELECT * FROM people WHERE source = ?"
_INSERT = f"INSERT INTO people VALUES ({marks(10)})"


def _matrix(rows: Sequence[bytes]) -> np.ndarray:
    """Return embeddings as a copy, [n, D] float32.

    Raises:
        ValueError: if the rows differ in length.
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError("embeddings of different lengths")
    values = np.frombuffer(b"".join(rows), np.float32)
    return values.reshape(len(rows), -1).copy() if rows else np.zeros((0, 0), np.float32)
