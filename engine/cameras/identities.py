"""Identities: one number for each person of an index, across cameras and days, in
identities.sqlite.

The file is separate from the index's own, so people can be named, merged and split while cameras
are recorded. Numbers are never reused. Manual decisions are permanent: merged people stay one
person, and split people stay separate.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from engine.cameras.tracklet_table import TrackletTable, apart
from engine.index.grouping import group_people, similarity_for
from engine.index.local import LocalPeople
from utils.errors import UserError, first_of
from utils.sqlite import compact, transaction

FILE = "identities.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB);
CREATE TABLE IF NOT EXISTS persons (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS members (
    tracklet INTEGER PRIMARY KEY,
    person INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE);
CREATE INDEX IF NOT EXISTS members_by_person ON members (person);
CREATE TABLE IF NOT EXISTS apart (
    one INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE,
    other INTEGER NOT NULL REFERENCES persons (number) ON DELETE CASCADE,
    PRIMARY KEY (one, other));
"""
SAMPLED = 3000  # tracklets from which a similarity is derived
CONFIDENT = 0.9  # score of a detection that is hardly ever false
KNOWN_DIFFERENT = 50  # pairs of different people that this needs
CHUNK = 4000  # new tracklets that are grouped at once
SHOWN_AS = 8  # tracklets that stand for a person who is known already
TIMEOUT = 60  # seconds to wait for another process's transaction


