"""Add new and changed pictures and videos to an index, in batches of one size, on all ranks."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from engine.distributed import from_all, from_first, rank, ranks
from engine.index.local import partial_index_path
from engine.index.milvus_writer import MilvusWriter
from engine.index.people import People
from engine.index.records import Sample, Source
from models.outputs import Detections
from utils.errors import UserError, reason_of
from utils.media import picture_size, read_pixels
from utils.sources import VIDEO, LeftOut, MediaFile, unread
from utils.videos import sample_frames, samples_expected

T = TypeVar("T")
MEETING = 20  # seconds between synchronizations of the ranks
READ_AHEAD = 2  # batches read while the network processes another


class EmbeddingDetector(Protocol):
    """A network that detects the people of pictures, such as engine.search.searcher.Searcher.

    Attributes:
        max_pixels: larger pictures and videos are left out.
    """

    batch_size: int
    max_pixels: int

    def detect(self, pictures: Sequence[Tensor]) -> list[Detections]: ...


@dataclass(frozen=True)
class Task:
    """A source to be read.

    Attributes:
        after: the second up to which a video has been read already.
    """

    medium: MediaFile
    source: Source
    after: float | None = None


@dataclass
class Batch:
    """Pictures or frames of one size.

    Attributes:
        sources, times, pixels: of each picture or frame; the time of a picture is None.
        ended: sources that end with this batch -> remark on damage, "" if there is none.
        left: what was left out since the last batch.
    """

    sources: list[Source] = field(default_factory=list)
    times: list[float | None] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    ended: dict[Source, str] = field(default_factory=dict)
    left: list[LeftOut] = field(default_factory=list)

    def append(self, source: Source, time: float | None, pixels: Tensor) -> None:
        self.sources.append(source)
        self.times.append(time)
        self.pixels.append(pixels)


@dataclass(frozen=True)
class IndexStats:
    """The results of one run: numbers of what was read, the duration in seconds, and what was left
    out."""

    pictures: int
    frames: int
    people: int
    seconds: float
    left: list[LeftOut]


def check_damaged(cfg: CfgNode, overrides: list[str]) -> None:
    """Refuse INPUT.SKIP_DAMAGED False.

    Raises:
        UserError: if the command line sets it.
    """
    if "INPUT.SKIP_DAMAGED" in overrides[::2] and not cfg.INPUT.SKIP_DAMAGED:
        raise UserError(
            "override INPUT.SKIP_DAMAGED False: expected True or nothing; this program always "
            "names and skips pictures that cannot be read"
        )


def make_tasks(
    people: People | MilvusWriter, media: Iterable[MediaFile], every: float
) -> tuple[list[Task], list[LeftOut]]:
    """Return a task for each medium that is new, changed or incomplete, and what is left out.

    Several paths of one file are one source. Incomplete videos come first.
    """
    known = {one.source: one for one in people.known(hidden=True)}
    tasks: dict[Path, Task] = {}
    left = []
    for medium in media:
        path = Path(os.path.realpath(medium.path))
        try:
            about = path.stat()
        except OSError as error:  # removed since it was listed
            left.append(LeftOut(medium.name, reason_of(error)))
            continue
        interval = every if medium.kind == VIDEO else None
        source = Source(path, about.st_size, about.st_mtime_ns, interval)
        before = known.get(source)
        if before is None or not before.finished:
            tasks.setdefault(path, Task(medium, source, before.until if before else None))
    return sorted(tasks.values(), key=lambda task: task.after is None), left


def add_sources(
    people: People | MilvusWriter | None,
    folder: Path,
    media: Iterable[MediaFile],
    detector: EmbeddingDetector,
    every: float,
    workers: int = 1,
) -> IndexStats:
    """Detect the people of all media and write them to the index.

    The ranks share the sources. The first rank writes to `people`. The others (people None) write
    to files of their own in the folder, which the first rank merges later. If several processes may
    write to `people`, every rank does so, and each source is read by the process that claims it.
    Sources that cannot be read are left out and named in the result.
    """
    tasks, left, last_ids = from_first(lambda: _plan(people, media, every))
    mine = [task for i, task in enumerate(tasks) if i % ranks() == rank()]
    if isinstance(people, MilvusWriter):
        mine = tasks
    elif people is None:
        # Ids of ranks must differ. An incomplete video needs its last sample: the first rank's.
        people = People(partial_index_path(folder, rank()))
        people.begin_at(*(number + (rank() << 32) for number in last_ids))
        mine = [task for task in mine if task.after is None]
    elif ranks() > 1:
        mine += [t for i, t in enumerate(tasks) if i % ranks() and t.after is not None]
    parts = from_all(_work(people, mine, detector, workers))
    return IndexStats(
        sum(part.pictures for part in parts),
        sum(part.frames for part in parts),
        sum(part.people for part in parts),
        max(part.seconds for part in parts),
        left + [one for part in parts for one in part.left],
    )


def _plan(people: People | MilvusWriter | None, media: Iterable[MediaFile], every: float):
    """Return the tasks, what is left out, and the last ids of people and of sources."""
    assert people is not None
    tasks, left = make_tasks(people, media, every)
    local = isinstance(people, People)
    return tasks, left, [people.last_given(table) for table in ("people", "sources") if local]


def _work(
    people: People | MilvusWriter, tasks: list[Task], detector: EmbeddingDetector, workers: int
) -> IndexStats:
    stats, began = IndexStats(0, 0, 0, 0, []), time.perf_counter()
    names = {task.source: task.medium.name for task in tasks}
    failed: set[Source] = set()
    total, portions = _expected(tasks, detector.max_pixels), _portions(people, tasks)
    with tqdm(total=total, unit="image", mininterval=0.5, disable=rank() > 0) as bar:
        for batch in _synchronized(_prefetched(_batches(portions, detector, workers, failed))):
            samples, left = defaultdict(list), list(batch.left)
            for source, second, found in _detected(detector, batch):
                bar.update()
                if source in failed:
                    continue
                if isinstance(found, str):
                    failed.add(source)
                    left.append(LeftOut(names[source], found))
                else:
                    samples[source].append(Sample(second, found))
            with people.changing():
                ended = {
                    source: note for source, note in batch.ended.items() if source not in failed
                }
                for source in samples.keys() | ended.keys():
                    people.add(source, samples[source], source in ended, ended.get(source, ""))
            stats = _add_up(stats, samples, left)
    return replace(stats, seconds=time.perf_counter() - began)


def _detected(
    detector: EmbeddingDetector, batch: Batch
) -> Iterator[tuple[Source, float | None, Detections | str]]:
    """Yield the source, time and people of each picture or frame.

    If the network could not process it, a text with the reason replaces the people. If a batch
    fails, its pictures are processed one by one, so that one of them cannot affect the others.
    """
    results: Sequence[Detections | str] = _detect(detector, batch.pixels)
    if isinstance(results, str):
        alone = [_detect(detector, [pixels]) for pixels in batch.pixels]
        results = [found if isinstance(found, str) else found[0] for found in alone]
    for source, second, found in zip(batch.sources, batch.times, results):
        if not isinstance(found, str) and not _finite(found):
            found = "the network's output is not finite"
        yield source, second, found


def _detect(detector: EmbeddingDetector, pixels: list[Tensor]) -> list[Detections] | str:
    """Return the people of each picture, or the reason why detection failed."""
    try:
        return detector.detect(pixels)
    except Exception as error:  # of any picture: too large for the memory, of an extreme shape
        return f"cannot be processed ({reason_of(error)})"


def _finite(people: Detections) -> bool:
    fields = people.boxes, people.scores, people.embeddings
    return all(bool(values.isfinite().all()) for values in fields)


def _add_up(
    stats: IndexStats, samples: dict[Source, list[Sample]], left: list[LeftOut]
) -> IndexStats:
    added = [sample for some in samples.values() for sample in some]
    frames = sum(sample.time is not None for sample in added)
    return replace(
        stats,
        pictures=stats.pictures + len(added) - frames,
        frames=stats.frames + frames,
        people=stats.people + sum(len(sample.people.boxes) for sample in added),
        left=stats.left + left,
    )


def _expected(tasks: list[Task], max_pixels: int) -> int:
    """Return the number of pictures and frames to be read, according to the files' headers."""
    count = 0
    for task in tasks:
        source = task.source
        if source.every is None:
            count += 1
        else:
            with suppress(Exception):  # reported when the video is read
                count += samples_expected(source.path, source.every, task.after or 0, max_pixels)
    return count


