"""Everyone found, and where: an SQLite file, which holds the truth of an index.

Numbers are given once and never again. Whatever is added comes in one transaction with the record
of how far its source was read, so that a process killed at any moment leaves a whole file.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.index.tracklets import link
from models.outputs import Detections
from utils.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB UNIQUE NOT NULL, bytes INTEGER NOT NULL, changed INTEGER NOT NULL, every REAL,
    samples INTEGER NOT NULL, until REAL, finished INTEGER NOT NULL, note TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS people (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    time REAL, x1 REAL, y1 REAL, x2 REAL, y2 REAL, score REAL,
    appearance INTEGER NOT NULL, embedding BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS people_by_source ON people (source, time);
CREATE INDEX IF NOT EXISTS people_by_appearance ON people (appearance, time);
"""
PATIENCE = 60  # seconds to wait for another process's transaction
AT_ONCE = 500  # values in one question: SQLite's oldest limit is 999


@dataclass(frozen=True)
class Source:
    """A picture or video as it was when read: its size in bytes and the time of its last change in
    nanoseconds tell another one. every: seconds between a video's samples, 0 for every frame; None
    for a picture."""

    path: Path
    bytes: int
    changed: int
    every: float | None = None


@dataclass(frozen=True)
class IndexedSource:
    """What the index holds of a source: read until that second of a video, to its end if finished;
    note: what was wrong with it."""

    source: Source
    samples: int
    until: float | None
    finished: bool
    note: str
    people: int


@dataclass(frozen=True)
class Sample:
    """A picture (time None), or the frame of a video at so many seconds, and everyone found in it:
    embeddings unit."""

    time: float | None
    people: Detections


@dataclass(frozen=True)
class Person:
    """One of the people: box x1 y1 x2 y2 in pixels; embedding [D] float32, unit times score, so
    that its inner product with a query's is the similarity; appearance: a number that the people
    share who are one person in consecutive samples of a video."""

    id: int
    path: Path
    time: float | None
    box: tuple[float, float, float, float]
    score: float
    tracklet: int
    embedding: np.ndarray


