"""Detection and search scores as tensor operations: tensors in, numbers out, nothing printed.

Equal similarities: average precision follows scikit-learn (equal scores are one threshold); for
top-k, wrong detections stand before right ones of the same similarity. So no score depends on the
order of files or detections, and a network to which all people look alike gains nothing from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import average_precision_score
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

SEARCH_SCORE = 0.5  # detections from this score on are ranked against queries
TOP = (1, 5, 10)
CHUNK = 64  # queries scored at once: [64, 140k] similarities are 36 MB
PAIRS = 1 << 19  # pairs of a person and a detection compared at once: 170 bytes each, 90 MB


def detection(
    gt_boxes: Sequence[Tensor],
    dets: Sequence[Tensor],
    score_thr: float,
    iou_thr: float = 0.5,
    labeled: Sequence[Tensor] | None = None,
) -> dict[str, float]:
    """Recall, and average precision over all detections times recall, of a gallery.

    gt_boxes: [n, 4] and dets: [m, 5] (x1 y1 x2 y2 score) per image. Detections count from
    `score_thr` on. Each keeps its best ground truth, each ground truth its best detection (the
    first of equals); matched are those that agree, with IoU >= iou_thr. labeled: bool [n] per
    image: only these ground truths count, and images without any are left out.
    """
    if labeled is not None:
        gt_boxes = [boxes[keep] for boxes, keep in zip(gt_boxes, labeled)]
        dets = [d if len(boxes) else d[:0] for d, boxes in zip(dets, gt_boxes)]
    scores, right = [torch.zeros(0)], [torch.zeros(0, dtype=torch.bool)]
    for some in _pieces(gt_boxes, dets):
        pairs = _Pairs.of(gt_boxes[some], dets[some], score_thr, iou_thr)
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
    iou_thr: float = 0.5,
    near_thr: float = 0.1,
) -> dict:
    """What became of each annotated person, as fractions that sum to 1, and their number "people".

    found: matched (as in `detection`) among the detections from sure_thr on; low_score: only among
    those from score_thr on; poorly_placed: not matched, but the best ground truth of a detection
    with IoU >= near_thr; missed: the rest. (After TIDE, Bolya et al., ECCV 2020.)
    """
    names = ("found", "low_score", "poorly_placed", "missed")
    counts = torch.zeros(len(names), dtype=torch.long)
    for some in _pieces(gt_boxes, dets):
        sure = _Pairs.of(gt_boxes[some], dets[some], sure_thr, iou_thr)
        every = _Pairs.of(gt_boxes[some], dets[some], score_thr, iou_thr)
        near = every.is_best_gt & (every.iou >= near_thr)
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
    """The images in a row, cut so that about PAIRS pairs are compared at a time."""
    return cut(torch.tensor([len(g) * len(d) for g, d in zip(gt_boxes, dets)]).long(), PAIRS)


@dataclass(frozen=True)
class _Pairs:
    """The P pairs of a ground truth and a detection in the same image, G and N of them in all."""

    people: int  # G
    scores: Tensor  # [N]
    gt: Tensor  # [P] int64
    det: Tensor  # [P] int64
    iou: Tensor  # [P]
    is_best_gt: Tensor  # [P] bool: of its detection
    matched: Tensor  # [P] bool: and it is its ground truth's best detection, with IoU enough

    @staticmethod
    def of(
        gt_boxes: Sequence[Tensor], dets: Sequence[Tensor], score_thr: float, iou_thr: float
    ) -> "_Pairs":
        found, truth = Gallery.above(dets, None, score_thr), join(gt_boxes, 4)
        image = row_of_each(gt_boxes)
        gt, det = spread(found.starts[image], found.counts[image])
        iou = pair_iou(truth[gt].double(), found.boxes[det])
        is_best_gt = _best(iou, det, len(found.image))
        matched = (iou >= iou_thr) & _best(iou, gt, len(truth)) & is_best_gt
        return _Pairs(len(truth), found.scores, gt, det, iou, is_best_gt, matched)


def _best(iou: Tensor, owner: Tensor, owners: int) -> Tensor:
    """iou, owner: [P] -> bool [P]: the first of the pairs with their owner's largest IoU."""
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
    """Scores of one protocol, see `search_many`."""
    return search_many(dets, feats, query_feats, [protocol], score_thr, cbgm)[0]


