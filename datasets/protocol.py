"""Evaluation protocols: the gallery images of each query, and the boxes of its person in them."""

from dataclasses import dataclass

import numpy as np

from datasets.types import Query, Scene
from utils.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """Q queries over I gallery images. Each of the E entries is an image that shows a query's
    person.

    `listed` counts how often an image is in a query's list (the real TestG100 lists an image twice
    in four galleries); as in the release, each listing counts. An entry may have several boxes (PRW
    shows an identity twice in a few frames), each of which is a correct answer.
    """

    name: str  # e.g. "CUHK-SYSU gallery 100"
    queries: np.ndarray  # [Q] int64: indices into the dataset's queries
    listed: np.ndarray  # [Q, I] uint8
    query: np.ndarray  # [E] int64: row of `listed`
    image: np.ndarray  # [E] int64: column of `listed`
    box_entry: np.ndarray  # [B] int64: the entry of each box
    boxes: np.ndarray  # [B, 4] float32 x1 y1 x2 y2, pixels
    size: int | str = -1  # as EVAL_GALLERY_SIZE names it; -1 is the whole gallery
    unmatched: int = 0  # queries that are left out, since no image of theirs shows the person


def make_protocol(
    name: str,
    size: int | str,
    queries: np.ndarray,
    listed: np.ndarray,
    query: np.ndarray,
    image: np.ndarray,
    box_entry: np.ndarray,
    boxes: np.ndarray,
) -> Protocol:
    """Return a protocol without the queries that have no match, whose average precision is
    undefined.

    The arguments are the fields of `Protocol`.

    Raises:
        UserError: if no query has a match.
    """
    matched = np.bincount(query, minlength=len(queries)) > 0
    if not matched.any():
        raise UserError(f"{name}: none of its {len(queries)} queries has a match in its gallery")
    if not matched.all():  # every entry belongs to a matched query, so only rows are renumbered
        query = (np.cumsum(matched) - 1)[query]
        queries, listed = queries[matched], listed[matched]
    return Protocol(
        name, queries, listed, query, image, box_entry, boxes, size, int((~matched).sum())
    )


def other_images(queries: list[Query], gallery: list[Scene], cross_camera: bool) -> np.ndarray:
    """List for each query all images but its own, or only those of other cameras.

    Returns:
        `Protocol.listed`: [Q, I] uint8.
    """
    own = np.array([query.scene for query in queries])
    listed = np.ones((len(own), len(gallery)), np.uint8)
    listed[np.arange(len(own)), own] = 0
    if cross_camera:
        cameras = np.array([scene.camera for scene in gallery])
        listed[cameras[own][:, None] == cameras] = 0
    return listed


def find_people(
    queries: list[Query], gallery: list[Scene], listed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the identity of each query in its listed images.

    Args:
        queries: Q queries.
        gallery: I scenes.
        listed: [Q, I], see `Protocol`.

    Returns:
        The fields query, image, box_entry and boxes of `Protocol`.
    """
    boxes = np.concatenate([scene.boxes for scene in gallery])
    pids = np.concatenate([scene.pids for scene in gallery])
    images = np.repeat(np.arange(len(gallery)), [len(scene.pids) for scene in gallery])
    order = np.argsort(pids, kind="stable")
    wanted = np.array([query.pid for query in queries])
    first, last = (np.searchsorted(pids[order], wanted, side) for side in ("left", "right"))
    query = np.repeat(np.arange(len(queries)), last - first)
    box = order[np.concatenate([np.arange(a, b) for a, b in zip(first, last)])]
    keep = listed[query, images[box]] > 0
    query, box = query[keep], box[keep]
    entries, box_entry = np.unique(query * len(gallery) + images[box], return_inverse=True)
    return *np.divmod(entries, len(gallery)), box_entry, boxes[box]