class Identities:
    """The persons of an index: their numbers, names and tracklets.

    Args:
        folder: the index's folder.
        index: the index's name, to which the file belongs.
    """

    def __init__(self, folder: Path, index: bytes):
        self.path = folder / FILE
        with self._errors():
            self.db = sqlite3.connect(
                self.path, timeout=TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self.db.executescript(SCHEMA)
            self.db.execute("PRAGMA foreign_keys = ON")
            self.db.execute("PRAGMA secure_delete = ON")
            statement = "SELECT value FROM facts WHERE name = 'index'"
            if self.db.execute(statement).fetchone() is None:  # reading needs no write access
                self.db.execute("INSERT OR IGNORE INTO facts VALUES ('index', ?)", [index])
            (found,) = self.db.execute(statement).fetchone()
        if found != index:
            raise UserError(f"{self.path}: belongs to another index; remove it")

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def _errors(self):
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {error}") from None

    @contextmanager
    def changing(self):
        """Open a transaction, which is applied completely or not at all; nested ones belong to the
        outer one."""
        with self._errors(), transaction(self.db):
            yield self.db

    def _select(self, statement: str, values: Sequence = ()) -> list[tuple]:
        with self._errors():
            return self.db.execute(statement, values).fetchall()

    # --- reading ---

    def members(self) -> dict[int, int]:
        """Return the person's number for each tracklet."""
        return dict(self._select("SELECT tracklet, person FROM members"))

    def tracklets(self, person: int) -> list[int]:
        """Return the tracklets of a person.

        Raises:
            UserError: if the person does not exist.
        """
        rows = self._select("SELECT tracklet FROM members WHERE person = ? ORDER BY 1", [person])
        if not rows:
            raise UserError(f"person {person}: expected one of {self.path}, found none")
        return [tracklet for (tracklet,) in rows]

    def names(self) -> dict[int, str]:
        """Return the name of each person, "" if they have none."""
        return dict(self._select("SELECT number, name FROM persons ORDER BY number"))

    def known_apart(self) -> set[tuple[int, int]]:
        """Return the pairs of people who were split by hand, each once, the lower number first."""
        return set(self._select("SELECT one, other FROM apart"))

    def number_of(self, word: str) -> int:
        """Return the number of the person with this number or name.

        Raises:
            UserError: if there is none, or the word is empty: people without a name are not meant.
        """
        if not word:
            raise UserError("person: expected a number or a name, found an empty text")
        names = self.names()
        found = [number for number, name in names.items() if name == word]
        if word.isdecimal() and int(word) in names:
            found = [int(word)]
        if len(found) != 1:
            people = f"{len(found)} people of this name" if found else "nobody"
            raise UserError(f"person {word}: expected the number or name of one, found {people}")
        return found[0]

    # --- decisions by hand ---

    def rename(self, person: int, name: str) -> None:
        """Name a person; an empty name removes it.

        Raises:
            UserError: if the person does not exist, or the name is a number, as of another person,
                or contains bytes that are not UTF-8.
        """
        self.tracklets(person)
        name = name.strip()
        if name.isdecimal():
            raise UserError(f"name {name}: expected a name, found a number")
        try:
            with self.changing() as db:
                db.execute("UPDATE persons SET name = ? WHERE number = ?", [name, person])
        except UnicodeEncodeError:
            raise UserError(f"name {name}: expected UTF-8, found other bytes") from None

    def merge(self, one: int, other: int) -> int:
        """Merge two persons, and return the lower of their numbers, which the merged person has."""
        self.tracklets(one), self.tracklets(other)
        if one == other:
            raise UserError(f"person {one}: expected another person to merge with, found the same")
        keep, drop = min(one, other), max(one, other)
        with self.changing() as db:
            self._join(db, keep, drop)
        return keep

    def split(self, person: int, tracklets: Collection[int]) -> int:
        """Move some of a person's tracklets to a new person, and return its number.

        Raises:
            UserError: if one is not a tracklet of this person, or if none would remain.
        """
        mine = self.tracklets(person)
        if others := sorted(set(tracklets) - set(mine)):
            raise UserError(f"person {person}: expected their tracklets, found {first_of(others)}")
        moved = [tracklet for tracklet in mine if tracklet in tracklets]
        if not moved or len(moved) == len(mine):
            raise UserError(
                f"person {person}: expected some of their {len(mine)} tracklets to split off, "
                f"found {len(moved)}"
            )
        with self.changing() as db:
            number = self._new(db)
            self._assign(db, moved, number)
            db.execute("INSERT INTO apart VALUES (?, ?)", sorted((person, number)))
        return number

    def forget(self, tracklets: Collection[int]) -> None:
        """Remove tracklets, persons without any, and the copies of both inside the file."""
        self.db.execute("PRAGMA journal_mode = PERSIST")  # so that the journal can be overwritten
        self._remove(tracklets)
        compact(self._select, self.path)

    # --- changes by a run ---

    def keep(self, tracklets: Collection[int], last: int) -> None:
        """Remove the tracklets up to number `last` that the index no longer has, and people without
        any. Later ones may have been added by another process."""
        gone = self.members().keys() - set(tracklets)
        self._remove([tracklet for tracklet in gone if tracklet <= last])

    def _remove(self, tracklets: Collection[int]) -> None:
        with self.changing() as db:
            db.executemany("DELETE FROM members WHERE tracklet = ?", [(t,) for t in tracklets])
            db.execute("DELETE FROM persons WHERE number NOT IN (SELECT person FROM members)")

    def assign(self, people: Sequence[set[int]], tracklets: Sequence[Sequence[int]]) -> None:
        """Record groups, each of persons, who are merged, and of new tracklets, which they get."""
        with self.changing() as db:
            for known, new in zip(people, tracklets):
                number = min(known) if known else self._new(db)
                for other in known - {number}:
                    self._join(db, number, other)
                self._assign(db, new, number)

    def _new(self, db) -> int:
        return db.execute("INSERT INTO persons (name) VALUES ('')").lastrowid

    def _assign(self, db, tracklets: Iterable[int], person: int) -> None:
        rows = [(tracklet, person) for tracklet in tracklets]
        db.executemany("INSERT OR REPLACE INTO members VALUES (?, ?)", rows)

    def _join(self, db, keep: int, drop: int) -> None:
        db.execute("UPDATE members SET person = ? WHERE person = ?", [keep, drop])
        db.execute(
            "UPDATE persons SET name = (SELECT name FROM persons WHERE number = ?) "
            "WHERE number = ? AND name = ''",
            [drop, keep],
        )
        pairs = db.execute("SELECT one, other FROM apart WHERE ? IN (one, other)", [drop])
        for pair in pairs.fetchall():
            other = pair[0] if pair[1] == drop else pair[1]
            if other != keep:
                db.execute("INSERT OR IGNORE INTO apart VALUES (?, ?)", sorted((keep, other)))
        db.execute("DELETE FROM persons WHERE number = ?", [drop])


def open_identities(folder: Path, people: LocalPeople) -> Identities:
    """Open the persons of an index. Before the first run of tools.identities there are none."""
    return Identities(folder, people.fact("name"))


def choose_similarity(
    found: TrackletTable, precision: float, overlapping: Collection[str] = ()
) -> float:
    """Return the lowest mean similarity that reaches a precision; see `similarity_for`.

    Tracklets with a high score are used, if they suffice: among the others are false detections,
    whose similarities are not those of people.

    Raises:
        UserError: if too few pairs are known to be different people, or no similarity is precise
            enough.
    """
    for some in (found[found.scores >= CONFIDENT], found):
        some = _sample(some)
        different = apart(some, some, overlapping)
        pairs = int(np.triu(different, 1).sum())
        if pairs >= KNOWN_DIFFERENT:
            break
    else:
        raise UserError(
            f"--precision {precision:g}: expected {KNOWN_DIFFERENT} pairs of people who are seen "
            f"at one time, found {pairs}; give --min-similarity"
        )
    similarity = similarity_for(precision, some.means @ some.means.T, different)
    if similarity is None:
        raise UserError(f"--precision {precision:g}: no similarity is precise enough")
    return similarity


def _sample(found: TrackletTable) -> TrackletTable:
    if len(found) <= SAMPLED:
        return found
    return found[np.sort(np.random.default_rng(0).choice(len(found), SAMPLED, replace=False))]


def identify(
    identities: Identities,
    found: TrackletTable,
    min_similarity: float,
    overlapping: Collection[str] = (),
) -> None:
    """Assign a person to every tracklet without one. Existing persons may be merged but not
    split."""
    identities.keep(found.tracklets.tolist(), found.until)
    new = ~np.isin(found.tracklets, list(identities.members()))
    order = np.flatnonzero(new)
    for start in range(0, max(len(order), 1), CHUNK):
        some = order[start : start + CHUNK]
        with identities.changing():  # no decision by hand is made meanwhile
            _identify(identities, found, some, min_similarity, overlapping)


def _identify(
    identities, found: TrackletTable, new: np.ndarray, min_similarity, overlapping
) -> None:
    """Group the tracklets at the positions `new` with the existing persons."""
    members, names = identities.members(), identities.names()
    here = found[np.array(sorted({*new, *_places(found, members)}), np.int64)]
    known = sorted({members[t] for t in here.tracklets.tolist() if t in members})
    place = {number: i for i, number in enumerate(known)}
    owner = np.array([place.get(members.get(t, 0), -1) for t in here.tracklets.tolist()])
    fresh = owner < 0
    owner[fresh] = len(known) + np.arange(fresh.sum())
    different = _apart_groups(here, owner, overlapping)
    for one, other in identities.known_apart() | _named_differently(names):
        if one in place and other in place:
            different[place[one], place[other]] = different[place[other], place[one]] = True
    rows = _representatives(owner)
    mine = owner[rows]
    labels = group_people(here.means[rows], mine, different, min_similarity)
    people: dict[int, set[int]] = {}
    tracklets: dict[int, list[int]] = {}
    for label, one, tracklet in zip(labels.tolist(), mine.tolist(), here.tracklets[rows].tolist()):
        some, added = people.setdefault(label, set()), tracklets.setdefault(label, [])
        if one < len(known):
            some.add(known[one])
        else:
            added.append(tracklet)
    order = sorted(people, key=lambda label: min(tracklets[label], default=0))
    identities.assign([people[label] for label in order], [tracklets[label] for label in order])


def _places(found: TrackletTable, members: dict[int, int]) -> list[int]:
    return np.flatnonzero(np.isin(found.tracklets, list(members))).tolist()


def _named_differently(names: dict[int, str]) -> set[tuple[int, int]]:
    named = [(number, name) for number, name in names.items() if name]
    return {(a, b) for a, one in named for b, other in named if a < b and one != other}


def _apart_groups(found: TrackletTable, owner: np.ndarray, overlapping) -> np.ndarray:
    """Return which groups contain tracklets of different people, [g, g] bool."""
    order, count = np.argsort(owner, kind="stable"), int(owner.max(initial=-1)) + 1
    sorted_owner, starts = owner[order], np.searchsorted(owner[order], np.arange(count))
    different = np.zeros((count, count), bool)
    for start in range(0, len(order), 1000):
        some = order[start : start + 1000]
        rows = apart(found[some], found[order], overlapping)
        columns = np.logical_or.reduceat(rows, starts, axis=1) if count else rows
        np.logical_or.at(different, sorted_owner[start : start + 1000], columns)
    np.fill_diagonal(different, False)
    return different


def _representatives(owner: np.ndarray) -> np.ndarray:
    """Return the positions of at most SHOWN_AS tracklets of each group, evenly spaced."""
    order = np.argsort(owner, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(owner[order])) + 1) if len(order) else []
    chosen = [some[np.linspace(0, len(some) - 1, SHOWN_AS).astype(int)] for some in groups]
    return np.unique(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
