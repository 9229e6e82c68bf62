"""Person search datasets; a new one is a module with a `load(root)` and a line here."""

from datasets import coco, cuhk_sysu, prw
from datasets.base import SearchDataset
from datasets.protocol import Protocol
from datasets.types import UNLABELED, Query, Scene
from utils.errors import UserError

DATASETS = {"CUHK-SYSU": cuhk_sysu.load, "PRW": prw.load, "COCO": coco.load}

__all__ = ["DATASETS", "UNLABELED", "Protocol", "Query", "Scene", "SearchDataset", "load_dataset"]


def load_dataset(name: str, root: str) -> SearchDataset:
    """Load the annotations of a dataset; images are read when they are used."""
    if name not in DATASETS:
        raise UserError(f"INPUT.DATASET: expected {' or '.join(DATASETS)}, found {name!r}")
    return DATASETS[name](root)
