"""The processing of one camera's people: tracklets, the frames to store, and alarms."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from engine.cameras.alarms import Wanted
from engine.index.tracklets import Tracklets
from models.outputs import Detections

EVERY = 1.0  # seconds; each tracklet of this span is in at least one sample of it


@dataclass(frozen=True)
class TrackedFrame:
    """A frame with its people.

    Attributes:
        tracklets: the number of each person's tracklet, counted from 1 in each run.
    """

    time: float
    pixels: Tensor
    people: Detections
    tracklets: list[int]

    @property
    def qualities(self) -> list[float]:
        """The quality of each person's picture: the area of the box times the score."""
        x1, y1, x2, y2 = self.people.boxes.unbind(1)
        return (self.people.scores * (x2 - x1) * (y2 - y1)).tolist()


@dataclass(frozen=True)
class Fired:
    """A tracklet that matches a wanted person.

    Attributes:
        place: position of the person in `seen`.
    """

    wanted: Wanted
    seen: TrackedFrame
    place: int
    similarity: float


@dataclass(frozen=True)
class Report:
    """The results of a camera that are to be written.

    Attributes:
        samples: frames in order of time.
        fired: alarms, whose frames are among the samples.
        active: tracklets that may still be continued.
    """

    samples: list[TrackedFrame]
    fired: list[Fired]
    active: frozenset[int]


class Watcher:
    """The state of one camera.

    Args:
        wanted: the wanted people.
        min_similarity: the similarity at which a tracklet matches.
    """

    def __init__(self, wanted: Sequence[Wanted], min_similarity: float):
        self.wanted, self.min_similarity = wanted, min_similarity
        self.tracklets = Tracklets()
        self.numbers = count(1)  # of new tracklets
        self.began: float | None = None  # of the current span
        # The best picture of each tracklet in the current span, with its quality.
        self.best: dict[int, tuple[float, TrackedFrame]] = {}
        self.matched: set[tuple[int, str]] = set()

    def see(self, time: float, pixels: Tensor, people: Detections) -> Report | None:
        """Process the people of the next frame. Return what is to be written now, if anything."""
        numbers = self.tracklets.extend(time, people, self.numbers)
        seen = TrackedFrame(time, pixels, people, numbers)
        report = self.flush() if self._ends_span(time) else None
        self.began = time if self.began is None else self.began
        for number, quality in zip(seen.tracklets, seen.qualities):
            if quality > self.best.get(number, (-1.0,))[0]:
                self.best[number] = quality, seen
        if fired := self._fired(seen):
            return self._report([*(report.samples if report else []), *self._chosen(seen)], fired)
        return report

    def flush(self) -> Report | None:
        """End the current span. Return what is to be written, if anything."""
        samples = self._chosen()
        return self._report(samples, []) if samples else None

    def is_due(self, time: float) -> bool:
        """Return whether a span has ended even though no further frame has arrived."""
        return self._ends_span(time - EVERY)

    def _ends_span(self, time: float) -> bool:
        return self.began is not None and time - self.began >= EVERY

    def _fired(self, seen: TrackedFrame) -> list[Fired]:
        """Return the tracklets that match for the first time."""
        fired = []
        for wanted in self.wanted:
            similar = seen.people.weighted_embeddings @ wanted.query_embeddings.T
            for place, value in enumerate(similar.amax(1).tolist() if len(similar) else []):
                key = seen.tracklets[place], wanted.name
                if value >= self.min_similarity and key not in self.matched:
                    self.matched.add(key)
                    fired.append(Fired(wanted, seen, place, value))
        return fired

    def _chosen(self, *also: TrackedFrame) -> list[TrackedFrame]:
        """Select a few frames, including `also`, that show each tracklet of the span, and begin
        another span."""
        chosen, left = list(also), set(self.best)
        frames = {id(seen): seen for _, seen in self.best.values()}
        for seen in also:
            left -= set(seen.tracklets)
        while left:
            seen = max(frames.values(), key=lambda seen: self._gain(seen, left))
            chosen.append(seen)
            left -= set(seen.tracklets)
        self.best, self.began = {}, None
        return sorted(chosen, key=lambda seen: seen.time)

    def _gain(self, seen: TrackedFrame, left: Collection[int]) -> tuple[int, float]:
        new = [q for n, q in zip(seen.tracklets, seen.qualities) if n in left]
        return len(new), sum(new)

    def _report(self, samples: list[TrackedFrame], fired: list[Fired]) -> Report:
        active = frozenset(self.tracklets.numbers)
        self.matched = {key for key in self.matched if key[0] in active}
        return Report(samples, fired, active)
