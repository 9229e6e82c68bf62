"""The file of cached outputs: values by key, in SQLite, shared by runs and ranks."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError
from utils.files import make_folder
from utils.sqlite import select_in, transaction

APPLICATION = 0x44445053  # in the header of the file
PATIENCE = 600  # seconds to wait for the writes of other ranks


class OutputStore:
    """An open file.

    Args:
        option: its name in messages.

    Raises:
        UserError: if it cannot be opened or created, or belongs to another program.
    """

    def __init__(self, path: Path, option: str):
        self.where = f"{option} {path}"
        make_folder(path.parent, option)
        with self._errors():
            self.db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            # Read in this order: another run that creates the file writes the id before the table.
            tables = self.db.execute("SELECT * FROM sqlite_master").fetchall()
            (found,) = self.db.execute("PRAGMA application_id").fetchone()
            if not found and not tables:
                self.db.execute(f"PRAGMA application_id = {APPLICATION}")
            elif found != APPLICATION:
                raise UserError(
                    f"{self.where}: expected a cache of teachers' outputs, found another file"
                )
            self.db.execute(
                "CREATE TABLE IF NOT EXISTS outputs (key BLOB PRIMARY KEY, numbers BLOB NOT NULL) "
                "WITHOUT ROWID"
            )

    def close(self) -> None:
        self.db.close()

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of the keys that have no values."""
        return set(keys) - {key for key, _ in self._rows(keys, "key, 0")}

    def get(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that have values, with their values."""
        return self._rows(keys, "key, numbers")

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add or replace values: all of them, or none after an error."""
        with self._errors(), transaction(self.db):
            self.db.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?)", rows)

    def _rows(self, keys: Sequence[bytes], columns: str) -> Iterator[tuple]:
        statement = f"SELECT {columns} FROM outputs WHERE key IN ({{}})"
        with self._errors():
            yield from select_in(self.db, statement, keys)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(f"{self.where}: cannot be used as a cache ({error})") from None
