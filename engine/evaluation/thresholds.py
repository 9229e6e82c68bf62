"""From which similarity on is it the same person? What an evaluation's own matches say.

The question is the open-set one: she may not be there at all. A *false alarm* of a query at a
similarity s is that in a gallery without her somebody reaches s: the gallery is the images that
her query lists and that, by the annotations, do not hold her. (In an image that does hold her, a
detection beside her box may still show her, so those images would blame the network for being
right.) A *true match* is what counts as right in average precision: the most similar
detection on her in an image that holds her; it is kept at s if its similarity reaches s.

A rate of false alarms is one of queries, so it belongs to the number of images that a query lists:
in a gallery ten times as large, somebody reaches s more often.
"""

import numpy as np
import torch
from torch import Tensor

from datasets.protocol import Protocol
from engine.evaluation.gallery import Gallery

RATES = (0.01, 0.05, 0.1)  # false alarms, of queries
LOWEST = -1.0  # of unit embeddings
CURVE_POINTS = 101


def best_wrong(
    sims: Tensor,
    index: Tensor | None,
    weights: Tensor,
    rows: Tensor,
    gallery: Gallery,
    protocol: Protocol,
) -> Tensor:
    """The best similarity [c] of somebody else to each of the protocol's queries `rows` [c], -inf
    where nobody else is. sims: [c, N]; index, weights: see `gallery.listing`."""
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
    """Of Q queries: one number for each, somebody else's best similarity, and one for each true
    match; put in some queries at a time."""

    def __init__(self, queries: int):
        self.wrong = torch.full((queries,), -torch.inf)
        self.right: list[Tensor] = []
        self.best_right = torch.full((queries,), -torch.inf)

    def add(self, rows: Tensor, hits: Tensor, wrong: Tensor) -> None:
        """rows: [c] ascending; hits: [c, T] similarities of true matches, or -inf; wrong: [c]."""
        self.wrong[rows], self.best_right[rows] = wrong, hits.amax(1)
        self.right.append(hits[hits > -torch.inf])

    def thresholds(self) -> dict[str, dict[str, float]]:
        """For each of RATES, by its digits, the smallest similarity at which no larger share of
        queries has a false alarm, and what is kept there: of the true matches, and of the
        queries those that keep one. A rate less than one query allows none."""
        return {f"{rate:g}": self._at(self.threshold(rate)) for rate in RATES}

    def threshold(self, rate: float) -> float:
        """Just above the first false alarm too many; LOWEST where there is none."""
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
        """Shares over evenly spaced similarities from the smallest to the largest seen."""
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
    """Of the values, those that reach it; 0 of none."""
    return int((values >= similarity).sum()) / max(len(values), 1)
