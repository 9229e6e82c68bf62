"""Evaluation of a network or of a features cache."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image
from yacs.config import CfgNode

from datasets.base import SearchDataset
from datasets.loaders import SceneDataset
from datasets.protocol import Protocol
from datasets.types import UNLABELED
from engine.device import precision_of
from engine.distributed import from_all, from_first, rank, ranks
from engine.evaluation import metrics
from engine.evaluation.cache import CACHE, Cache, check_cache, load_cache, made_from
from engine.evaluation.extract import collect, extract
from engine.evaluation.metrics import SEARCH_SCORE
from engine.evaluation.records import NUMBERS, RESULTS
from engine.evaluation.report import report
from models.fast.inference import optimize_for_inference
from models.network import Network
from utils.drawing import draw_boxes
from utils.files import make_folder, save_file, write_text

DETECTION_SCORE = 0.01  # minimum score of a detection in recall and AP


def gallery_sizes(cfg: CfgNode) -> list[int | str]:
    """Return the values of EVAL_GALLERY_SIZE. The dataset defines which values are valid."""
    value = cfg.EVAL_GALLERY_SIZE
    return value if isinstance(value, list) else [value]


def protocols_of(dataset: SearchDataset, cfg: CfgNode) -> list[Protocol]:
    """Return one protocol for each distinct value of EVAL_GALLERY_SIZE."""
    protocols = [
        dataset.protocol(size, cfg.EVAL_CROSS_CAMERA, cfg.EVAL_QUERY_FILE)
        for size in gallery_sizes(cfg)
    ]
    return list({protocol.size: protocol for protocol in protocols}.values())


def check_settings(dataset: SearchDataset, cfg: CfgNode) -> list[Protocol]:
    """Check the EVAL_... values, and return the protocols.

    A training run calls this before its first step.

    Raises:
        UserError: if a value does not fit the dataset.
    """
    precision_of("EVAL_AMP", cfg.EVAL_AMP)
    return protocols_of(dataset, cfg)


def context_of(cache: Cache, cfg: CfgNode) -> metrics.CBGM | None:
    """Return the CBGM settings and the people around each query, or None without EVAL_USE_CBGM."""
    if not cfg.EVAL_USE_CBGM:
        return None
    return metrics.CBGM(cache["query_feats"], cfg.EVAL_CBGM_K1, cfg.EVAL_CBGM_K2)


def score(
    cache: Cache, dataset: SearchDataset, protocols: Sequence[Protocol], cfg: CfgNode
) -> dict:
    """Return the results of a features cache, as fractions of 1.

    "search", "thresholds" and "queries" describe the first protocol; "galleries" has an entry for
    each protocol.
    """
    dets = cache["gallery_dets"]
    searches = metrics.search_many(
        dets,
        cache["gallery_feats"],
        torch.stack(cache["query_box_feats"]),
        protocols,
        SEARCH_SCORE,
        context_of(cache, cfg),
    )
    boxes = [torch.from_numpy(scene.boxes) for scene in dataset.gallery]
    labeled = [torch.from_numpy(scene.pids != UNLABELED) for scene in dataset.gallery]
    of_labeled = metrics.detection(boxes, dets, DETECTION_SCORE, labeled=labeled)
    numbers = [{name: search[name] for name in NUMBERS} for search in searches]
    thresholds = [search["similarities"].thresholds() for search in searches]
    return {
        "detection": metrics.detection(boxes, dets, DETECTION_SCORE),
        "detection_labeled": {"recall": of_labeled["recall"]},
        "search": numbers[0],
        "protocol": {
            "dataset": dataset.name,
            "name": protocols[0].name,
            "queries": len(protocols[0].queries),
            "queries_unmatched": protocols[0].unmatched,
            "gallery_images": len(dataset.gallery),
            "cbgm": cfg.EVAL_USE_CBGM,
            "ground_truth_boxes": cfg.EVAL_USE_GT,
            "detection_score": DETECTION_SCORE,
            "search_score": SEARCH_SCORE,
        },
        "detection_errors": metrics.detection_errors(boxes, dets, SEARCH_SCORE, DETECTION_SCORE),
        "thresholds": thresholds[0],
        "threshold_curve": searches[0]["similarities"].curve(),
        "galleries": [
            {"gallery_size": protocol.size, "name": protocol.name, "queries": len(protocol.queries)}
            | values
            | {"thresholds": {rate: at["similarity"] for rate, at in found.items()}}
            for protocol, values, found in zip(protocols, numbers, thresholds)
        ],
        "queries": per_query(dataset, protocols[0], searches[0]),
    }


def per_query(dataset: SearchDataset, protocol: Protocol, search: dict) -> list[dict]:
    """Describe each query.

    Returns:
        The query's number in the dataset, image, box, average precision, the rank of the first
        right detection (0: none), and the number of listed images that show the person.
    """
    present = np.bincount(protocol.query, minlength=len(protocol.queries)).tolist()
    found = search["ap"].tolist(), search["first_hit"].tolist()
    rows = zip(protocol.queries.tolist(), *found, present)
    return [
        {
            "query": q,
            "image": dataset.gallery[dataset.queries[q].scene].name,
            "box": dataset.queries[q].box.tolist(),
            "ap": ap,
            "first_hit": first,
            "present": number,
        }
        for q, ap, first, number in rows
    ]


def evaluate(
    net: Network | None,
    dataset: SearchDataset,
    cfg: CfgNode,
    device: torch.device,
    epoch: int | None = None,
    weights: str | None = None,
) -> dict:
    """Evaluate, print the results, and write them to OUTPUT_DIR/results.json.

    Every rank extracts its share of the gallery; rank 0 does the rest.

    Args:
        net: the network; not used with EVAL_USE_CACHE.
        epoch: of the network's checkpoint if that is in OUTPUT_DIR, else None. The thresholds of a
            checkpoint are found by its epoch.
        weights: digest of the network's weights, which the features cache records. With
            EVAL_USE_CACHE, a cache of other weights is refused; None: of any weights is accepted.

    Returns:
        The content of results.json on rank 0, {} on the others.
    """
    folder, seconds = Path(cfg.OUTPUT_DIR), None
    protocols = check_settings(dataset, cfg)
    from_first(lambda: make_folder(folder, "OUTPUT_DIR"))
    if cfg.EVAL_USE_CACHE:
        cache = {} if rank() else load_cache(folder / CACHE, dataset, cfg, weights)
    else:
        start = time.perf_counter()
        cache = make_cache(net, dataset, cfg, device, weights)
        seconds = (time.perf_counter() - start) / len(dataset.gallery)
    if rank():
        return {}
    results = {"epoch": epoch} | score(cache, dataset, protocols, cfg)
    if seconds is not None:
        results["protocol"]["seconds_per_image"] = seconds
    write_text(json.dumps(results, indent=2) + "\n", folder / RESULTS)
    report(results, folder)
    return results


def make_cache(
    net: Network,
    dataset: SearchDataset,
    cfg: CfgNode,
    device: torch.device,
    weights: str | None = None,
) -> Cache:
    """Extract the features and write them to OUTPUT_DIR.

    The ranks divide the images and exchange features through files in OUTPUT_DIR.

    Returns:
        The cache on rank 0, {} on the others.
    """
    path = Path(cfg.OUTPUT_DIR) / CACHE
    part = path.with_suffix(f".part{rank()}")
    extract(
        optimize_for_inference(net) if cfg.EVAL_FAST else net,
        dataset,
        device,
        part,
        cfg.INPUT.BATCH_SIZE_TEST,
        cfg.INPUT.NUM_WORKERS,
        precision_of("EVAL_AMP", cfg.EVAL_AMP),
        cfg.EVAL_USE_GT,
        context=cfg.EVAL_USE_CBGM,
        part=(rank(), ranks()),
        max_pixels=cfg.INPUT.MAX_PIXELS,
    )
    parts = from_all(part)
    if rank():
        return {}
    try:
        cache = collect(parts, dataset)
        check_cache(cache, dataset, "features of this network")
        save_file(cache | {"made": made_from(dataset, cfg, weights)}, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return cache


def draw_scene(
    net: Network, dataset: SearchDataset, device: torch.device, max_pixels: int
) -> np.ndarray:
    """Draw the detections in the gallery scene with the most people: [H, W, 3] uint8."""
    scene = max(dataset.gallery, key=lambda s: len(s.boxes))
    image, _ = SceneDataset([scene], max_pixels=max_pixels)[0]
    found = net.eval().detect([image.to(device)])[0]
    sure = found.scores >= SEARCH_SCORE
    captions = [f"{value:.2f}" for value in found.scores[sure].tolist()]
    picture: Image.Image = draw_boxes(to_pil_image(image), found.boxes[sure].cpu(), captions)
    return np.asarray(picture)
