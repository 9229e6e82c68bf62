"""From a network to numbers: extract detections and embeddings, keep them, score them."""
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.base import UNLABELED, Query, Scene, SearchDataset
from datasets.loaders import SceneDataset, eval_loader
from engine import metrics
from engine.checkpoint import load_file, save_file
from models.outputs import Detections
from models.search_net import SearchNet
from utils.drawing import draw_boxes
from utils.errors import UserError

CACHE = "eval_cache.pth"
DETECTION_SCORE = 0.01  # detections from this score on count in recall and AP
SEARCH_SCORE = 0.5  # detections from this score on are ranked against queries
CACHE_KEYS = ("gallery_dets", "gallery_feats", "query_dets", "query_feats", "query_box_feats")


def _pack(found: Detections) -> tuple[Tensor, Tensor]:
    """Detections -> [n, 5] x1 y1 x2 y2 score and [n, D], float32 on the CPU."""
    dets = torch.cat([found.boxes, found.scores[:, None]], dim=1)
    return dets.float().cpu(), found.embeddings.float().cpu()


def _ground_truth(net: SearchNet, images: list[Tensor], boxes: list[Tensor]) -> list[Detections]:
    """Annotated boxes in place of detections, with score 1."""
    embeddings = net.embed(images, boxes)
    return [Detections(b, b.new_ones(len(b)), e) for b, e in zip(boxes, embeddings)]


def query_scenes(dataset: SearchDataset) -> list[Scene]:
    """Each query as a scene that holds only its own box."""
    def alone(query: Query) -> Scene:
        scene = dataset.gallery[query.scene]
        return Scene(scene.name, scene.path, query.box[None], np.array([query.pid]), scene.camera)

    return [alone(query) for query in dataset.queries]


def extract(
    net: SearchNet, dataset: SearchDataset, device: torch.device, batch_size: int, workers: int,
    use_gt: bool = False, context: bool = False,
) -> dict[str, list[Tensor]]:
    """Run the network over gallery and queries; the features cache, in dataset order.

    gallery_dets [n, 5] and gallery_feats [n, D] per gallery image; query_box_feats [D] per query;
    query_dets and query_feats per query image, the query's own box first, and only it unless
    `context` asks for the others too (CBGM does).
    """
    net.eval()
    cache = {key: [] for key in CACHE_KEYS}

    def batches(scenes: list[Scene], title: str):
        loader = eval_loader(scenes, batch_size, workers)
        for images, targets in tqdm(loader, desc=title, unit="batch", mininterval=1):
            yield [i.to(device) for i in images], [t["boxes"].to(device) for t in targets]

    for images, boxes in batches(dataset.gallery, "gallery"):
        found = _ground_truth(net, images, boxes) if use_gt else net.detect(images)
        for dets, feats in map(_pack, found):
            cache["gallery_dets"].append(dets)
            cache["gallery_feats"].append(feats)
    for images, boxes in batches(query_scenes(dataset), "queries"):
        if context:
            embeddings, found = net.detect_query(images, [b[0] for b in boxes])
        else:
            found = _ground_truth(net, images, boxes)
            embeddings = [f.embeddings for f in found]
        for embedding, (dets, feats) in zip(embeddings, map(_pack, found)):
            cache["query_box_feats"].append(embedding[0].float().cpu())
            cache["query_dets"].append(dets)
            cache["query_feats"].append(feats)
    return cache


def load_cache(path: Path, dataset: SearchDataset) -> dict[str, list[Tensor]]:
    """The features cache; UserError where it is missing, damaged or of another dataset."""
    cache = load_file(path, "EVAL_USE_CACHE")
    missing = [key for key in CACHE_KEYS if not isinstance(cache.get(key), list)]
    if missing:
        raise UserError(f"EVAL_USE_CACHE {path}: expected lists {', '.join(CACHE_KEYS)}; "
                        f"without {', '.join(missing)}")
    for key in CACHE_KEYS:
        wanted = len(dataset.gallery) if key.startswith("gallery") else len(dataset.queries)
        if len(cache[key]) != wanted:
            raise UserError(f"EVAL_USE_CACHE {path}: {key} has {len(cache[key])} entries, "
                            f"{dataset.name} in {dataset.root} needs {wanted}")
    return cache


