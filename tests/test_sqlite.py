"""Statements of SQLite with more values than one statement may contain, and compacted files."""

import sqlite3
from pathlib import Path

from engine.index.local import LocalPeople
from engine.index.records import Sample, Source
from engine.teachers.store import OutputStore
from tests.indexes import crowd
from utils.sqlite import CHUNK, compact, select_in

COUNT = 2 * CHUNK + 1


def test_all_values_of_a_long_list_are_selected(tmp_path: Path) -> None:
    db = sqlite3.connect(":memory:")
    statement = "SELECT value FROM json_each('[3, 5, 1000, 2000]') WHERE value IN ({})"
    assert sorted(select_in(db, statement, range(COUNT))) == [(3,), (5,), (1000,)]
    assert list(select_in(db, statement, [])) == []
    store = OutputStore(tmp_path / "cache.sqlite", "KEY")
    keys = [number.to_bytes(2, "big") for number in range(COUNT)]
    store.put((key, key * 2) for key in keys[1:])
    assert store.missing(keys) == {keys[0]}
    assert dict(store.get(keys)) == {key: key * 2 for key in keys[1:]}
    people = LocalPeople()
    people.add(Source(Path("/a.jpg"), 1, 1), [Sample(None, crowd(COUNT, 0))])
    ids = people.numbers().tolist()
    assert sorted(one.id for one in people.persons(ids)) == ids == people.ids_of(ids)


def test_a_compacted_file_and_its_journal_contain_no_removed_rows(tmp_path: Path) -> None:
    path, secret = tmp_path / "a.sqlite", b"a removed person"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = PERSIST")
    db.execute("CREATE TABLE rows (value BLOB)")
    db.execute("INSERT INTO rows VALUES (?)", [secret])
    db.execute("DELETE FROM rows")
    assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
    compact(lambda statement: db.execute(statement).fetchall(), path)
    db.close()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert secret not in path.read_bytes()
