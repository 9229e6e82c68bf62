"""All tracklets of an index; every person of a picture has one of their own."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.index.people import HIDDEN, People
from engine.index.records import camera_of

INSIDE = 0.8  # share of a box within another from which on both boxes may show one person
SLACK = 1.0  # seconds by which two cameras' views of one person may overlap: their clocks differ


@dataclass(frozen=True)
class TrackletTable:
    """All tracklets of an index in ascending order. Each person in a picture has a tracklet of
    their own.

    Attributes:
        tracklets: [n] int.
        sources: [n] int, positions in `paths`.
        first, last: [n] seconds; NaN for pictures.
        scores: [n], the highest score of a detection.
        means: [n, D] float32, unit: the mean of the embeddings.
        doubled: [k, 2] pairs of tracklets that may show one person in two boxes at the same time,
            for example the whole person and their upper part.
        until: the last tracklet that was given when the table was read.
    """

    tracklets: np.ndarray
    sources: np.ndarray
    first: np.ndarray
    last: np.ndarray
    scores: np.ndarray
    means: np.ndarray
    paths: list[Path]
    doubled: np.ndarray
    until: int

    def __getitem__(self, keep: np.ndarray) -> "TrackletTable":
        return replace(
            self,
            tracklets=self.tracklets[keep],
            sources=self.sources[keep],
            first=self.first[keep],
            last=self.last[keep],
            scores=self.scores[keep],
            means=self.means[keep],
        )

    def __len__(self) -> int:
        return len(self.tracklets)


def read_tracklets(people: People) -> TrackletTable:
    """Read the tracklets of all sources, without hidden versions."""
    until = people.last_given()
    rows = people.select(
        "SELECT appearance, path, MIN(time), MAX(time), MAX(score) FROM people "
        "JOIN sources ON source = sources.id GROUP BY appearance ORDER BY appearance"
    )
    rows = [row for row in rows if not row[1].endswith(HIDDEN)]
    tracklets = np.array([row[0] for row in rows], np.int64)
    place = {path: i for i, path in enumerate(dict.fromkeys(row[1] for row in rows))}
    return TrackletTable(
        tracklets,
        np.array([place[row[1]] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[4] for row in rows], np.float64),
        _means(people, tracklets),
        [Path(os.fsdecode(path)) for path in place],
        np.array(people.select(_DOUBLED, [INSIDE]), np.int64).reshape(-1, 2),
        until,
    )


def _means(people: People, tracklets: np.ndarray) -> np.ndarray:
    owner = dict(people.select("SELECT id, appearance FROM people"))
    sums: np.ndarray | None = None
    for ids, rows in people.embeddings():
        sums = np.zeros((len(tracklets), rows.shape[1]), np.float32) if sums is None else sums
        of = np.array([owner.get(id, -1) for id in ids.tolist()])
        at = np.searchsorted(tracklets, of).clip(0, max(len(tracklets) - 1, 0))
        kept = tracklets[at] == of if len(tracklets) else np.zeros(len(of), bool)
        np.add.at(sums, at[kept], rows[kept])
    if sums is None:
        return np.zeros((0, 0), np.float32)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)


def apart(one: TrackletTable, two: TrackletTable, overlapping: Collection[str] = ()) -> np.ndarray:
    """Return which tracklets are certainly of different people, [n, m] bool.

    These are two tracklets in one picture, in one video at the same time, or for more than a second
    at the same time in two cameras that do not overlap. Two boxes of which one lies within the
    other may show the same person.

    Args:
        overlapping: names of cameras that see the same place, so that one person can be in several.
    """
    same = one.sources[:, None] == two.sources
    seconds = np.minimum(one.last[:, None], two.last) - np.maximum(one.first[:, None], two.first)
    names = [camera_of(path) for path in one.paths]
    camera = np.array([name is not None for name in names], bool)
    shared = np.array([name in overlapping for name in names], bool)
    both = camera[one.sources][:, None] & camera[two.sources]
    both &= ~(shared[one.sources][:, None] & shared[two.sources])
    together = np.isnan(seconds) | (seconds >= 0)
    different = (same & together) | (~same & both & (seconds > SLACK))
    for pairs in (one.doubled, one.doubled[:, ::-1]):
        rows, columns = _places(one.tracklets, pairs[:, 0]), _places(two.tracklets, pairs[:, 1])
        here = (rows >= 0) & (columns >= 0)
        different[rows[here], columns[here]] = False
    return different


def _places(tracklets: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the positions of `wanted` in `tracklets`, -1 for those that are not there."""
    if not len(tracklets):
        return np.full(len(wanted), -1)
    order = np.argsort(tracklets)
    at = order[np.searchsorted(tracklets, wanted, sorter=order).clip(max=len(order) - 1)]
    return np.where(tracklets[at] == wanted, at, -1)


# Pairs of tracklets of which, in most samples that show both, one box lies within the other.
_DOUBLED = """
SELECT a.appearance, b.appearance FROM people a JOIN people b
ON a.source = b.source AND a.time IS b.time AND a.appearance < b.appearance
GROUP BY a.appearance, b.appearance HAVING 2 * SUM(
    MAX(MIN(a.x2, b.x2) - MAX(a.x1, b.x1), 0) * MAX(MIN(a.y2, b.y2) - MAX(a.y1, b.y1), 0)
    >= ? * MIN((a.x2 - a.x1) * (a.y2 - a.y1), (b.x2 - b.x1) * (b.y2 - b.y1))) > COUNT(*)
"""
