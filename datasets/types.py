"""The content of a person search dataset: scenes, queries and the label of unlabelled people.

Labels: 0 is background, 1..N are the training identities in order, UNLABELED all other people.
"""

from dataclasses import dataclass

import numpy as np

UNLABELED = 2**31 - 1


@dataclass(frozen=True)
class Scene:
    """One image of a split and the people in it."""

    name: str
    path: str
    # [n, 4] float32 x1 y1 x2 y2, pixels; clipped at 0 only: the image is not read
    boxes: np.ndarray
    pids: np.ndarray  # [n] int64; training: 1..N or UNLABELED; test: raw identity or UNLABELED
    camera: int  # 1..; 0 unknown, as in CUHK-SYSU
    upright: bool = False  # boxes refer to the image after its EXIF orientation, not as stored
    size: tuple[int, int] | None = None  # width, height that the annotation file records, if any
    # [n] float32 in 0..1, how sure it is that a box is a person; 0: an ignore region; None: all 1
    scores: np.ndarray | None = None

    def people(self, min_score: float) -> np.ndarray:
        """Return which boxes are people in training, [n] bool; the others are ignore regions."""
        if self.scores is None:
            return np.ones(len(self.boxes), bool)
        return (self.scores >= min_score) & (self.scores > 0)


@dataclass(frozen=True)
class Query:
    """A person to search for. Query images are gallery images."""

    scene: int  # index in the gallery
    box: np.ndarray  # [4] float32 x1 y1 x2 y2, pixels
    pid: int
