"""The main loop for live cameras: detect people in the newest frames, and store the results."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from engine.cameras.alarms import Sender, Wanted
from engine.cameras.recorder import Recorder
from engine.cameras.sources import Reader, Shot
from engine.cameras.watcher import Watcher
from engine.index.indexing import EmbeddingDetector
from models.outputs import Detections
from utils.errors import reason_of

STATUS = 10.0, 60.0  # seconds between status lines, on a terminal and elsewhere


def watch(
    rounds: Iterator[list[Shot]],
    detector: EmbeddingDetector,
    watchers: Sequence[Watcher],
    recorder: Recorder,
    stopped: Callable[[], bool],
    now: Callable[[], float] | None = None,
    status: Callable[[], None] = lambda: None,
) -> int:
    """Process rounds of frames until they end or `stopped` returns true.

    Args:
        watchers: one for each camera.
        now: returns the time of live cameras. People are then also written while no further frame
            arrives.
        status: called after each round.

    Returns:
        The number of frames.
    """
    frames, failed = 0, set()
    for shots in rounds:
        for shot, people in _detected(detector, shots, failed, recorder.cameras):
            second = round(shot.time, 3)
            recorder.put(shot.camera, watchers[shot.camera].see(second, shot.pixels, people))
            frames += 1
        for camera, watcher in enumerate(watchers):
            due = now is not None and watcher.is_due(now())
            recorder.put(camera, watcher.flush() if due else None)
        status()
        if stopped():
            break
    for camera, watcher in enumerate(watchers):
        recorder.put(camera, watcher.flush())
    return frames


def _detected(
    detector: EmbeddingDetector, shots: list[Shot], failed: set[int], names: Sequence[str]
) -> Iterator[tuple[Shot, Detections]]:
    """Yield the people of each frame. A camera whose frames cannot be processed is reported
    once."""
    try:
        yield from zip(shots, detector.detect([shot.pixels for shot in shots]))
        return
    except Exception:  # of any frame: too large for the memory, of an extreme shape
        pass
    for shot in shots:
        try:
            yield shot, detector.detect([shot.pixels])[0]
        except Exception as error:
            if shot.camera not in failed:
                reason = f"frames cannot be processed ({reason_of(error)})"
                print(f"{names[shot.camera]}: {reason}", file=sys.stderr)
            failed.add(shot.camera)


class StatusLine:
    """The status line: frames a second of each camera, and the number of dropped frames."""

    def __init__(self, readers: Sequence[Reader]):
        self.readers = readers
        self.terminal = sys.stderr.isatty()
        self.began = time.monotonic()
        self.before = [(0, 0)] * len(readers)

    def __call__(self) -> None:
        seconds = time.monotonic() - self.began
        if seconds < STATUS[not self.terminal]:
            return
        counts = [(reader.taken, reader.received) for reader in self.readers]
        words = []
        for reader, (taken, received), before in zip(self.readers, counts, self.before):
            rate, dropped = (taken - before[0]) / seconds, received - taken
            state = f"no picture ({reader.lost})" if reader.lost else f"{rate:.1f} a second"
            words.append(f"{reader.camera.name}: {state}, {dropped} dropped")
        print("; ".join(words), file=sys.stderr)
        self.began, self.before = time.monotonic(), counts


@contextmanager
def recording(recorder: Recorder, sender: Sender | None) -> Iterator[None]:
    """Run the threads that write and send. At the end they complete what remains."""
    recorder.start()
    if sender is not None:
        sender.start()
    try:
        yield
    finally:
        recorder.stop()
        if sender is not None:
            sender.stop()


def watched_for(photos: dict[str, list[Tensor]]) -> list[Wanted]:
    """Return the wanted people, given the embeddings [1, D] of their photographs."""
    return [Wanted(name, sum(rows) / len(rows)) for name, rows in photos.items()]
