"""The files of a MOTChallenge sequence: boxes (gt.txt), names of classes (labels.txt), seqinfo.ini.

A line of boxes is `frame, id, left, top, width, height`, optionally followed by `flag, class,
visibility`; frames, identities and pixels count from 1. A line of ten columns, as in 2015, ends
with a flag and a position in the world instead. Form: https://motchallenge.net/instructions

CVAT and Datumaro write the same form with `gt/labels.txt`, which holds the names of the classes 1,
2, ...; their pixels count from 0.
"""

import configparser
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from datasets.coco_files import people_names
from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text

COLUMNS = range(6, 11)
WITH_CLASS, WITH_VISIBILITY = {8, 9}, {9}  # numbers of columns; a tenth means another form
DIGITS = 9  # of a whole number in seqinfo.ini
LABELS = "labels.txt"  # beside gt.txt, as CVAT and Datumaro write it
Place = tuple[int, list[float]]  # identity, -1 unlabelled; x y w h in pixels from 0 on


@dataclass(frozen=True)
class Rules:
    """The conditions under which a box is used.

    Attributes:
        classes: numbers of the classes of people; None: those of labels.txt, or 1, pedestrians.
        visibility: minimum share of a person that is visible.
        labels: names in labels.txt that are people; empty: see `people_names`.
    """

    classes: frozenset[int] | None = None
    visibility: float = 0.25
    labels: tuple[str, ...] = ()


def read_info(path: Path) -> dict[str, str]:
    """Return the section [Sequence] of a seqinfo.ini, with keys in lower case; {} without a file.

    Raises:
        UserError: if the section is missing, or a number is not a whole one.
    """
    if not path.exists():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path, ""))
        info = dict(parser["Sequence"])
    except (configparser.Error, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a section [Sequence] ({reason})") from None
    for key in ("seqlength", "imwidth", "imheight"):
        if not (info.get(key, "1").isdecimal() and len(info.get(key, "1")) <= DIGITS):
            raise UserError(f"{path}: {key}: expected a whole number, found {info[key][:60]!r}")
    return info


def read_boxes(
    path: Path, rules: Rules, left_out: Counter
) -> tuple[dict[int, list[Place]], set[int]]:
    """Read a file of boxes.

    Args:
        left_out: the number of boxes that are not used, by reason, is added here.

    Returns:
        The people by frame, without frames that have none, and the numbers of columns of the lines.

    Raises:
        UserError: if a line is damaged, or if no box is left.
    """
    labels = path.parent / LABELS
    origin = 0 if labels.exists() else 1
    classes = rules.classes or people_classes(labels, rules.labels)
    people: dict[int, list[Place]] = {}
    columns: set[int] = set()
    for number, line in enumerate(read_text(path, "").splitlines(), 1):
        if not line.strip():
            continue
        row = numbers_in(line, f"{path}, line {number}")
        columns.add(len(row))
        if reason := why_not(row, classes, rules.visibility):
            left_out[reason] += 1
            continue
        frame, person, left, top, width, height = row[:6]
        xywh = [round(value, 3) for value in (left - origin, top - origin, width, height)]
        people.setdefault(int(frame), []).append((int(person), xywh))
    if not people:
        reasons = ", ".join(f"{count}: {reason}" for reason, count in left_out.items())
        why = f" that are used ({reasons})" if reasons else ""
        raise UserError(f"{path}: expected boxes of people, found none{why}")
    return people, columns


def people_classes(labels: Path, wanted: tuple[str, ...]) -> frozenset[int]:
    """Return the numbers of the classes of people: those of labels.txt if it exists, else 1.

    Args:
        wanted: names of classes; empty: see `people_names`.

    Raises:
        UserError: if no class has one of these names, or the file is missing.
    """
    if not labels.exists():
        if wanted:
            raise UserError(f"{labels}: expected names of classes, for --label, found no such file")
        return frozenset({1})
    names = [line.strip() for line in read_text(labels, "").splitlines() if line.strip()]
    kept = people_names(names, wanted, str(labels))
    return frozenset(number for number, name in enumerate(names, 1) if name in kept)


def numbers_in(line: str, where: str) -> list[float]:
    """Return the six to ten numbers of a line; where: file and line, for messages."""
    try:
        row = [float(word) for word in line.strip().rstrip(",").split(",")]
    except ValueError:
        row = []
    whole = len(row) in COLUMNS and all(abs(value) < LARGEST for value in row)
    if not whole or row[0] < 1 or row[0] % 1 or row[1] % 1:
        raise UserError(
            f"{where}: expected frame (from 1), id, left, top, width, height and up to four more "
            f"numbers, found {line.strip()[:60]!r}"
        )
    return row


def why_not(row: list[float], classes: frozenset[int], visibility: float) -> str:
    """Return the reason why a box is not used, with the option that decides it, or ""."""
    if len(row) > 6 and row[6] == 0:
        return "its flag is 0"
    if len(row) in WITH_CLASS and int(row[7]) not in {-1, *classes}:
        return f"class {row[7]:g} (--classes)"
    if len(row) in WITH_VISIBILITY and -1 != row[8] < visibility:
        return f"less than {visibility:g} of it is visible (--min-visibility)"
    return ""
