"""Detection and search metrics as pure functions of tensors.

Average precision treats equal similarities as one threshold, as scikit-learn does. In top-k, wrong
detections are ranked before right ones of the same similarity. The metrics therefore do not depend
on the order of files or detections, and a network that gives everyone the same embedding scores
low.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.protocol import Protocol
from engine.evaluation.cbgm import CBGM, rematch
from engine.evaluation.gallery import (
    Gallery,
    cut,
    join,
    listing,
    pair_iou,
    row_of_each,
    spread,
)
from engine.evaluation.thresholds import Similarities, best_wrong

SEARCH_SCORE = 0.5  # minimum detection score in a search
MATCHED, NEAR = 0.5, 0.1  # IoU of a matched pair, and of a poorly placed detection
TOP = (1, 5, 10)
CHUNK = 64  # queries in one matrix: [64, 140k] similarities take 36 MB
PAIRS = 1 << 19  # pairs of a person and a detection in one comparison: 170 bytes each, 90 MB


def detection(
    gt_boxes: Sequence[Tensor],
    dets: Sequence[Tensor],
    score_thr: float,
    labeled: Sequence[Tensor] | None = None,
) -> dict[str, float]:
    """Return "recall", and "ap": average precision over all detections, multiplied by the recall.

    A detection and a ground truth match if each has its largest IoU with the other (the first of
    equal ones) and this IoU is at least MATCHED.

    Args:
        gt_boxes: [n, 4] x1 y1 x2 y2 for each image.
        dets: [m, 5] x1 y1 x2 y2 score for each image.
        score_thr: minimum score of a detection.
        labeled: bool [n] for each image; if given, only these ground truths count, and images
            without any are left out.
    """
    from sklearn.metrics import average_precision_score  # its import takes over a second

    if labeled is not None:
        gt_boxes = [boxes[keep] for boxes, keep in zip(gt_boxes, labeled)]
        dets = [d if len(boxes) else d[:0] for d, boxes in zip(dets, gt_boxes)]
    scores, right = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    for some in _pieces(gt_boxes, dets):
        pairs = _Pairs.of(gt_boxes[some], dets[some], score_thr)
        scores.append(pairs.scores)
        right.append(torch.zeros(len(pairs.scores), dtype=torch.bool))
        right[-1][pairs.det[pairs.matched]] = True
    is_right = torch.cat(right)
    if not is_right.any():
        return {"recall": 0.0, "ap": 0.0}
    recall = int(is_right.sum()) / sum(map(len, gt_boxes))
    precision = float(average_precision_score(is_right, torch.cat(scores)))
    return {"recall": recall, "ap": precision * recall}


def detection_errors(
    gt_boxes: Sequence[Tensor],
    dets: Sequence[Tensor],
    sure_thr: float,
    score_thr: float,
) -> dict:
    """Return "people", the number of annotated people, and the share of them in each of four
    states.

    Source: after TIDE, Bolya et al., ECCV 2020.

    Args:
        gt_boxes, dets: as in `detection`.

    Returns:
        found: matched (as in `detection`) to a detection with a score of at least `sure_thr`.
        low_score: matched only to a detection with a score of at least `score_thr`.
        poorly_placed: not matched, but the best ground truth of a detection with an IoU of at
            least NEAR.
        missed: all others.
    """
    names = ("found", "low_score", "poorly_placed", "missed")
    counts = torch.zeros(len(names), dtype=torch.long)
    for some in _pieces(gt_boxes, dets):
        sure = _Pairs.of(gt_boxes[some], dets[some], sure_thr)
        every = _Pairs.of(gt_boxes[some], dets[some], score_thr)
        near = every.is_best_gt & (every.iou >= NEAR)
        state = torch.full((every.people,), 3)
        for number, people in (
            (2, every.gt[near]),
            (1, every.gt[every.matched]),
            (0, sure.gt[sure.matched]),
        ):
            state[people] = number
        counts += torch.bincount(state, minlength=len(names))
    people = int(counts.sum())
    return {"people": people} | {n: c / max(people, 1) for n, c in zip(names, counts.tolist())}


def _pieces(gt_boxes: Sequence[Tensor], dets: Sequence[Tensor]) -> list[slice]:
    """Divide the images into slices of about PAIRS pairs."""
    return cut(torch.tensor([len(g) * len(d) for g, d in zip(gt_boxes, dets)]).long(), PAIRS)


@dataclass(frozen=True)
class _Pairs:
    """All P pairs of a ground truth and a detection in the same image; G ground truths, N
    detections."""

    people: int  # G
    scores: Tensor  # [N]
    gt: Tensor  # [P] int64
    det: Tensor  # [P] int64
    iou: Tensor  # [P]
    is_best_gt: Tensor  # [P] bool: the ground truth is the detection's best
    matched: Tensor  # [P] bool: each is the other's best, with sufficient IoU

    @staticmethod
    def of(gt_boxes: Sequence[Tensor], dets: Sequence[Tensor], score_thr: float) -> "_Pairs":
        found, truth = Gallery.above(dets, None, score_thr), join(gt_boxes, 4)
        image = row_of_each(gt_boxes)
        gt, det = spread(found.starts[image], found.counts[image])
        iou = pair_iou(truth[gt].double(), found.boxes[det])
        is_best_gt = _best(iou, det, len(found.image))
        matched = (iou >= MATCHED) & _best(iou, gt, len(truth)) & is_best_gt
        return _Pairs(len(truth), found.scores, gt, det, iou, is_best_gt, matched)


def _best(iou: Tensor, owner: Tensor, owners: int) -> Tensor:
    """Return whether a pair is the first one with the largest IoU of its owner, [P] bool.

    Args:
        iou, owner: [P].
    """
    best = torch.zeros(owners, dtype=iou.dtype).scatter_reduce(0, owner, iou, "amax")
    pair = torch.arange(len(iou)).masked_fill(iou < best[owner], len(iou))
    first = torch.full((owners,), len(iou)).scatter_reduce(0, owner, pair, "amin")
    return pair == first[owner]


def search(
    dets: Sequence[Tensor],
    feats: Sequence[Tensor],
    query_feats: Tensor,
    protocol: Protocol,
    score_thr: float = SEARCH_SCORE,
    cbgm: CBGM | None = None,
) -> dict:
    """Return the search scores of one protocol, see `search_many`."""
    return search_many(dets, feats, query_feats, [protocol], score_thr, cbgm)[0]


def search_many(
    dets: Sequence[Tensor],
    feats: Sequence[Tensor],
    query_feats: Tensor,
    protocols: Sequence[Protocol],
    score_thr: float = SEARCH_SCORE,
    cbgm: CBGM | None = None,
) -> list[dict]:
    """Return the search scores of several protocols, computed in one pass over the embeddings.

    Args:
        dets: [n, 5] x1 y1 x2 y2 score for each gallery image.
        feats: [n, D] for each gallery image.
        query_feats: [queries of the dataset, D].

    Returns:
        For each protocol: "mAP", "top1", "top5", "top10"; for its Q queries "ap" [Q] float64 and
        "first_hit" [Q] int64, the rank of the first right detection (1 is the best, 0 if none is
        found); and "similarities", see `thresholds.Similarities`.
    """
    gallery = Gallery.above(dets, feats, score_thr)
    truths = [_Truth.of(gallery, protocol) for protocol in protocols]
    results = [
        (
            torch.zeros(len(p.queries), dtype=torch.float64),
            torch.zeros(len(p.queries), dtype=torch.long),
            Similarities(len(p.queries)),
        )
        for p in protocols
    ]
    searched = torch.unique(torch.from_numpy(np.concatenate([p.queries for p in protocols])))
    for chunk in searched.split(CHUNK):
        sims = query_feats[chunk] @ gallery.feats.T
        for protocol, truth, (ap, first_hit, seen) in zip(protocols, truths, results):
            queries = torch.from_numpy(protocol.queries)
            rows = torch.isin(queries, chunk).nonzero()[:, 0]
            if len(rows):
                at = torch.searchsorted(chunk, queries[rows])
                own = sims if torch.equal(at, torch.arange(len(sims))) else sims[at]
                ranked = _rank(own, rows, gallery, protocol, cbgm)
                hits = truth.best(ranked[0], rows)
                ap[rows], first_hit[rows] = _score(*ranked, hits, truth.present[rows])
                seen.add(rows, hits, best_wrong(*ranked, rows, gallery, protocol))
    return [_summary(*result) for result in results]


def _rank(sims, rows, gallery, protocol, cbgm) -> tuple[Tensor, Tensor | None, Tensor]:
    """Re-rank by CBGM if it is given, and return the detections that the queries search.

    Args:
        sims: [c, N] similarities of the protocol's queries `rows`.

    Returns:
        sims, and index and weights of `gallery.listing`.
    """
    index, weights = listing(torch.from_numpy(protocol.listed[rows.numpy()]), gallery)
    if cbgm:
        people = [cbgm.people[q] for q in protocol.queries[rows.numpy()]]
        sims = rematch(sims, index, weights, gallery, people, cbgm.k1, cbgm.k2)
    return sims, index, weights


@dataclass(frozen=True)
class _Truth:
    """C candidates: the detections that overlap the person of their query enough to be right."""

    present: Tensor  # [Q] int64: listed images that show the person
    query: Tensor  # [C] int64, ascending
    slot: Tensor  # [C] int64: number of the candidate's image among those of the query
    detection: Tensor  # [C] int64

    @staticmethod
    def of(gallery: Gallery, protocol: Protocol) -> "_Truth":
        """Find the candidates, whose IoU is at least min(0.5, wh / ((w + 10)(h + 10))).

        The second value tolerates an error of a few pixels for small people.
        """
        entry, query = torch.from_numpy(protocol.box_entry), torch.from_numpy(protocol.query)
        boxes = torch.from_numpy(protocol.boxes).double()
        image = torch.from_numpy(protocol.image)[entry]
        size = boxes[:, 2:] - boxes[:, :2]
        needed = (size.prod(1) / (size + 10).prod(1)).clamp(max=0.5)
        found = [(entry[:0], entry[:0])]
        for some in cut(gallery.counts[image], PAIRS):
            box, detection = spread(gallery.starts[image[some]], gallery.counts[image[some]])
            box += some.start
            good = pair_iou(boxes[box], gallery.boxes[detection]) >= needed[box]
            found.append((entry[box[good]], detection[good]))
        entry, detection = map(torch.cat, zip(*found))
        present = torch.bincount(query, minlength=len(protocol.queries))
        slot = torch.empty_like(query)
        order = torch.argsort(query, stable=True)
        slot[order] = torch.arange(len(query)) - (present.cumsum(0) - present)[query[order]]
        order = torch.argsort(query[entry], stable=True)
        entry = entry[order]
        return _Truth(present, query[entry], slot[entry], detection[order])

    def best(self, sims: Tensor, rows: Tensor) -> Tensor:
        """Return the similarities of the true positives, [c, T], padded with -inf.

        Args:
            sims: [c, N] of the queries `rows` [c].
        """
        row, candidate = spread(*self._candidates(rows))
        slots = max(1, int(self.present[rows].max()))
        cell, value = row * slots + self.slot[candidate], sims[row, self.detection[candidate]]
        best = torch.full((len(rows) * slots,), -torch.inf).scatter_reduce(0, cell, value, "amax")
        return best.view(-1, slots)

    def right(self, sims: Tensor, row: Tensor) -> Tensor:
        """Return the true positives of one query; of equal ones the first in the gallery.

        Args:
            sims: [N] similarities of the query.
        """
        start, count = self._candidates(row)
        slot, detection = self.slot[start : start + count], self.detection[start : start + count]
        order = np.lexsort((detection, -sims[detection], slot))
        first = np.unique(slot[order], return_index=True)[1]
        return detection[order][first]

    def _candidates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.searchsorted(self.query, rows)
        return first, torch.searchsorted(self.query, rows, right=True) - first


def _score(sims, index, weights, hits, present) -> tuple[Tensor, Tensor]:
    """Return average precision × found / present, and the rank of the first right detection, [c]
    each.

    Only the few true positives of a query are sorted. If s is the similarity of one of them, its
    precision is (true positives >= s) / (detections >= s). scikit-learn's average precision is the
    mean of these values over the true positives that were found.
    """
    hits = hits.sort(dim=1).values
    values = sims if index is None else sims.gather(1, index)
    above = _count_above(values, weights, hits)
    hits_above = hits.shape[1] - torch.searchsorted(hits, hits)
    found = hits > -torch.inf
    precision = torch.where(found, hits_above / above.double(), 0.0)
    ap = precision.sum(1) / present.clamp(min=1)
    first_hit = (above - hits_above)[:, -1] + 1
    return ap, torch.where(found[:, -1], first_hit, 0)


def _count_above(values: Tensor, weights: Tensor, levels: Tensor) -> Tensor:
    """Return the total weight of the values that are at least as large as each level, int64 [c, T].

    Args:
        values, weights: [c, L].
        levels: [c, T], ascending.
    """
    reached = torch.searchsorted(levels, values.contiguous(), right=True)
    count = torch.zeros(len(levels), levels.shape[1] + 1).scatter_add(1, reached, weights)
    return count.long().flip(1).cumsum(1).flip(1)[:, 1:]


def _summary(ap: Tensor, first_hit: Tensor, seen: Similarities) -> dict:
    top = {f"top{k}": float(((first_hit > 0) & (first_hit <= k)).double().mean()) for k in TOP}
    return {"mAP": float(ap.mean()), **top, "ap": ap, "first_hit": first_hit, "similarities": seen}


class RankedDetection(NamedTuple):
    """One detection in the ranking of a query."""

    image: int  # number of the gallery image
    box: Tensor  # [4] x1 y1 x2 y2, pixels
    similarity: float
    right: bool  # whether it is the true positive of its image


def top_matches(
    dets: Sequence[Tensor],
    feats: Sequence[Tensor],
    query_feats: Tensor,
    protocol: Protocol,
    rows: Sequence[int],
    k: int = 10,
    score_thr: float = SEARCH_SCORE,
    cbgm: CBGM | None = None,
) -> list[list[RankedDetection]]:
    """Return the k most similar detections of some queries, best first.

    Args:
        rows: positions of the queries in the protocol.
    """
    gallery, rows = Gallery.above(dets, feats, score_thr), torch.as_tensor(rows, dtype=torch.long)
    truth = _Truth.of(gallery, protocol)
    sims = query_feats[torch.from_numpy(protocol.queries)[rows]] @ gallery.feats.T
    sims, index, weights = _rank(sims, rows, gallery, protocol, cbgm)
    lists = []
    for r, row in enumerate(rows):
        detection = weights[r].nonzero()[:, 0] if index is None else index[r][weights[r] > 0]
        right = torch.isin(detection, truth.right(sims[r], row))
        order = np.lexsort((detection, right, -sims[r, detection]))
        times = weights[r][weights[r] > 0].long()[order]
        order = torch.from_numpy(order).repeat_interleave(times)[:k]
        lists.append(
            [
                RankedDetection(
                    int(gallery.image[d]), gallery.boxes[d].float(), float(sims[r, d]), bool(y)
                )
                for d, y in zip(detection[order], right[order])
            ]
        )
    return lists
