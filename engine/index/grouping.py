"""Grouping of the tracklets of one person by average linkage with constraints."""

import numpy as np
from scipy.cluster.hierarchy import cophenet, fcluster, linkage
from scipy.spatial.distance import squareform

NEVER = 1e9  # distance of two different people; no mean of other distances compensates for it


def group(similarity: np.ndarray, apart: np.ndarray, min_similarity: float) -> np.ndarray:
    """Group by average linkage: two groups are joined if their mean similarity is high enough.

    Args:
        similarity: [n, n] float; inf for two items that are known to be one person.
        apart: [n, n] bool, symmetric: which items are known to be different people.
        min_similarity: the mean similarity from which on two groups are joined.

    Returns:
        [n] int, equal for those of one group.
    """
    if len(similarity) < 2:
        return np.ones(len(similarity), int)
    distance = np.where(np.isinf(similarity), 0.0, (1 - similarity).clip(0))
    distance[apart] = NEVER
    tree = linkage(squareform(distance, checks=False), "average")
    return fcluster(tree, 1 - min_similarity, "distance")


def similarity_for(precision: float, similarity: np.ndarray, apart: np.ndarray) -> float | None:
    """Return the lowest `min_similarity` at which a grouping reaches a precision.

    The precision is the share of pairs within groups that show one person. It is estimated from the
    pairs that are known to be different people: they are grouped without this knowledge, and the
    share of them that ends up in one group is taken as the share for all pairs of different people.

    Returns:
        None if no similarity has this precision.
    """
    upper = np.triu_indices(len(similarity), 1)
    distance = (1 - similarity[upper]).clip(0)
    together = cophenet(linkage(distance, "average"))  # distance at which a pair is in one group
    order = np.argsort(together, kind="stable")
    wrong = np.cumsum(apart[upper][order]) / apart[upper].sum()  # share of different people
    pairs = np.arange(1, len(order) + 1)
    precise = 1 - wrong * len(order) / pairs >= precision
    last = np.append(np.diff(together[order]) > 0, True)  # of the pairs that are joined at once
    fitting = together[order][precise & last]
    return float(1 - fitting[-1]) if len(fitting) else None
