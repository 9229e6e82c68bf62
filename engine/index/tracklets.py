"""Linking of the people of a video or a live camera to tracklets, sample by sample."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from models.outputs import Detections

MIN_IOU = 0.1  # of a person's boxes in two samples; low, since people move between samples
MIN_SIMILARITY = 0.5  # inner product of the unit embeddings
MEMORY = 2.0  # seconds after which a person who was not seen starts a new tracklet
SPEED = 2.0  # heights of their box that a person moves in a second, at most: running


class Tracklets:
    """The last detection of each tracklet of one video or camera.

    Args:
        numbers: the tracklets, in any order.
        times: the second of each one's last detection.
        people: these detections.
    """

    def __init__(
        self,
        numbers: Sequence[int] = (),
        times: Sequence[float] = (),
        people: Detections | None = None,
    ):
        self.numbers = list(numbers)
        self.times = torch.tensor(times, dtype=torch.float64)
        self.people = people

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
        positions = link(self.people, now, time - self.times)
        return [self.numbers[i] if i >= 0 else None for i in positions.tolist()]

    def add(self, time: float, now: Detections, numbers: Sequence[int]) -> None:
        """Add the sample at `time`, whose people belong to the tracklets `numbers`.

        Tracklets that are in neither this sample nor the last MEMORY seconds are dropped.
        """
        if self.people is None:
            self.people = now[:0]
        others = [number not in numbers for number in self.numbers]
        kept = torch.tensor(others, dtype=torch.bool) & (self.times >= time - MEMORY)
        before = self.people[kept]
        self.numbers = [n for n, keep in zip(self.numbers, kept.tolist()) if keep] + list(numbers)
        added = torch.full((len(numbers),), time, dtype=torch.float64)  # seconds since 1970 need it
        self.times = torch.cat([self.times[kept], added])
        self.people = Detections(
            torch.cat([before.boxes, now.boxes]),
            torch.cat([before.scores, now.scores]),
            torch.cat([before.embeddings, now.embeddings]),
        )


def link(before: Detections, now: Detections, seconds: Tensor | None = None) -> np.ndarray:
    """Assign the people of a sample to people who were seen before.

    A pair needs a similarity of at least MIN_SIMILARITY. In addition, its intersection over union
    must be at least MIN_IOU, or the distance between the centres must be one that a walking person
    covers in the time. Of all assignments, the one with the most pairs is chosen, and among these
    the one with the largest sum of overlap and similarity. Embeddings are of unit length.

    Args:
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
    near = overlap >= MIN_IOU
    if seconds is not None:
        near |= _in_reach(now.boxes, before.boxes, seconds)
    allowed = near & (similarity >= MIN_SIMILARITY)
    bonus = 2 * len(positions)  # per pair: more than all overlaps and similarities together
    gain = np.where(allowed, bonus + overlap + similarity, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = allowed[rows, columns]
    positions[rows[kept]] = columns[kept]
    return positions


def _in_reach(now: Tensor, before: Tensor, seconds: Tensor) -> np.ndarray:
    """Return whether a person may have walked from one box to the other, [n, b] bool."""
    centres, earlier = (now[:, :2] + now[:, 2:]) / 2, (before[:, :2] + before[:, 2:]) / 2
    heights = torch.minimum((now[:, 3] - now[:, 1])[:, None], before[:, 3] - before[:, 1])
    reach = SPEED * seconds.where(seconds <= MEMORY, 0) * heights
    return (torch.cdist(centres, earlier) <= reach).numpy()
