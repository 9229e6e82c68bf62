"""Context bipartite graph matching: re-ranking by the people around the query.

Source: Li & Miao, "Sequential End-to-end Network for Efficient Person Search", AAAI 2021.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from engine.evaluation.gallery import Gallery

EDGE_CHUNK = 1 << 15  # detections matched at once, which limits the memory of their embeddings


@dataclass(frozen=True)
class CBGM:
    """The settings of CBGM, and for each query the embeddings [m, D] of the people in its image.

    The first of these people is the query.
    """

    people: list[Tensor]
    k1: int  # the images of this many best detections are matched
    k2: int  # people of the query image that are matched, the query included


def rematch(
    sims: Tensor,
    index: Tensor | None,
    weights: Tensor,
    gallery: Gallery,
    people: list[Tensor],
    k1: int,
    k2: int,
) -> Tensor:
    """Re-rank the detections of c queries.

    In each image with one of a query's k1 best detections, the first k2 people of the query image
    are matched to the image's detections so that the total similarity is maximal. The detection
    that is matched to the query gets the largest similarity of the matching. If detections are
    equal at rank k1, the first one in the gallery is used.

    Args:
        sims: [c, N] similarities of the queries to all detections.
        index, weights: see `gallery.listing`.
        people: embeddings of the people around the c queries, see `CBGM`.

    Returns:
        [c, N] similarities.
    """
    row, image = _best_images(sims, index, weights, gallery, k1)
    sims = sims.clone()
    if len(row):
        step = max(1, EDGE_CHUNK // int(gallery.counts[image].max()))
        for some in zip(row.split(step), image.split(step)):
            _match_pairs(sims, *some, gallery, people, k2)
    return sims


def _best_images(sims, index, weights, gallery, k1) -> tuple[Tensor, Tensor]:
    """Return pairs (row, image), [P] each, of the images that contain the k1 best detections of a
    query."""
    values = sims if index is None else sims.gather(1, index)
    values = values.masked_fill(weights == 0, -torch.inf)
    if not values.numel():
        nothing = torch.zeros(0, dtype=torch.long)
        return nothing, nothing
    kth = values.topk(min(k1, values.shape[1]), dim=1).values[:, -1:]
    row, column = (values >= kth.clamp(min=torch.finfo().min)).nonzero(as_tuple=True)
    order = torch.argsort(values[row, column], descending=True, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    row, column = row[order], column[order]
    places = weights[row, column].long()  # a detection of an image listed twice counts twice
    before = places.cumsum(0) - places
    taken = before - before[torch.searchsorted(row, row)] < k1
    row, column = row[taken], column[taken]
    image = gallery.image[column if index is None else index[row, column]]
    pairs = torch.unique(row * len(gallery.counts) + image)
    return pairs // len(gallery.counts), pairs % len(gallery.counts)


def _match_pairs(sims, row, image, gallery, people, k2) -> None:
    """Match each pair (row, image) and write the new similarities into `sims`."""
    start, count = gallery.starts[image], gallery.counts[image]
    detection = start[:, None] + torch.arange(int(count.max()))
    detection = detection.clamp(max=len(gallery.image) - 1)  # the surplus is removed below
    rows, of_pair = torch.unique(row, return_inverse=True)
    company = [people[r][:k2] for r in rows.tolist()]
    sizes = torch.tensor([len(c) for c in company])[of_pair]
    padded = torch.nn.utils.rnn.pad_sequence(company, batch_first=True)
    edges = padded[of_pair] @ gallery.feats[detection].transpose(1, 2)  # [p, k2, n]
    edges[:, 0] = sims[row[:, None], detection]  # exactly the similarities of the ranking
    pairs = zip(edges.numpy(), sizes.tolist(), count.tolist())
    matched = torch.tensor([_match(edge[:m, :n]) for edge, m, n in pairs], dtype=torch.float64)
    hit = matched[:, 0] >= 0
    sims[row[hit], start[hit] + matched[hit, 0].long()] = matched[hit, 1].to(sims.dtype)


def _match(edges) -> tuple[int, float]:
    """Match the rows of `edges` [m, n] to its columns.

    Returns:
        The column matched to row 0, or -1, and the largest edge of the matching.
    """
    people, columns = linear_sum_assignment(edges, maximize=True)
    if not len(people) or people[0] != 0:  # scipy returns the rows in order
        return -1, 0.0
    return int(columns[0]), float(edges[people, columns].max())