def score(cache: dict[str, list[Tensor]], dataset: SearchDataset, cfg: CfgNode) -> dict:
    """Detection and search results (fractions of 1) of a features cache."""
    protocol = dataset.protocol(cfg.EVAL_GALLERY_SIZE, cfg.EVAL_CROSS_CAMERA)
    cbgm = None
    if cfg.EVAL_USE_CBGM:
        cbgm = metrics.CBGM(cache["query_feats"], cfg.EVAL_CBGM_K1, cfg.EVAL_CBGM_K2)
    search = metrics.search(
        cache["gallery_dets"], cache["gallery_feats"], torch.stack(cache["query_box_feats"]),
        protocol, SEARCH_SCORE, cbgm,
    )
    boxes = [torch.from_numpy(scene.boxes) for scene in dataset.gallery]
    labeled = [torch.from_numpy(scene.pids != UNLABELED) for scene in dataset.gallery]
    detection = metrics.detection(boxes, cache["gallery_dets"], DETECTION_SCORE)
    return {
        "detection": {name: detection[name] for name in ("recall", "ap")},
        "detection_labeled": {
            "recall": metrics.detection(
                boxes, cache["gallery_dets"], DETECTION_SCORE, labeled=labeled
            )["recall"]
        },
        "search": {name: search[name] for name in ("mAP", "top1", "top5", "top10")},
        "protocol": {
            "dataset": dataset.name, "name": protocol.name, "queries": len(protocol.queries),
            "gallery_images": len(dataset.gallery), "cbgm": bool(cfg.EVAL_USE_CBGM),
            "ground_truth_boxes": bool(cfg.EVAL_USE_GT), "detection_score": DETECTION_SCORE,
            "search_score": SEARCH_SCORE,
        },
    }


def flat_metrics(results: dict) -> dict[str, float]:
    """{"detection/recall": ..., "search/mAP": ..., ...} without the protocol."""
    return {
        f"{group}/{name}": value for group, values in results.items() if group != "protocol"
        for name, value in values.items()
    }


def print_results(results: dict) -> None:
    """The table that every evaluation ends with, in per cent."""
    detection, search = results["detection"], results["search"]
    row = [detection["recall"], detection["ap"], results["detection_labeled"]["recall"]]
    row += [search[name] for name in ("mAP", "top1", "top5", "top10")]
    headers = ["recall", "AP", "labelled recall", "mAP", "top-1", "top-5", "top-10"]
    print(results["protocol"]["name"])
    print(tabulate([[100 * value for value in row]], headers, floatfmt=".2f"), flush=True)


def evaluate(
    net: SearchNet | None, dataset: SearchDataset, cfg: CfgNode, device: torch.device
) -> dict:
    """Extract (or read the cache, then `net` may be None), score, print, and write
    OUTPUT_DIR/results.json; returns what it wrote."""
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    if cfg.EVAL_USE_CACHE:
        cache, seconds = load_cache(folder / CACHE, dataset), None
    else:
        start = time.perf_counter()
        cache = extract(
            net, dataset, device, cfg.INPUT.BATCH_SIZE_TEST, cfg.INPUT.NUM_WORKERS,
            cfg.EVAL_USE_GT, context=cfg.EVAL_USE_CBGM,
        )
        seconds = (time.perf_counter() - start) / (len(dataset.gallery) + len(dataset.queries))
        save_file(cache, folder / CACHE)
    results = score(cache, dataset, cfg)
    if seconds is not None:
        results["protocol"]["seconds_per_image"] = seconds
    print_results(results)
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def draw_scene(net: SearchNet, dataset: SearchDataset, device: torch.device) -> np.ndarray:
    """The gallery scene with the most people, its detections drawn on it: [H, W, 3] uint8."""
    scene = max(dataset.gallery, key=lambda s: len(s.boxes))
    image, _ = SceneDataset([scene])[0]
    found = net.eval().detect([image.to(device)])[0]
    sure = found.scores >= SEARCH_SCORE
    captions = [f"{value:.2f}" for value in found.scores[sure].tolist()]
    picture: Image.Image = draw_boxes(to_pil_image(image), found.boxes[sure].cpu(), captions)
    return np.asarray(picture)
