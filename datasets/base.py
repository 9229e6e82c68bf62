"""The interface of a person search dataset, and functions that all readers of annotation files
share."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from datasets.mat import cells, load, reading, text
from datasets.protocol import Protocol
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError

GALLERY_SIZE = 100  # images of the usual gallery: the default of EVAL_GALLERY_SIZE


@dataclass
class SearchDataset(ABC):
    """A dataset's training scenes, gallery scenes and queries, in the order of the release."""

    name: str
    root: str
    train: list[Scene]
    gallery: list[Scene]
    queries: list[Query]
    num_pids: int  # training identities
    dropped: Counter = field(default_factory=Counter)  # irregular annotations, by reason
    # (scenes, share) for each part of `train`, in order: see datasets/mixed.py; empty: one part
    shares: list[tuple[int, float]] = field(default_factory=list)

    def check_training(self) -> None:
        """Raise UserError if there are no training images or no identities."""
        if not self.train or not self.num_pids:
            raise UserError(
                f"{self.name} in {self.root}: expected training images of identities, "
                f"found {len(self.train)} images and {self.num_pids} identities"
            )

    @abstractmethod
    def protocol(
        self,
        gallery_size: int | str = GALLERY_SIZE,
        cross_camera: bool = False,
        query_file: str = "",
    ) -> Protocol:
        """Return which images each query searches.

        Args:
            gallery_size: Number of images, or the name of a subset of CUHK-SYSU; -1: all.
            cross_camera: Search images of other cameras only.
            query_file: A file in the dataset's folder that lists the queries to use; "": all.
        """

    @abstractmethod
    def choices(self) -> list[dict]:
        """Return the arguments that `protocol` accepts, given the files that exist."""


def digest(scenes: list[Scene]) -> str:
    """Return a digest of the names, boxes, identities and scores of scenes, in their order."""
    content = hashlib.sha1()
    for scene in scenes:
        content.update(scene.name.encode(errors="surrogateescape"))
        content.update(scene.boxes.tobytes() + scene.pids.tobytes())
        content.update(b"" if scene.scores is None else scene.scores.tobytes())
    return content.hexdigest()[:10]


def pictures_digest(scenes: list[Scene]) -> str:
    """Return a digest of the pictures of scenes, which changes if a picture is replaced by another
    one.

    It covers the size and the last 4 KiB of each file, so that it takes seconds for 10,000
    pictures. Compressed formats differ there: JPEG encodes a block relative to the one before it,
    and PNG ends with a checksum. The result is "" if one of them cannot be read.
    """
    with ThreadPoolExecutor(16) as pool:  # a network file system answers several requests at once
        ends = list(pool.map(end_of_file, [scene.path for scene in scenes]))
    return hashlib.sha1(b"".join(ends)).hexdigest()[:10] if all(ends) else ""


def end_of_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4096))
            return b"%d %b" % (size, hashlib.sha1(file.read()).digest())
    except OSError:
        return b""


def name_list(
    path: str, variable: str, dropped: Counter, find: Callable[[str], str] = str
) -> list[str]:
    """Read a cell array of image names.

    Args:
        path: The file.
        variable: The name of the array.
        dropped: Counts the names that are listed twice.
        find: Returns the file of a name.

    Returns:
        Each file once, in the order of the list.
    """
    with reading(path):
        names = [find(text(c)) for c in cells(load(path, variable))]
    unique = list(dict.fromkeys(names))
    count(dropped, f"{os.path.basename(path)}: image listed twice", len(names) - len(unique))
    return unique


def count(dropped: Counter, reason: str, number: int) -> None:
    """Add `number` to the counter `dropped` under a reason, unless the number is 0."""
    if number:
        dropped[reason] += int(number)


def check_root(dataset: str, root: str, needed: str) -> None:
    """Raise UserError if the folder `needed` of a dataset does not exist in `root`."""
    if not os.path.isdir(os.path.join(root, needed)):
        raise UserError(
            f"{dataset}: no folder {needed}/ in {os.path.abspath(root)} (INPUT.DATA_ROOT); put the "
            "dataset there (see README), or generate one: python -m tools.make_synthetic"
        )


def corners(xywh: np.ndarray) -> np.ndarray:
    """Convert boxes [n, 4] x y w h to [n, 4] float32 x1 y1 x2 y2, clipped at 0."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).clip(0).astype(np.float32)


def has_area(xywh: np.ndarray) -> np.ndarray:
    """Return whether the width and height of boxes [n, 4] x y w h are positive, [n] bool."""
    return np.all(xywh[:, 2:] > 0, axis=1)


def make_scenes(
    split: str,
    names: list[str],
    folder: str,
    xywh: list[np.ndarray],
    pids: list[np.ndarray],
    cameras: list[int],
    dropped: Counter,
    scores: list[np.ndarray] | None = None,
) -> list[Scene]:
    """Build the scenes of a split without unusable boxes.

    Args:
        split: "train" or "test", for the reasons in `dropped`.
        names: Of the images, as files in `folder`.
        folder: Where they are.
        xywh: The boxes of each image, [n, 4] x y w h in pixels.
        pids: The identities of each image, [n].
        cameras: The camera of each image.
        dropped: Counts the boxes that are dropped or clipped, by reason.
        scores: Of the boxes of each image, [n]; None: all 1.
    """
    if not names:
        return []
    every = np.concatenate(xywh).reshape(-1, 4).astype(np.float64)
    boxes = corners(every)
    sized = has_area(every)
    keep = sized & (boxes[:, 2:] > boxes[:, :2]).all(1)
    count(dropped, f"{split}: box without area, dropped", (~sized).sum())
    count(dropped, f"{split}: box outside the image, dropped", (sized & ~keep).sum())
    count(dropped, f"{split}: negative corner, clipped", (every[keep, :2] < 0).any(1).sum())
    ends = np.cumsum([len(x) for x in xywh])[:-1]
    rows = np.split(np.arange(len(every)), ends)
    labels = np.concatenate(pids).astype(np.int64)
    kept = [r[keep[r]] for r in rows]
    scene_scores: list[np.ndarray | None] = [None] * len(names)
    if scores is not None:
        sure = np.concatenate(scores).astype(np.float32)
        scene_scores = [sure[r] if (sure[r] < 1).any() else None for r in kept]
    return [
        Scene(name, os.path.join(folder, name), boxes[r], labels[r], camera, scores=score)
        for name, r, camera, score in zip(names, kept, cameras, scene_scores)
    ]


def number_identities(scenes: list[Scene]) -> tuple[list[Scene], int]:
    """Renumber the training identities (in PRW 1-478, 480-483, 932) to 1..N in their order.

    Returns:
        The scenes with the new identities, and N.
    """
    pids = [s.pids for s in scenes]
    raw = np.unique(np.concatenate(pids)) if pids else np.zeros(0, np.int64)
    raw = raw[raw != UNLABELED]
    numbered = [np.where(p == UNLABELED, UNLABELED, np.searchsorted(raw, p) + 1) for p in pids]
    return [replace(scene, pids=p) for scene, p in zip(scenes, numbered)], len(raw)