class People:
    """path None: in memory. The file's errors are UserErrors that name it."""

    def __init__(self, path: Path | None = None):
        self.path = path
        with self._named():
            self.db = sqlite3.connect(
                path or ":memory:", timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self.db.execute("PRAGMA foreign_keys = ON")
            self.db.executescript(SCHEMA)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            said = str(error)
            if "full" in said:
                said = "the disk is full; what was written before is kept"
            elif "malformed" in said or "not a database" in said or "no such table" in said:
                said = f"damaged ({said})"
            raise UserError(f"{self.path}: {said}") from None

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, whole or not at all; within another it is a part of that."""
        if self.db.in_transaction:
            yield self.db
            return
        with self._named():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def ask(self, question: str, values: Sequence = ()) -> list[tuple]:
        with self._named():
            return self.db.execute(question, values).fetchall()

    def fact(self, name: str):
        """The value stored under this name, or None."""
        return next((value for (value,) in self.ask(_FACT, [name])), None)

    def set_facts(self, **facts) -> None:
        with self.changing() as db:
            db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    # --- sources ---

    def known(self) -> list[IndexedSource]:
        """Every source, in the order of their paths."""
        counts = dict(self.ask("SELECT source, COUNT(*) FROM people GROUP BY source"))
        return [
            IndexedSource(
                Source(Path(os.fsdecode(path)), size, changed, every),
                samples,
                until,
                bool(finished),
                note,
                counts.get(id, 0),
            )
            for id, path, size, changed, every, samples, until, finished, note in self.ask(
                "SELECT * FROM sources ORDER BY path"
            )
        ]

    def add(self, source: Source, samples: Iterable[Sample], finished=True, note="") -> None:
        """The next samples of a source, in order of time; people in consecutive ones are linked."""
        with self.changing() as db:
            id, until = self._source(db, source)
            before, numbers = self._at(id, until)
            for sample in samples:
                given = self._write(db, id, sample, before, numbers)
                before, numbers, until = sample.people, given, sample.time
                db.execute("UPDATE sources SET samples = samples + 1 WHERE id = ?", [id])
            db.execute(
                "UPDATE sources SET until = ?, finished = ?, note = ? WHERE id = ?",
                [until, finished, note, id],
            )

    def begin_at(self, people: int, sources: int) -> None:
        """The numbers to be given from now on are higher than these."""
        with self.changing() as db:
            db.execute("DELETE FROM sqlite_sequence")
            rows = ("people", people), ("sources", sources)
            db.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", rows)

    def absorb(self, part: "People") -> None:
        """Take in what another file holds of sources that this one does not know."""
        with self.changing() as db:
            for id, *row in part.ask("SELECT * FROM sources"):
                values = ", ".join("?" * (1 + len(row)))
                taken = db.execute(f"INSERT OR IGNORE INTO sources VALUES ({values})", [id, *row])
                if taken.rowcount:
                    rows = part.ask("SELECT * FROM people WHERE source = ?", [id])
                    db.executemany(_INSERT, rows)

    def remove(self, paths: Iterable[Path]) -> int:
        """Forget these sources and everyone in them; returns how many sources there were."""
        with self.changing() as db:
            return sum(
                db.execute("DELETE FROM sources WHERE path = ?", [os.fsencode(path)]).rowcount
                for path in paths
            )

    def _source(self, db, source: Source) -> tuple[int, float | None]:
        """Its number, and until when it was read."""
        row = os.fsencode(source.path), source.bytes, source.changed, source.every
        db.execute(
            "INSERT INTO sources VALUES (NULL, ?, ?, ?, ?, 0, NULL, 0, '') "
            "ON CONFLICT (path) DO NOTHING",
            row,
        )
        return db.execute("SELECT id, until FROM sources WHERE path = ?", row[:1]).fetchone()

    def _at(self, source: int, time: float | None) -> tuple[Detections, list[int]]:
        """The people of one sample, and the numbers of their appearances."""
        rows = self.ask(
            "SELECT x1, y1, x2, y2, score, appearance, embedding FROM people "
            "WHERE source = ? AND time = ? ORDER BY id",
            [source, time],
        )
        boxes = torch.tensor([row[:4] for row in rows]).reshape(-1, 4)
        scores = torch.tensor([row[4] for row in rows])
        embeddings = torch.from_numpy(_matrix([row[6] for row in rows]))
        unit = torch.nn.functional.normalize(embeddings)
        return Detections(boxes, scores, unit), [row[5] for row in rows]

    def _write(self, db, source, sample: Sample, before: Detections, numbers: list[int]):
        """Write a sample's people; returns the numbers of their appearances."""
        found = sample.people
        who = [-1] * len(found.boxes) if sample.time is None else link(before, found).tolist()
        first = self.last_given() + 1
        ids = range(first, first + len(who))
        given = [numbers[w] if w >= 0 else id for w, id in zip(who, ids)]
        embeddings = found.weighted_embeddings.numpy()
        columns = found.boxes.tolist(), found.scores.tolist(), given, embeddings
        db.executemany(
            _INSERT,
            (
                (id, source, sample.time, *box, score, number, row.tobytes())
                for id, box, score, number, row in zip(ids, *columns)
            ),
        )
        return given

    # --- people ---

    def last_given(self, table: str = "people") -> int:
        """The highest number that anyone was ever given, 0 before the first."""
        return next((n for (n,) in self.ask(_LAST, [table])), 0)

    def count(self) -> int:
        return self.ask("SELECT COUNT(*) FROM people")[0][0]

    def numbers(self) -> np.ndarray:
        """[n] int64, of everyone, rising."""
        return np.array(self.ask("SELECT id FROM people ORDER BY id"), np.int64).reshape(-1)

    def embeddings(
        self, after: int = 0, one_in: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(numbers [n] int64, embeddings [n, D] float32) in parts: of the people with higher
        numbers than `after`, or of one in so many of them."""
        while True:
            rows = self.ask(
                "SELECT id, embedding FROM people WHERE id > ? AND id % ? = 0 ORDER BY id "
                f"LIMIT {1 << 16}",
                [after, one_in],
            )
            if not rows:
                return
            after = rows[-1][0]
            yield np.array([id for id, _ in rows]), _matrix([row for _, row in rows])

    def persons(self, ids: Sequence[int]) -> list[Person]:
        """Those of the people with these numbers who are still there, in no order."""
        return [_person(row) for row in self._for_each(_PERSON + "people.id IN ({})", ids)]

    def in_scene(self, path: Path, time: float | None) -> list[Person]:
        """Everyone in a picture (time None), or in the frame of a video at that second."""
        question = f"{_PERSON}path = ? AND time IS ? ORDER BY people.id"
        return [_person(row) for row in self.ask(question, [os.fsencode(path), time])]

    def paths_among(self, paths: Iterable[Path]) -> list[Path]:
        """Those of the paths that are sources."""
        question = "SELECT 1 FROM sources WHERE path = ?"
        return [path for path in paths if self.ask(question, [os.fsencode(path)])]

    def read_until(self, path: Path) -> float:
        """The second of a video's last sample."""
        rows = self.ask("SELECT until FROM sources WHERE path = ?", [os.fsencode(path)])
        return next((until for (until,) in rows if until is not None), 0.0)

    def spans(self, tracklets: Sequence[int]) -> dict[int, tuple[float, float]]:
        """The first and last second of each of these appearances in a video."""
        rows = self._for_each(
            "SELECT appearance, MIN(time), MAX(time) FROM people WHERE appearance IN ({}) "
            "GROUP BY appearance",
            tracklets,
        )
        return {id: (first, last) for id, first, last in rows if first is not None}

    def _for_each(self, question: str, values: Sequence[int]) -> Iterator[tuple]:
        for start in range(0, len(values), AT_ONCE):
            some = list(values[start : start + AT_ONCE])
            yield from self.ask(question.format(",".join("?" * len(some))), some)


def _person(row: tuple) -> Person:
    """From a row of the question _PERSON."""
    id, _, time, *box, score, tracklet, embedding, path = row
    values = np.frombuffer(embedding, np.float32)
    return Person(id, Path(os.fsdecode(path)), time, tuple(box), score, tracklet, values)


_PERSON = "SELECT people.*, path FROM people JOIN sources ON source = sources.id WHERE "
_FACT = "SELECT value FROM facts WHERE name = ?"
_LAST = "SELECT seq FROM sqlite_sequence WHERE name = ?"
_INSERT = "INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _matrix(rows: list[bytes]) -> np.ndarray:
    """[n, D] float32, a copy."""
    return (
        np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1).copy()
        if rows
        else (np.zeros((0, 0), np.float32))
    )
