"""Pictures and videos into an index: what is new or changed, in batches of one size, by all
ranks."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from engine.distributed import from_all, from_first, rank, ranks
from engine.index.gallery_index import partial_index_path
from engine.index.people import People, Sample, Source
from engine.search.searcher import Searcher
from utils.errors import UserError
from utils.media import picture_size, read_pixels
from utils.sources import VIDEO, LeftOut, MediaFile, unread
from utils.videos import sample_frames, samples_expected

T = TypeVar("T")
MEETING = 20  # seconds between meetings of all ranks
READ_AHEAD = 2  # batches that are read while the network works


@dataclass(frozen=True)
class Task:
    """A source to be read; after: the second of a video until which it was."""

    medium: MediaFile
    source: Source
    after: float | None = None


@dataclass
class Batch:
    """Pictures or frames of one size: their sources, times (None: a picture) and pixels; ended: the
    sources that are read to their end with it, and what was wrong with each ("": nothing)."""

    sources: list[Source] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    ended: dict[Source, str] = field(default_factory=dict)
    left: list[LeftOut] = field(default_factory=list)

    def take(self, source: Source, time: float | None, pixels: Tensor) -> None:
        self.sources.append(source)
        self.times.append(time)
        self.pixels.append(pixels)


@dataclass(frozen=True)
class IndexStats:
    """What this run read."""

    pictures: int
    frames: int
    people: int
    seconds: float
    left: list[LeftOut]


def check_damaged(cfg: CfgNode, overrides: list[str]) -> None:
    """UserError where a command line asks to stop at what cannot be read."""
    if "INPUT.SKIP_DAMAGED" in overrides[::2] and not cfg.INPUT.SKIP_DAMAGED:
        raise UserError(
            "override INPUT.SKIP_DAMAGED False: pictures that cannot be read are always named and "
            "passed over here; expected True, or nothing"
        )


def make_tasks(people: People, media: Iterable[MediaFile], every: float) -> list[Task]:
    """What is not in the index yet, or was another file then, which is forgotten. One file under
    several paths is one source. Videos that were broken off come first."""
    known = {one.source.path: one for one in people.known()}
    tasks: dict[Path, Task] = {}
    changed = []
    for medium in media:
        path = Path(os.path.realpath(medium.path))
        about = path.stat()
        pace = every if medium.kind == VIDEO else None
        source = Source(path, about.st_size, about.st_mtime_ns, pace)
        before = known.get(path)
        if before and before.source != source:
            changed.append(path)
            before = None
        if before is None or not before.finished:
            tasks.setdefault(path, Task(medium, source, before.until if before else None))
    people.remove(changed)
    return sorted(tasks.values(), key=lambda task: task.after is None)


def add_sources(
    people: People | None,
    folder: Path,
    media: Iterable[MediaFile],
    searcher: Searcher,
    every: float,
    workers: int = 1,
) -> IndexStats:
    """Find everyone in the media and write them down. Several ranks share the sources: the first
    writes to `people`, the others (people None) to parts in the folder that it takes in later. What
    cannot be read is left out and told."""
    plan = from_first(lambda: _plan(people, media, every))
    tasks, given = plan
    mine = [task for i, task in enumerate(tasks) if i % ranks() == rank()]
    if people is None:
        # No two ranks give the same numbers. Who goes on with a video needs its last sample.
        people = People(partial_index_path(folder, rank()))
        people.begin_at(*(number + (rank() << 32) for number in given))
        mine = [task for task in mine if task.after is None]
    elif ranks() > 1:
        mine += [t for i, t in enumerate(tasks) if i % ranks() and t.after is not None]
    done = _work(people, mine, searcher, workers)
    parts = from_all(done)
    return IndexStats(
        sum(part.pictures for part in parts),
        sum(part.frames for part in parts),
        sum(part.people for part in parts),
        max(part.seconds for part in parts),
        [one for part in parts for one in part.left],
    )


def _plan(people: People | None, media: Iterable[MediaFile], every: float):
    assert people is not None
    tasks = make_tasks(people, media, every)
    return tasks, [people.last_given(table) for table in ("people", "sources")]


def _work(people: People, tasks: list[Task], searcher: Searcher, workers: int) -> IndexStats:
    done, began = IndexStats(0, 0, 0, 0, []), time.perf_counter()
    expected = sum(_expected(task) for task in tasks)
    with tqdm(total=expected, unit="image", mininterval=0.5, disable=rank() > 0) as bar:
        for batch in _in_step(_ahead(_batches(tasks, searcher.batch_size, workers))):
            found = searcher.detect(batch.pixels)
            samples = defaultdict(list)
            for source, second, seen in zip(batch.sources, batch.times, found):
                samples[source].append(Sample(second, seen))
            with people.changing():
                for source in samples.keys() | batch.ended.keys():
                    ended = source in batch.ended
                    people.add(source, samples[source], ended, batch.ended.get(source, ""))
            bar.update(len(found))
            frames = sum(second is not None for second in batch.times)
            done = replace(
                done,
                pictures=done.pictures + len(found) - frames,
                frames=done.frames + frames,
                people=done.people + sum(len(seen.boxes) for seen in found),
                left=done.left + batch.left,
            )
    return replace(done, seconds=time.perf_counter() - began)


def _expected(task: Task) -> int:
    if task.source.every is None:
        return 1
    try:
        return samples_expected(task.source.path, task.source.every, task.after or 0)
    except UserError:  # told when it is read
        return 0


def _batches(tasks: list[Task], size: int, workers: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        yield from _pictures([task for task in tasks if task.source.every is None], size, pool)
    for task in tasks:
        if task.source.every is not None:
            yield from _frames(task, size)


def _pictures(tasks: list[Task], size: int, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """Those of one size together: beside a larger one a picture would be padded, which its edge
    would show."""
    groups, left = defaultdict(list), []
    for task in tasks:
        try:
            groups[picture_size(task.source.path, upright=True)].append(task)
        except UserError as error:
            left.append(unread(task.medium, error))
    yield Batch(left=left)
    for group in groups.values():
        for start in range(0, len(group), size):
            batch = Batch()
            some = group[start : start + size]
            for task, pixels in zip(some, pool.map(_read, some)):
                if isinstance(pixels, UserError):
                    batch.left.append(unread(task.medium, pixels))
                else:
                    batch.take(task.source, None, pixels)
                    batch.ended[task.source] = ""
            yield batch


def _read(task: Task) -> Tensor | UserError:
    try:
        return read_pixels(task.source.path, upright=True)
    except UserError as error:
        return error


def _frames(task: Task, size: int) -> Iterator[Batch]:
    batch, source = Batch(), task.source
    said: list[str] = []
    try:
        for frame in sample_frames(source.path, source.every or 0, task.after, said.append):
            batch.take(source, frame.time, frame.pixels)
            if len(batch.pixels) == size:
                yield batch
                batch = Batch()
        batch.ended[source] = "; ".join(said)
    except UserError as error:  # it is tried again next time, from here on
        said.append(str(unread(task.medium, error).reason))
    batch.left += [LeftOut(task.medium.name, f"a part, {words}") for words in said]
    yield batch


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, made in another thread, some before they are asked for."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(_next, items) for _ in range(READ_AHEAD))
        while item := waiting.popleft().result():
            waiting.append(pool.submit(_next, items))
            yield item[0]


def _in_step(items: Iterator[T]) -> Iterator[T]:
    """The items; meanwhile the ranks meet now and then until all are done: none waits at the end
    for another longer than the patience of a process group."""
    met = time.monotonic()
    while True:
        if item := _next(items):
            yield item[0]
        elif ranks() == 1:
            return
        if ranks() > 1 and (not item or time.monotonic() - met > MEETING):
            if not any(from_all(bool(item))):
                return
            met = time.monotonic()


def _next(items: Iterator[T]) -> tuple[T] | None:
    """The next item; None at the end."""
    for item in items:
        return (item,)
    return None