def _portions(people: People | MilvusWriter, tasks: list[Task]) -> Iterator[list[Task]]:
    """Yield the tasks of this process: all of them, or those whose source it has claimed."""
    if isinstance(people, People):
        yield tasks
        return
    of_source = {task.source: task for task in tasks}
    for sources in people.portions(list(of_source)):
        yield [of_source[source] for source in sources]


def _batches(
    portions: Iterable[list[Task]],
    detector: EmbeddingDetector,
    workers: int,
    failed: Collection[Source],
) -> Iterator[Batch]:
    """Read the tasks in batches.

    Args:
        failed: sources that are not read further.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for tasks in portions:
            pictures = [task for task in tasks if task.source.every is None]
            yield from _pictures(pictures, detector.batch_size, detector.max_pixels, pool)
            for task in tasks:
                if task.source.every is not None:
                    yield from _frames(task, detector.batch_size, detector.max_pixels, failed)


def _pictures(
    tasks: list[Task], size: int, max_pixels: int, pool: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Read pictures in batches of one size, because padding would change features at the border."""
    groups, left = defaultdict(list), []
    for task in tasks:
        try:
            groups[picture_size(task.source.path, True, max_pixels)].append(task)
        except Exception as error:  # an error of one file must not end the run
            left.append(unread(task.medium, error))
    yield Batch(left=left)

    def read(task: Task) -> Tensor | Exception:
        try:
            return read_pixels(task.source.path, True, max_pixels)
        except Exception as error:
            return error

    for group in groups.values():
        for start in range(0, len(group), size):
            batch = Batch()
            some = group[start : start + size]
            for task, pixels in zip(some, pool.map(read, some)):
                if isinstance(pixels, Exception):
                    batch.left.append(unread(task.medium, pixels))
                else:
                    batch.append(task.source, None, pixels)
                    batch.ended[task.source] = ""
            yield batch


