"""Removal of people from an index: rows, pictures and vectors, including copies inside the
files."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from engine.cameras.alarms import ALARMS, SENT, read_places
from engine.cameras.pictures import Pictures
from engine.cameras.times import seconds_of
from engine.index.local import PEOPLE, VECTORS, LocalPeople
from engine.index.records import Person, PersonFilter, camera_of
from utils.errors import UserError
from utils.files import erase, overwritten, write_text
from utils.sqlite import CHUNK, compact


def forget(
    people: LocalPeople,
    folder: Path,
    tracklets: Collection[int] | None,
    person_filter: PersonFilter | None,
) -> tuple[int, set[int]]:
    """Remove the people of these tracklets whom `person_filter` selects.

    Alarms of the tracklets, or of all that `person_filter` selects, are removed too, even if the
    index has none of their people any more.
    Every camera picture that shows one of them is removed, even if it shows other people too.
    FAISS's file is removed, and is built again when `engine.index.local.writing` ends.

    Args:
        people: the index, opened for writing.
        folder: its folder.
        tracklets: None: all.
        person_filter: None: all people of the tracklets.

    Returns:
        The number of removed people, and the tracklets of which nobody is left.
    """
    if people.db.in_transaction:
        raise UserError("forgetting: expected no open transaction")
    people.db.execute("PRAGMA secure_delete = ON")
    people.db.execute("PRAGMA journal_mode = PERSIST")  # so that the journal can be overwritten
    pictures = Pictures(people, folder)
    ids, places, paths = [], set(), set()
    touched = set(tracklets or ()) if person_filter is None else set()
    for person in _people_of(people, tracklets):
        if person_filter is not None and not person_filter(person):
            continue
        ids.append(person.id)
        touched.add(person.tracklet)
        paths.add(person.path)
        if (camera := camera_of(person.path)) is not None and person.time is not None:
            places.add((camera, person.time))
    with people.changing() as db:
        db.executemany("DELETE FROM people WHERE id = ?", [(id,) for id in ids])
        files = pictures.drop(sorted(places))
        people.forget_places(paths)
    for path in files:
        erase(path)
    left = {person.tracklet for person in _people_of(people, touched)}
    compact(people.select, folder / PEOPLE)
    erase(folder / VECTORS)
    forget_alarms(folder, touched, files, person_filter if tracklets is None else None)
    return len(ids), touched - left


def _people_of(people: LocalPeople, tracklets: Collection[int] | None) -> Iterator[Person]:
    """Yield the people of these tracklets; None: all people."""
    everyone = tracklets is None
    numbers = people.numbers().tolist() if everyone else people.ids_of(sorted(tracklets))
    for start in range(0, len(numbers), CHUNK):
        yield from people.persons(numbers[start : start + CHUNK])


def forget_alarms(
    folder: Path,
    tracklets: Collection[int],
    files: Collection[Path],
    person_filter: PersonFilter | None,
) -> None:
    """Remove the lines of these tracklets, with these pictures, or of the cameras and times that
    `person_filter` selects, from alarms.jsonl."""
    path, pictures = folder / ALARMS, {str(file.absolute()) for file in files}
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    places, kept, before, after = read_places(folder / SENT), [], 0, 0
    moved = dict.fromkeys(places, 0)
    for line in lines:
        stays = not _names(line, tracklets, pictures, person_filter)
        before += len(line)
        after += len(line) if stays else 0
        moved |= {key: after for key, place in places.items() if place >= before}
        kept += [line] if stays else []
    with overwritten(path):
        write_text(b"".join(kept).decode(errors="surrogateescape"), path)
    if places:
        write_text(json.dumps(moved), folder / SENT)


def _names(
    line: bytes,
    tracklets: Collection[int],
    pictures: Collection[str],
    person_filter: PersonFilter | None,
) -> bool:
    try:
        record = json.loads(line)
        if record["tracklet"] in tracklets or record["picture"] in pictures:
            return True
        return person_filter is not None and person_filter.selects(
            record["camera"], seconds_of(record["time"], ALARMS)
        )
    except (ValueError, KeyError, TypeError, UserError):
        return False
