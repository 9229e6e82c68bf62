"""The thread that writes what cameras saw: people and pictures into the index, then alarms."""

import queue
import sys
import time as clocks
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from engine.cameras.alarms import AlarmFile
from engine.cameras.pictures import Pictures, picture_path
from engine.cameras.times import local_time
from engine.cameras.watcher import EVERY, Fired, Report, TrackedFrame
from engine.index.local import LocalPeople, follow
from engine.index.records import CAMERA, Sample, Source, camera_path
from engine.index.vectors import EXACT
from utils.errors import UserError
from utils.files import erase

BETTER = 1.3  # by which a picture must be better to replace the earlier one of a tracklet
AGAIN = 60.0  # seconds after which a disk that refused a picture is tried again
CARE = 600.0  # seconds between removals of what is too old
BEHIND = 50_000  # people whom FAISS does not contain, at most
WAITING = 64  # reports that may wait for the disk
DAY = 24 * 3600.0
FORGOTTEN = DAY  # after which FAISS loses people who were removed, at most


@dataclass(frozen=True)
class Limits:
    """The limits of what is kept; inf: no limit.

    Attributes:
        days: age of people and pictures of cameras.
        bytes: size of all pictures.
    """

    days: float = float("inf")
    bytes: float = float("inf")


@dataclass
class Kept:
    """What the index contains of the current tracklets of one camera.

    Attributes:
        numbers: from the number in this run to the tracklet.
        best: from the same number to the quality and time of the picture.
        users: from the time of a picture to the numbers whose best picture it is.
    """

    numbers: dict[int, int] = field(default_factory=dict)
    best: dict[int, tuple[float, float]] = field(default_factory=dict)
    users: dict[float, set[int]] = field(default_factory=lambda: defaultdict(set))

    def forget_ended(self, active: frozenset[int]) -> None:
        """Drop the tracklets that have ended. Their pictures stay."""
        for number in self.numbers.keys() - active:
            del self.numbers[number]
            self.best.pop(number, None)
        self.users = defaultdict(set, {t: who for t, who in self.users.items() if who & active})


