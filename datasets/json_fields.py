"""Values in JSON files. The error for a wrong value names the file, the record and the key."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text

NEEDED = object()
EMPTY = {"nan", "NaN", "NAN", "None", "null", "NULL", "<NA>", "NaT"}  # written for an empty cell


def read_json(path: str) -> Any:
    try:
        return json.loads(read_text(Path(path), ""))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON ({str(error).splitlines()[0]})") from None


def records(path: str, content: Any, key: str) -> list:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        found = content.get(key, "none") if isinstance(content, dict) else content
        raise UserError(f"{path}: expected a list {key!r} in an object, found {short(found)}")
    return content[key]


def field(
    record: Any, key: str, kind: Callable[[Any], Any], where: str, absent: Any = NEEDED
) -> Any:
    """Return the value of a record, converted by `kind`; `absent` if it is missing or null."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, found {short(record)}")
    if record.get(key) is None:
        if absent is NEEDED:
            raise UserError(f"{where}: expected {key}, found {'null' if key in record else 'none'}")
        return absent
    return convert(record[key], kind, f"{where}: {key}")


def convert(value: Any, kind: Callable[[Any], Any], where: str) -> Any:
    made = kind(value)
    if made is None:
        raise UserError(f"{where}: expected {EXPECTED[kind]}, found {short(value)}")
    return made


def short(value: Any) -> str:
    """Shorten a JSON value so that it fits a message of one line."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def identifier(value: Any) -> str | None:
    """Return a person's id, a number or text, as text; None for anything else."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value) if value.is_integer() else value)
    return str(value).strip() if type(value) in (int, str) else None


def text(value: Any) -> str | None:
    """Return text that is not empty; None for anything else."""
    return value if isinstance(value, str) and value.strip() else None


def file_name(value: Any) -> str | None:
    """Return text that the file system accepts as a name; None for anything else."""
    name = text(value)
    try:
        return name if name and b"\0" not in os.fsencode(name) else None
    except UnicodeEncodeError:
        return None


def box(value: Any) -> list[float] | None:
    """Return four finite numbers x y w h; None for anything else."""
    number = (int, float)
    whole = isinstance(value, list) and len(value) == 4 and all(type(v) in number for v in value)
    return value if whole and all(abs(v) < LARGEST for v in value) else None


def flag(value: Any) -> int | None:
    """Return 0 or 1; None for anything else."""
    return int(value) if value in (0, 1) else None


def score(value: Any) -> float | None:
    """Return a number above 0 and at most 1; None for anything else."""
    return float(value) if type(value) in (int, float) and 0 < value <= 1 else None


def person_name(value: Any) -> str | None:
    """Return a name as `identifier` does, with NaN as an empty name."""
    return "" if isinstance(value, float) and math.isnan(value) else identifier(value)


# The expected values, in messages.
EXPECTED: dict[Callable[[Any], Any], str] = {
    identifier: "a number or a text",
    text: "a text",
    file_name: "the name of a file",
    box: "four numbers x y w h",
    flag: "0 or 1",
    score: "a number above 0 and at most 1",
    person_name: "a number or a text",
}


def labelled(person: str | None) -> str | None:
    """Return the identity in a person_id; None if it is absent, empty, a negative number, or a form
    in which pandas and other programs write an empty cell."""
    if not person or person in EMPTY:
        return None
    try:
        return None if float(person) < 0 else person
    except ValueError:
        return person
