"""From people in samples of a video to appearances: one person, from when she comes to when she
leaves."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from models.outputs import Detections

OVERLAP = 0.1  # of her boxes in two samples, intersection over union: she may walk on meanwhile
SIMILAR = 0.5  # of her unit embeddings, inner product


def link(before: Detections, now: Detections) -> np.ndarray:
    """[n] int: for each of the n people of a sample, who she was among those of the sample before,
    -1 if none. Boxes must overlap and embeddings (unit) be similar; of all ways to pair people so,
    the one with the most pairs, and among these with the most overlap and similarity, counts."""
    who = np.full(len(now.boxes), -1)
    if not len(who) or not len(before.boxes):
        return who
    overlap = box_iou(now.boxes, before.boxes).numpy()
    similar = (now.embeddings @ before.embeddings.T).numpy()
    fits = (overlap >= OVERLAP) & (similar >= SIMILAR)
    most = 2 * len(who)  # of overlap and similarity together: a pair more is worth more
    gain = np.where(fits, most + overlap + similar, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = fits[rows, columns]
    who[rows[kept]] = columns[kept]
    return who
