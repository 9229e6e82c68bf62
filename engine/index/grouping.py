"""Grouping of the tracklets of one person by average linkage with constraints."""

import numpy as np
from scipy.cluster.hierarchy import cophenet, fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

BLOCK = 1000
ROUNDING = 1e-6  # more than the error of a mean similarity in float32
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


def group_people(
    rows: np.ndarray, owner: np.ndarray, apart: np.ndarray, min_similarity: float
) -> np.ndarray:
    """Group the embeddings of people as `group` does, part by part.

    Args:
        rows: [n, D] of unit length.
        owner: [n] int; equal for rows that are known to be one person.
        apart: [g, g] bool, symmetric: which owners are known to be different people.

    Returns:
        [n] int, equal for those of one group.
    """
    labels = np.zeros(len(rows), int)
    for part in components(rows, owner, min_similarity):
        similarity, mine = rows[part] @ rows[part].T, owner[part]
        similarity[mine[:, None] == mine] = np.inf
        labels[part] = labels.max() + group(similarity, apart[mine[:, None], mine], min_similarity)
    return labels


def components(rows: np.ndarray, owner: np.ndarray, min_similarity: float) -> list[np.ndarray]:
    """Return the positions of rows in parts that can be grouped one by one, with the same result.

    A mean of similarities is at most the largest of them, so average linkage joins groups only
    along a chain of pairs with `min_similarity`. The rows of one owner are in one part. At a time,
    BLOCK rows are compared with all.

    Args:
        rows: [n, D] of unit length.
        owner: [n] int; equal for rows that are known to be one person.
    """
    _, labels = np.unique(owner, return_inverse=True)
    for start in range(0, len(rows), BLOCK):
        near = rows[start : start + BLOCK] @ rows.T > min_similarity - ROUNDING
        one, other = near.nonzero()
        ends = labels[one + start], labels[other]
        edges = coo_array((np.ones(len(one), bool), ends), (len(rows), len(rows)))
        labels = connected_components(edges, directed=False)[1][labels]
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []


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
    # A grouping must join at this distance too, although it may add in another order.
    return float(1 - fitting[-1] - ROUNDING) if len(fitting) else None
