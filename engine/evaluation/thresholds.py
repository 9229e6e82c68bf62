"""Similarity thresholds for open-set search, where the query person may be absent.

A query has a *false alarm* at a similarity s if a detection reaches s in an image that the query
lists and that, by the annotations, does not show the person. Images that show the person are not
considered, because a detection beside the annotated box may still show them. A *true match* is the
detection that average precision counts as right: the most similar one on the person in an image
that shows them. It is kept at s if its similarity is at least s.

The false-alarm rate is a share of queries. It depends on the number of images that a query lists:
in a gallery ten times as large, a wrong detection reaches s more often.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.protocol import Protocol
from engine.evaluation.gallery import Gallery

RATES = (0.01, 0.05, 0.1)  # shares of queries with a false alarm
LOWEST = -1.0  # similarity of unit embeddings
CURVE_POINTS = 101


def best_wrong(
    sims: Tensor,
    index: Tensor | None,
    weights: Tensor,
    rows: Tensor,
    gallery: Gallery,
    protocol: Protocol,
) -> Tensor:
    """Return the highest similarity of a wrong detection for each query, [c]; -inf if there is
    none.

    Args:
        sims: [c, N] similarities.
        index, weights: see `gallery.listing`.
        rows: [c] positions of the queries in the protocol, ascending.
    """
    values = sims if index is None else sims.gather(1, index)
    if not values.shape[1]:
        return torch.full((len(values),), -torch.inf)
    without = torch.from_numpy(protocol.listed[rows.numpy()]) > 0  # [c, I]
    query, image = torch.from_numpy(protocol.query), torch.from_numpy(protocol.image)
    entry = torch.isin(query, rows)
    without[torch.searchsorted(rows, query[entry]), image[entry]] = False
    if index is None:
        wrong = without.index_select(1, gallery.image)
    else:
        wrong = without.gather(1, gallery.image[index]) & (weights > 0)
    return torch.where(wrong, values, -torch.inf).amax(1)


class Similarities:
    """The similarities from which thresholds are computed.

    They are, for each of Q queries, the highest one of a wrong detection, and those of all true
    matches.
    """

    def __init__(self, queries: int):
        self.wrong = torch.full((queries,), -torch.inf)
        self.right: list[Tensor] = []
        self.best_right = torch.full((queries,), -torch.inf)

    def add(self, rows: Tensor, hits: Tensor, wrong: Tensor) -> None:
        """Add the results of c queries.

        Args:
            rows: [c] positions of the queries, ascending.
            hits: [c, T] similarities of the true matches, padded with -inf.
            wrong: [c] result of `best_wrong`.
        """
        self.wrong[rows], self.best_right[rows] = wrong, hits.amax(1)
        self.right.append(hits[hits > -torch.inf])

    def thresholds(self) -> dict[str, dict[str, float]]:
        """Return the threshold of each of RATES, with the rate as a string as its key.

        A threshold is the smallest similarity at which the share of queries with a false alarm does
        not exceed the rate. If rate × queries < 1, no false alarm is allowed. "matches_kept" is the
        share of true matches that reach the threshold, "queries_kept" the share of queries with at
        least one such match.
        """
        return {f"{rate:g}": self._at(self.threshold(rate)) for rate in RATES}

    def threshold(self, rate: float) -> float:
        """Return the smallest similarity at which the share of false alarms is at most `rate`; at
        least LOWEST."""
        allowed = int(rate * len(self.wrong) + 1e-9)
        first = self.wrong.sort(descending=True).values[allowed]
        return max(float(np.nextafter(first.numpy(), np.float32(np.inf))), LOWEST)

    def _at(self, similarity: float) -> dict[str, float]:
        return {
            "similarity": similarity,
            "matches_kept": _share(torch.cat(self.right), similarity),
            "queries_kept": _share(self.best_right, similarity),
        }

    def curve(self) -> dict[str, list[float]]:
        """Return shares of queries and matches at CURVE_POINTS evenly spaced similarities.

        The similarities range from the smallest to the largest one.
        """
        right = torch.cat(self.right)
        seen = torch.cat([self.wrong[self.wrong > -torch.inf], right])
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (LOWEST, 1.0)
        places = torch.linspace(low, high, CURVE_POINTS).tolist()
        return {
            "similarity": places,
            "false_alarms": [_share(self.wrong, place) for place in places],
            "matches_kept": [_share(right, place) for place in places],
        }


def _share(values: Tensor, similarity: float) -> float:
    """Return the share of the values that are at least `similarity`; 0 without values."""
    return int((values >= similarity).sum()) / max(len(values), 1)
