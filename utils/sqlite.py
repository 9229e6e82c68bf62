"""Transactions and long statements of SQLite."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.files import erase

CHUNK = 500  # values in one statement: SQLite's oldest limit is 999


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Open a write transaction, which is committed completely or not at all.

    A nested transaction belongs to the outer one.

    Args:
        db: a connection with isolation_level None.
    """
    if db.in_transaction:
        yield db
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def select_in(
    db: sqlite3.Connection, statement: str, values: Sequence, more: Sequence = ()
) -> Iterator[tuple]:
    """Run a statement that contains "IN ({})" for all values, CHUNK of them at a time.

    Args:
        more: values of the statement's later parameters.
    """
    for start in range(0, len(values), CHUNK):
        some = list(values[start : start + CHUNK])
        yield from db.execute(statement.format(marks(len(some))), [*some, *more]).fetchall()


def marks(count: int) -> str:
    """Return placeholders for `count` values: "?, ?"."""
    return ", ".join("?" * count)


def compact(run: Callable[[str], object], path: Path) -> None:
    """Rewrite a database without unused space, and overwrite its journal.

    Args:
        run: a function that runs a statement.
        path: of the database.
    """
    run("VACUUM")
    run("PRAGMA journal_mode = MEMORY")
    erase(path.with_name(f"{path.name}-journal"))
    run("PRAGMA journal_mode = DELETE")
