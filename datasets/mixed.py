"""Training data of several datasets together: INPUT.EXTRA_TRAIN."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datasets.base import SearchDataset
from datasets.types import UNLABELED, Scene
from utils.errors import UserError
from utils.names import at_home, shown

Extra = tuple[str, str, float]  # INPUT.DATASET, INPUT.DATA_ROOT, share of its scenes in an epoch


def read_extras(items: Sequence) -> list[Extra]:
    """Check INPUT.EXTRA_TRAIN, a list of [DATASET, DATA_ROOT, SHARE].

    Raises:
        UserError: an item is not of this form, or its share is not above 0 and at most 100.
    """
    extras = []
    for item in items:
        form = [type(value) for value in item] if isinstance(item, list | tuple) else []
        if form not in ([str, str, float], [str, str, int]) or not 0 < item[2] <= 100:
            raise UserError(
                "INPUT.EXTRA_TRAIN: expected a list of [DATASET, DATA_ROOT, SHARE], with a share "
                f"above 0 and at most 100, found {shown(item)}"
            )
        extras.append((item[0], at_home(item[1]), float(item[2])))
    return extras


def with_training_scenes(
    dataset: SearchDataset, others: Sequence[tuple[SearchDataset, float]]
) -> SearchDataset:
    """Add the training scenes of other datasets, whose identities are different people.

    The gallery and the queries stay those of `dataset`, which may have no training scenes itself.
    `shares` of the result contains the number of scenes of each dataset that has some, in order,
    and the share of them that an epoch uses.

    Raises:
        UserError: if one of the others has no training images.
    """
    train, offset = list(dataset.train), dataset.num_pids
    shares = [(len(dataset.train), 1.0)] if dataset.train else []
    dropped = dataset.dropped.copy()
    for other, share in others:
        if not other.train:
            raise UserError(
                f"INPUT.EXTRA_TRAIN: {other.root}: expected training images, found none"
            )
        train += [_renumbered(scene, offset) for scene in other.train]
        shares.append((len(other.train), share))
        offset += other.num_pids
        for reason, number in other.dropped.items():
            dropped[f"{other.root}: {reason}"] += number
    return replace(dataset, train=train, num_pids=offset, shares=shares, dropped=dropped)


def _renumbered(scene: Scene, offset: int) -> Scene:
    pids = np.where(scene.pids == UNLABELED, UNLABELED, scene.pids + offset)
    return replace(scene, pids=pids)
