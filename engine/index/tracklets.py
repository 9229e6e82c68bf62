"""Linking of the people of a video or a live camera to tracklets, sample by sample."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from models.outputs import Detections

MIN_IOU = 0.1  # of a person's box and the expected one; low, since people move between samples
MIN_SIMILARITY = 0.5  # inner product of the unit embeddings, if the boxes overlap so much
MIN_SIMILARITY_APART = 0.8  # if they do not
SIMILARITY_WEIGHT = 3.0  # of the similarity of a pair relative to its overlap
NEWEST = 0.2  # share of the newest detection in a tracklet's velocity and mean embedding
MEMORY = 2.0  # seconds after which a person who was not seen starts a new tracklet
SPEED = 2.0  # heights of their box by which a person is away from the expected place in a second
SHORTEST = 1e-3  # seconds between two samples, for the velocity


class Tracklets:
    """The current tracklets of one video or camera.

    Attributes:
        numbers: [n] of the tracklets, in any order.
        times: [n] the second of each one's last detection.
        people: these detections, with each tracklet's mean embedding.
        velocities: [n, 2] of the boxes' centres, in pixels per second.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.times = torch.zeros(0, dtype=torch.float64)  # seconds since 1970 need it
        self.people: Detections | None = None
        self.velocities = torch.zeros(0, 2)

    def extend(self, time: float, now: Detections, numbers: Iterator[int]) -> list[int]:
        """Link the people of the sample at `time`, add it, and return their tracklets.

        New tracklets get the next of `numbers`.
        """
        linked = self.link(time, now)
        given = [next(numbers) if number is None else number for number in linked]
        self.add(time, now, given)
        return given

    def link(self, time: float, now: Detections) -> list[int | None]:
        """Return the tracklet of each person who is seen at `time`; None for a new tracklet."""
        if self.people is None:
            return [None] * len(now.boxes)
        seconds = time - self.times
        moved = self.velocities * _known(seconds)[:, None]
        boxes = self.people.boxes + moved.repeat(1, 2).float()
        positions = link(replace(self.people, boxes=boxes), now, seconds)
        return [self.numbers[i] if i >= 0 else None for i in positions.tolist()]

    def add(self, time: float, now: Detections, numbers: Sequence[int]) -> None:
        """Add the sample at `time`, whose people belong to the tracklets `numbers`.

        Tracklets that are in neither this sample nor the last MEMORY seconds are dropped.
        """
        if self.people is None:
            self.people = now[:0]
        velocities, embeddings = self._updated(time, now, numbers)
        others = [number not in numbers for number in self.numbers]
        kept = torch.tensor(others, dtype=torch.bool) & (self.times >= time - MEMORY)
        before = self.people[kept]
        self.numbers = [n for n, keep in zip(self.numbers, kept.tolist()) if keep] + list(numbers)
        added = torch.full((len(numbers),), time, dtype=torch.float64)
        self.times = torch.cat([self.times[kept], added])
        self.velocities = torch.cat([self.velocities[kept], velocities])
        self.people = Detections(
            torch.cat([before.boxes, now.boxes]),
            torch.cat([before.scores, now.scores]),
            torch.cat([before.embeddings, embeddings]),
        )

    def _updated(
        self, time: float, now: Detections, numbers: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return velocities and mean embeddings that include the detections of a sample."""
        assert self.people is not None
        velocities, embeddings = torch.zeros(len(numbers), 2), now.embeddings.clone()
        place = {number: i for i, number in enumerate(self.numbers)}
        here = [i for i, number in enumerate(numbers) if number in place]
        before = [place[numbers[i]] for i in here]
        seconds = (time - self.times[before]).clamp(min=SHORTEST).float()
        moved = _centres(now.boxes[here]) - _centres(self.people.boxes[before])
        newest = moved / seconds[:, None]
        velocities[here] = torch.lerp(self.velocities[before], newest, NEWEST)
        mean = torch.lerp(self.people.embeddings[before], now.embeddings[here], NEWEST)
        embeddings[here] = torch.nn.functional.normalize(mean)
        return velocities, embeddings


def link(before: Detections, now: Detections, seconds: Tensor | None = None) -> np.ndarray:
    """Assign the people of a sample to people who were seen before.

    A pair needs an intersection over union of at least MIN_IOU and a similarity of at least
    MIN_SIMILARITY; or centres so near that a person covers the distance in the time, and a
    similarity of at least MIN_SIMILARITY_APART. Of all assignments, the one with the largest sum of
    overlap and weighted similarity is chosen. Embeddings are of unit length.

    Args:
        before: people with the boxes in which they are expected now.
        seconds: [b] time since each of the b people of `before` was seen; None: unknown, which
            requires the overlap.

    Returns:
        [n] int: for each of the n people of `now` the position in `before`, -1 if there is none.
    """
    positions = np.full(len(now.boxes), -1)
    if not len(positions) or not len(before.boxes):
        return positions
    overlap = box_iou(now.boxes, before.boxes).numpy()
    similarity = (now.embeddings @ before.embeddings.T).numpy()
    allowed = (overlap >= MIN_IOU) & (similarity >= MIN_SIMILARITY)
    if seconds is not None:
        near = _in_reach(now.boxes, before.boxes, seconds)
        allowed |= near & (similarity >= MIN_SIMILARITY_APART)
    gain = np.where(allowed, overlap + SIMILARITY_WEIGHT * similarity, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = allowed[rows, columns]
    positions[rows[kept]] = columns[kept]
    return positions


def _in_reach(now: Tensor, before: Tensor, seconds: Tensor) -> np.ndarray:
    """Return whether a person may have moved from one box to the other, [n, b] bool."""
    heights = torch.minimum((now[:, 3] - now[:, 1])[:, None], before[:, 3] - before[:, 1])
    reach = SPEED * _known(seconds) * heights
    return (torch.cdist(_centres(now), _centres(before)) <= reach).numpy()


def _known(seconds: Tensor) -> Tensor:
    """Return the seconds for which a movement is assumed: none for people who were not seen for
    longer than MEMORY."""
    return seconds.where(seconds <= MEMORY, 0)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
