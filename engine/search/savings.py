"""The work that proposed labels save: boxes and names that need no correction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_convert, box_iou

from datasets.importers.records import Box

FOUND = 0.5  # IoU from which a proposed box is a person's, to be moved at most


@dataclass(frozen=True)
class Savings:
    """Numbers of boxes in the images that were compared.

    Proposed and true identities are matched one to one. A proposed name is right if its identity is
    matched to the true one.
    """

    images: int
    true: int  # true boxes
    kept: int  # of these: proposed so, they need no correction
    moved: int  # proposed, but less exactly
    drawn: int  # not proposed
    removed: int  # proposed boxes without a person
    named: int  # true boxes with an identity
    right: int  # of these: proposed with the right name
    true_people: int
    proposed_people: int


def compare(pairs: Sequence[tuple[list[Box], list[Box]]], exact: float) -> Savings:
    """Compare proposed with true boxes.

    Args:
        pairs: the proposed and the true boxes of each image.
        exact: the IoU from which on a proposed box needs no correction.
    """
    overlaps: list[float] = []
    names: Counter = Counter()
    for proposed, true in pairs:
        for overlap, one, other in matched(proposed, true):
            overlaps.append(overlap)
            names[one.name, identity_of(other)] += 1
    everyone = [box for _, true in pairs for box in true]
    count = sum(len(proposed) for proposed, _ in pairs)
    kept = sum(overlap >= exact for overlap in overlaps)
    return Savings(
        images=len(pairs),
        true=len(everyone),
        kept=kept,
        moved=len(overlaps) - kept,
        drawn=len(everyone) - len(overlaps),
        removed=count - len(overlaps),
        named=sum(identity_of(box) is not None for box in everyone),
        right=right_names(names),
        true_people=len({identity_of(box) for box in everyone} - {None}),
        proposed_people=len({box.name for proposed, _ in pairs for box in proposed}),
    )


def identity_of(box: Box) -> str | None:
    return box.name or box.track


def matched(proposed: list[Box], true: list[Box]) -> list[tuple[float, Box, Box]]:
    """Return pairs of a proposed and a true box, one to one, with the largest total overlap."""
    if not proposed or not true:
        return []
    corners = [
        box_convert(torch.tensor([box.xywh for box in boxes]), "xywh", "xyxy")
        for boxes in (proposed, true)
    ]
    overlap = box_iou(*corners).numpy()
    overlap = np.where(overlap >= FOUND, overlap, 0)
    pairs = zip(*linear_sum_assignment(overlap, maximize=True))
    return [(float(overlap[i, j]), proposed[i], true[j]) for i, j in pairs if overlap[i, j] > 0]


def right_names(names: Counter) -> int:
    """Return the number of boxes with a right name.

    Args:
        names: pairs of the proposed and the true name of each box that has both.
    """
    labelled = [pair for pair in names if pair[1] is not None]
    rows = {name: row for row, name in enumerate(dict.fromkeys(one for one, _ in labelled))}
    columns = {name: row for row, name in enumerate(dict.fromkeys(two for _, two in labelled))}
    table = np.zeros((len(rows), len(columns)), int)
    for one, two in labelled:
        table[rows[one], columns[two]] = names[one, two]
    return int(table[linear_sum_assignment(table, maximize=True)].sum())