def _frames(task: Task, size: int, max_pixels: int, failed: Collection[Source]) -> Iterator[Batch]:
    """Read the frames of a video in batches."""
    batch, source = Batch(), task.source
    remarks: list[str] = []
    try:
        every = source.every or 0
        for frame in sample_frames(source.path, every, task.after, remarks.append, max_pixels):
            batch.append(source, frame.time, frame.pixels)
            if len(batch.pixels) == size:
                yield batch
                batch = Batch()
            if source in failed:
                return
        batch.ended[source] = "; ".join(remarks)
    except Exception as error:  # the next run continues at this place
        remarks.append(unread(task.medium, error).reason)
    batch.left += [LeftOut(task.medium.name, f"a part, {remark}") for remark in remarks]
    yield batch


def _prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, which another thread computes in advance."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(_next, items) for _ in range(READ_AHEAD))
        while item := waiting.popleft().result():
            waiting.append(pool.submit(_next, items))
            yield item[0]


def _synchronized(items: Iterator[T]) -> Iterator[T]:
    """Yield the items and synchronize the ranks every MEETING seconds until all have finished.

    A rank without work would otherwise wait for the others longer than a process group's timeout.
    """
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
    """Return the next item in a tuple, or None at the end."""
    for item in items:
        return (item,)
    return None
