"""Link people in consecutive samples of a video to tracklets."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from models.outputs import Detections

MIN_IOU = 0.1  # of a person's boxes in two samples; low, since people move between samples
MIN_SIMILARITY = 0.5  # inner product of the unit embeddings


def link(before: Detections, now: Detections) -> np.ndarray:
    """Assign the people of a sample to those of the sample before.

    Pairs need an intersection over union of MIN_IOU and a similarity of MIN_SIMILARITY. Of all
    assignments, the one with the most pairs is chosen, and among these the one with the largest sum
    of overlap and similarity. Embeddings are of unit length.

    Returns:
        [n] int: for each of the n people of `now` the position in `before`, -1 if there is none.
    """
    positions = np.full(len(now.boxes), -1)
    if not len(positions) or not len(before.boxes):
        return positions
    overlap = box_iou(now.boxes, before.boxes).numpy()
    similarity = (now.embeddings @ before.embeddings.T).numpy()
    allowed = (overlap >= MIN_IOU) & (similarity >= MIN_SIMILARITY)
    bonus = 2 * len(positions)  # per pair: more than all overlaps and similarities together
    gain = np.where(allowed, bonus + overlap + similarity, 0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    kept = allowed[rows, columns]
    positions[rows[kept]] = columns[kept]
    return positions
