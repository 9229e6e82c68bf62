"""The features cache of an evaluation, OUTPUT_DIR/eval_cache.pth: its format and its validation.

The file is a dict of lists of float32 tensors in the order of the dataset:

    gallery_dets     for each gallery image [n, 5] x1 y1 x2 y2 score
    gallery_feats    for each gallery image [n, D] embeddings, scaled by the score
    query_box_feats  for each query [D], its unit embedding
    query_dets       for each query [n, 5]: its own box, and with CBGM the people around it
    query_feats      for each query [n, D], their embeddings

"made" holds the settings and data that the features depend on, see `made_from`.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

from configs.ranges import flatten
from datasets.base import SearchDataset, pictures_digest
from engine.metadata import inference_keys
from utils.errors import UserError
from utils.files import load_file
from utils.names import shown
from utils.states import plain

CACHE = "eval_cache.pth"
LISTS = ("gallery_dets", "gallery_feats", "query_dets", "query_feats", "query_box_feats")
Cache = dict[str, list[Tensor]]


def made_from(dataset: SearchDataset, cfg: CfgNode, weights: str | None) -> dict[str, Any]:
    """Return the settings and data on which the features depend.

    Args:
        weights: digest of the network's weights, if it is known.
    """
    digest = hashlib.sha1()
    for scene in dataset.gallery:
        digest.update(scene.name.encode(errors="surrogateescape") + scene.boxes.tobytes())
    for query in dataset.queries:
        digest.update(query.scene.to_bytes(4, "little") + query.box.tobytes())
    mark = (
        f"{dataset.name} of {len(dataset.gallery)} gallery images, {len(dataset.queries)} "
        f"queries, annotations {digest.hexdigest()[:10]}"
    )
    values = flatten(cfg)
    return {
        "dataset": mark,
        "pictures": pictures_digest(dataset.gallery),
        **({} if weights is None else {"weights": weights}),
        **{key: values[key] for key in ("EVAL_USE_GT", "EVAL_USE_CBGM", *inference_keys(cfg))},
    }


def load_cache(
    path: Path, dataset: SearchDataset, cfg: CfgNode, weights: str | None = None
) -> Cache:
    """Read the cache at `path`.

    Facts that the file does not record are not compared; the five lists alone are a valid cache.

    Args:
        weights: digest of the required weights; None: any.

    Raises:
        UserError: if the file is missing, damaged, or of another dataset, network or settings.
    """
    cache, where = load_file(path, "EVAL_USE_CACHE"), f"EVAL_USE_CACHE {path}"
    made = cache.get("made", {})
    if not isinstance(made, dict):
        raise UserError(f"{where}: made: expected a dict, found {type(made).__name__}")
    for key, value in made_from(dataset, cfg, weights).items():
        # An evaluation without CBGM ignores the people around; without images there is no digest.
        enough = made.get(key) if key == "EVAL_USE_CBGM" else key == "pictures" and not value
        if made.get(key, value) != value and not enough:
            found = made[key] if type(made[key]) is type(value) else shown(made[key])
            raise UserError(f"{where}: {key}: expected {value}, found {found}")
    check_cache(cache, dataset, where)
    return cache


def check_cache(cache: dict, dataset: SearchDataset, where: str) -> None:
    """Check the shapes, types and numbers of a cache.

    Raises:
        UserError: naming the first list or tensor that does not fit.
    """
    missing = [key for key in LISTS if not isinstance(cache.get(key), list)]
    if missing:
        raise UserError(
            f"{where}: expected lists {', '.join(LISTS)}; found none for {', '.join(missing)}"
        )
    for key in LISTS:
        expected = len(dataset.gallery) if key.startswith("gallery") else len(dataset.queries)
        if len(cache[key]) != expected:
            raise UserError(
                f"{where}: {key}: expected {expected} entries for {dataset.name} in "
                f"{dataset.root}, found {len(cache[key])}"
            )
    width = next(iter(getattr(cache["query_box_feats"][0], "shape", ())), "D")
    for i, feat in enumerate(cache["query_box_feats"]):
        _expect(feat, (width,), f"{where}: query_box_feats[{i}]")
    for kind in ("gallery", "query"):
        for i, (dets, feats) in enumerate(zip(cache[f"{kind}_dets"], cache[f"{kind}_feats"])):
            _expect(dets, ("n", 5), f"{where}: {kind}_dets[{i}]")
            _expect(feats, (len(dets), width), f"{where}: {kind}_feats[{i}]")
            if kind == "query" and not len(dets):
                raise UserError(
                    f"{where}: query_dets[{i}]: expected the query's own box first, found no box"
                )


def _expect(value, shape: tuple[int | str, ...], what: str) -> None:
    """Raise UserError unless `value` is a finite float32 tensor of `shape`; "n" is any length."""
    if (
        isinstance(value, Tensor)
        and plain(value)
        and value.dtype == torch.float32
        and len(shape) == value.ndim
        and all(want in ("n", size) for want, size in zip(shape, value.shape))
    ):
        if value.isfinite().all():
            return
        raise UserError(f"{what}: expected finite numbers, found NaN or infinity")
    found = type(value).__name__
    if isinstance(value, Tensor):
        found = f"{value.dtype} {list(value.shape)}"
    raise UserError(f"{what}: expected torch.float32 [{', '.join(map(str, shape))}], found {found}")