def search_many(
    dets: Sequence[Tensor],
    feats: Sequence[Tensor],
    query_feats: Tensor,
    protocols: Sequence[Protocol],
    score_thr: float = SEARCH_SCORE,
    cbgm: CBGM | None = None,
) -> list[dict]:
    """Search scores of several protocols in one pass over the features.

    dets: [n, 5] and feats: [n, D] per gallery image; query_feats: [queries of the dataset, D].
    Returns per protocol mAP, top1, top5, top10; for its Q queries, "ap" [Q] float64 and
    "first_hit" [Q] int64: the rank of the first right detection, 1 is best, 0 is never found; and
    "similarities", from which thresholds follow.
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
    wanted = torch.unique(torch.from_numpy(np.concatenate([p.queries for p in protocols])))
    for chunk in wanted.split(CHUNK):
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
    """sims: [c, N] of the protocol's queries `rows` -> with CBGM, if wanted; and their listing."""
    index, weights = listing(torch.from_numpy(protocol.listed[rows.numpy()]), gallery)
    if cbgm:
        people = [cbgm.people[q] for q in protocol.queries[rows.numpy()]]
        sims = rematch(sims, index, weights, gallery, people, cbgm.k1, cbgm.k2)
    return sims, index, weights


@dataclass(frozen=True)
class _Truth:
    """Which detections may be right: C candidates, each well placed on its query's person."""

    present: Tensor  # [Q] int64: listings of images that hold the person
    query: Tensor  # [C] int64, ascending
    slot: Tensor  # [C] int64: number of the candidate's listing among the query's
    detection: Tensor  # [C] int64

    @staticmethod
    def of(gallery: Gallery, protocol: Protocol) -> "_Truth":
        """IoU >= min(0.5, wh / ((w + 10)(h + 10))), which forgives a few pixels on tiny people."""
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
        """sims: [c, N] of queries rows [c] -> similarities [c, T] of true positives, or -inf."""
        row, candidate = spread(*self._candidates(rows))
        slots = max(1, int(self.present[rows].max()))
        cell, value = row * slots + self.slot[candidate], sims[row, self.detection[candidate]]
        best = torch.full((len(rows) * slots,), -torch.inf).scatter_reduce(0, cell, value, "amax")
        return best.view(-1, slots)

    def right(self, sims: Tensor, row: Tensor) -> Tensor:
        """sims: [N] of one query -> its true positives, of equal ones the first in the gallery."""
        start, count = self._candidates(row)
        slot, detection = self.slot[start : start + count], self.detection[start : start + count]
        order = np.lexsort((detection, -sims[detection], slot))
        first = np.unique(slot[order], return_index=True)[1]
        return detection[order][first]

    def _candidates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.searchsorted(self.query, rows)
        return first, torch.searchsorted(self.query, rows, right=True) - first


def _score(sims, index, weights, hits, present) -> tuple[Tensor, Tensor]:
    """Average precision x found / present [c] and the rank of the first hit [c].

    Nothing is sorted but the few true positives of a query. With s the similarity of one of them,
    its precision is (true positives >= s) / (detections >= s), and scikit-learn's average
    precision is the mean of these over the true positives found.
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
    """Weight of the values [c, L] that reach each of the levels [c, T], ascending: int64 [c, T]."""
    reached = torch.searchsorted(levels, values.contiguous(), right=True)
    count = torch.zeros(len(levels), levels.shape[1] + 1).scatter_add(1, reached, weights)
    return count.long().flip(1).cumsum(1).flip(1)[:, 1:]


def _summary(ap: Tensor, first_hit: Tensor, seen: Similarities) -> dict:
    top = {f"top{k}": float(((first_hit > 0) & (first_hit <= k)).double().mean()) for k in TOP}
    return {"mAP": float(ap.mean()), **top, "ap": ap, "first_hit": first_hit, "similarities": seen}


class RankedDetection(NamedTuple):
    """One place in a query's list of matches."""

    image: int  # number of the gallery image
    box: Tensor  # [4] x1 y1 x2 y2, pixels
    similarity: float
    right: bool  # the one true positive of its image


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
    """The k best matches, best first, of each query in `rows` (positions in the protocol)."""
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