class Recorder(Thread):
    """The thread that writes to an index.

    Args:
        people: the index, opened for writing.
        folder: its folder.
        cameras: names.
        limits: what is kept.
        false_alarms: the rate that belongs to the alarms' threshold; None if it is unknown.
    """

    def __init__(
        self,
        people: LocalPeople,
        folder: Path,
        cameras: Sequence[str],
        limits: Limits,
        false_alarms: float | None,
    ):
        super().__init__(name="recorder", daemon=True)
        self.people, self.folder, self.cameras = people, folder, cameras
        self.limits, self.false_alarms = limits, false_alarms
        people.db.execute("PRAGMA secure_delete = ON")
        self.pictures = Pictures(people, folder)
        self.alarms = AlarmFile(folder)
        self.kept = [Kept() for _ in cameras]
        self.reports: queue.Queue[tuple[int, Report] | None] = queue.Queue(WAITING)
        self.error: BaseException | None = None
        self.refused_until = -float("inf")  # pictures, by a full disk
        self.refused = False  # the last change of the database, by a full disk
        self.cared = -float("inf")
        self.followed = 0  # the last person in FAISS, if that is known
        self.removed, self.forgot = 0, clocks.monotonic()  # people whom FAISS may still contain

    def put(self, camera: int, report: Report | None) -> None:
        """Pass a report to the thread. If the thread has failed, raise its error."""
        if self.error is not None:
            raise self.error
        if report is not None:
            self.reports.put((camera, report))

    def stop(self) -> None:
        """Write the remaining reports, and end the thread."""
        self.reports.put(None)
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        """Write reports until the end. What is too old is removed even if nobody is seen."""
        report, ended = None, False
        while True:
            try:
                if ended:
                    self.cared = -float("inf")
                if self.error is None and report is not None:
                    self._write(*report)
                if self.error is None:
                    self._care()
            except BaseException as error:  # raised in the main thread
                self.error = error
            if ended:
                return
            report = None
            with suppress(queue.Empty):
                report = self.reports.get(timeout=CARE)
                ended = report is None

    def _write(self, camera: int, report: Report) -> None:
        kept, places = self.kept[camera], {id(fired.seen) for fired in report.fired}
        sizes = {}
        for seen in report.samples:
            if id(seen) in places or self._improved(kept, seen):
                sizes[seen.time] = self._write_picture(camera, seen)
        try:
            erase_all(self._store(camera, report, sizes))
            if self.refused:
                print(f"{self.folder}: can be written again", file=sys.stderr)
            self.refused = False
        except (UserError, OSError) as error:
            self._refuse(error)
        for fired in report.fired:
            self.alarms.write(self._record(camera, fired, bool(sizes.get(fired.seen.time))))
        self.kept[camera].forget_ended(report.active)

    def _store(self, camera: int, report: Report, sizes: dict[float, int]) -> list[Path]:
        """Write people and the list of pictures, all of them or, after an error, none. Return the
        files that are replaced."""
        before = deepcopy(self.kept[camera]), self.pictures.bytes
        try:
            with self.people.changing():
                self._add(camera, report.samples)
                return self._list_pictures(camera, report, sizes)
        except BaseException:  # the ids of the tracklets will be given to others
            self.kept[camera], self.pictures.bytes = before
            raise

    def _refuse(self, error: Exception) -> None:
        """Report once that the disk refuses changes."""
        if not self.refused:
            print(f"{error}; what cannot be written is left out", file=sys.stderr)
        self.refused = True

    def _improved(self, kept: Kept, seen: TrackedFrame) -> list[tuple[int, float]]:
        """Return the tracklets for which this picture would be better than the stored one, with
        qualities."""
        return [
            (number, quality)
            for number, quality in zip(seen.tracklets, seen.qualities)
            if quality > BETTER * kept.best.get(number, (0.0, 0.0))[0]
        ]

    def _write_picture(self, camera: int, seen: TrackedFrame) -> int:
        """Write a picture, and return the size of its file; 0 if it cannot be written."""
        if clocks.monotonic() < self.refused_until:
            return 0
        try:
            size = self.pictures.write((self.cameras[camera], seen.time), seen.pixels)
        except UserError as error:
            print(f"{error}; no pictures for {AGAIN:.0f} s", file=sys.stderr)
            self.refused_until = clocks.monotonic() + AGAIN
            return 0
        self.refused_until = -float("inf")
        return size

    def _add(self, camera: int, samples: list[TrackedFrame]) -> None:
        """Add the people of samples. The first sample of a tracklet determines its number."""
        kept = self.kept[camera].numbers
        source = Source(camera_path(self.cameras[camera]), 0, 0, EVERY)
        for seen in samples:
            linked = [kept.get(number) for number in seen.tracklets]
            (given,) = self.people.add_tracked(source, [(Sample(seen.time, seen.people), linked)])
            kept |= dict(zip(seen.tracklets, given))

    def _list_pictures(self, camera: int, report: Report, sizes: dict[float, int]) -> list[Path]:
        """List the pictures that were written, and return the files that they replace."""
        kept, name, replaced = self.kept[camera], self.cameras[camera], []
        pinned = {fired.seen.time for fired in report.fired}
        for seen in report.samples:
            if not sizes.get(seen.time):
                continue
            self.pictures.add((name, seen.time), sizes[seen.time], seen.time in pinned)
            for number, quality in self._improved(kept, seen):
                before = kept.best.get(number)
                kept.best[number] = quality, seen.time
                kept.users[seen.time].add(number)
                if before is not None:
                    kept.users[before[1]].discard(number)
                    replaced.append(before[1])
        free = [(name, time) for time in dict.fromkeys(replaced) if not kept.users.get(time)]
        return self.pictures.drop(place for place in free if not self.pictures.is_pinned(place))

    def _record(self, camera: int, fired: Fired, pictured: bool) -> dict:
        """Return the line of an alarm."""
        seen, name = fired.seen, self.cameras[camera]
        box = seen.people.boxes[fired.place].tolist()
        number = self.kept[camera].numbers.get(seen.tracklets[fired.place])
        path = picture_path(self.folder.absolute(), name, seen.time)
        return {
            "name": fired.wanted.name,
            "camera": name,
            "time": local_time(seen.time),
            "box": [round(value, 1) for value in box],
            "similarity": round(fired.similarity, 4),
            "false_alarms": self.false_alarms,
            "tracklet": number,
            "picture": str(path) if pictured else None,
        }

    def _care(self) -> None:
        """Remove what exceeds the limits, and update FAISS from time to time, if the disk allows
        it."""
        try:
            self._remove_and_update()
        except (UserError, OSError) as error:
            self._refuse(error)

    def _remove_and_update(self) -> None:
        if self.pictures.bytes > self.limits.bytes:
            erase_all(self.pictures.drop(self.pictures.oldest_beyond(0.95 * self.limits.bytes)))
        if clocks.monotonic() - self.cared < CARE:
            return
        self.cared = clocks.monotonic()
        if self.limits.days < float("inf"):
            oldest = clocks.time() - DAY * self.limits.days
            self.removed += remove_before(self.people, self.pictures, oldest)
        last, forget = self.people.last_given(), clocks.monotonic() - self.forgot > FORGOTTEN
        if (forget and self.removed) or last - self.followed > BEHIND:
            follow(self.folder, self.people, self.people.fact("kind") or EXACT)
            self.followed, self.removed, self.forgot = last, 0, clocks.monotonic()


def remove_before(people: LocalPeople, pictures: Pictures, time: float) -> int:
    """Remove the people and pictures of cameras that are older than `time`. Return the number of
    people."""
    with people.changing() as db:
        removed = db.execute(
            "DELETE FROM people WHERE time < ? AND source IN "
            "(SELECT id FROM sources WHERE substr(path, 1, ?) = ?)",
            [time, len(CAMERA), CAMERA.encode()],
        ).rowcount
        old = pictures.drop(pictures.before(time))
    erase_all(old)
    return removed


def erase_all(files: Iterable[Path]) -> None:
    for path in files:
        erase(path)
