"""Person search datasets. A new dataset is a module with a `load(root)` and a line here."""

from collections.abc import Sequence

from datasets import coco, cuhk_sysu, prw
from datasets.base import SearchDataset
from datasets.mixed import read_extras, with_training_scenes
from datasets.protocol import Protocol
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError

DATASETS = {"CUHK-SYSU": cuhk_sysu.load, "PRW": prw.load, "COCO": coco.load}

__all__ = ["DATASETS", "UNLABELED", "Protocol", "Query", "Scene", "SearchDataset", "load_dataset"]


def load_dataset(name: str, root: str, extra_train: Sequence = ()) -> SearchDataset:
    """Load the annotations of a dataset. Images are read when they are used.

    Args:
        extra_train: INPUT.EXTRA_TRAIN, further datasets whose training scenes are added.
    """
    dataset = _load(name, root, "INPUT.DATASET")
    extras = read_extras(extra_train)
    if not extras:
        return dataset
    others = [(_load(kind, path, "INPUT.EXTRA_TRAIN"), share) for kind, path, share in extras]
    return with_training_scenes(dataset, others)


def _load(name: str, root: str, key: str) -> SearchDataset:
    if name not in DATASETS:
        raise UserError(f"{key}: expected {' or '.join(DATASETS)}, found {name!r}")
    return DATASETS[name](root)
