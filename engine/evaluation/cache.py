"""The features cache of an evaluation, OUTPUT_DIR/eval_cache.pth: what it holds, and is it right.

A dict of lists of float32 tensors in the dataset's order, n people and D numbers for each:
gallery_dets [n, 5] x1 y1 x2 y2 score and gallery_feats [n, D] (scaled by the score) per gallery
image; query_box_feats [D], query_dets [n, 5] and query_feats [n, D] per query, its own box first,
and only it unless CBGM asked for the people around. "made" says from what: see `made_from`.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from datasets.base import SearchDataset
from utils.errors import UserError
from utils.files import load_file
from utils.states import plain

CACHE = "eval_cache.pth"
LISTS = ("gallery_dets", "gallery_feats", "query_dets", "query_feats", "query_box_feats")
Cache = dict[str, list[Tensor]]


def made_from(dataset: SearchDataset, use_gt: bool, cbgm: bool) -> dict[str, str | bool]:
    """What decides whether a cache serves an evaluation."""
    digest = hashlib.sha1()
    for scene in dataset.gallery:
        digest.update(scene.name.encode(errors="surrogateescape") + scene.boxes.tobytes())
    for query in dataset.queries:
        digest.update(query.scene.to_bytes(4, "little") + query.box.tobytes())
    mark = (
        f"{dataset.name} of {len(dataset.gallery)} gallery images, {len(dataset.queries)} "
        f"queries, annotations {digest.hexdigest()[:10]}"
    )
    return {"dataset": mark, "EVAL_USE_GT": use_gt, "EVAL_USE_CBGM": cbgm}


def load_cache(path: Path, dataset: SearchDataset, use_gt: bool, cbgm: bool) -> Cache:
    """The cache at `path`; UserError where it is missing, damaged, of another dataset, or made for
    other settings. Only what is recorded is compared: a cache of the five lists alone will do."""
    cache, where = load_file(path, "EVAL_USE_CACHE"), f"EVAL_USE_CACHE {path}"
    made, wanted = cache.get("made", {}), made_from(dataset, use_gt, cbgm)
    if not isinstance(made, dict):
        raise UserError(f"{where}: made: expected a dict, found {type(made).__name__}")
    for key, value in wanted.items():
        enough = key == "EVAL_USE_CBGM" and made.get(key)  # the people around do no harm
        if made.get(key, value) != value and not enough:
            raise UserError(f"{where}: expected {key} {value}, found one made with {made[key]}")
    check_cache(cache, dataset, where)
    return cache


def check_cache(cache: dict, dataset: SearchDataset, where: str) -> None:
    """UserError naming the first list or tensor that does not fit."""
    missing = [key for key in LISTS if not isinstance(cache.get(key), list)]
    if missing:
        raise UserError(
            f"{where}: expected lists {', '.join(LISTS)}; found none for {', '.join(missing)}"
        )
    for key in LISTS:
        wanted = len(dataset.gallery) if key.startswith("gallery") else len(dataset.queries)
        if len(cache[key]) != wanted:
            raise UserError(
                f"{where}: {key}: expected {wanted} entries for {dataset.name} in "
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
                    f"{where}: query_dets[{i}]: expected the query's own box first, found nothing"
                )


def _expect(value, shape: tuple[int | str, ...], what: str) -> None:
    """UserError unless a finite float32 tensor of that shape, "n" being any length."""
    if (
        isinstance(value, Tensor)
        and plain(value)
        and value.dtype == torch.float32
        and len(shape) == value.ndim
        and all(want in ("n", size) for want, size in zip(shape, value.shape))
    ):
        if value.isfinite().all():
            return
        raise UserError(f"{what}: expected finite numbers, found others among them")
    found = type(value).__name__
    if isinstance(value, Tensor):
        found = f"{value.dtype} {list(value.shape)}"
    raise UserError(f"{what}: expected torch.float32 [{', '.join(map(str, shape))}], found {found}")
