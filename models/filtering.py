"""The selection of the detections of an image that are kept."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops

MIN_SIDE = 0.01  # pixels; narrower boxes are dropped


class DetectionLimits(NamedTuple):
    """The limits by which detections are filtered.

    Attributes:
        score: only higher scores are kept.
        overlap: IoU above which non-maximum suppression drops the lower-scoring box.
        count: largest number of detections of an image.
    """

    score: float
    overlap: float
    count: int


def filter_detections(boxes: Tensor, scores: Tensor, limits: DetectionLimits) -> Tensor:
    """Apply the limits to the boxes [n, 4] and scores [n] of an image.

    Returns:
        The indices of the detections that are kept, by falling score.
    """
    keep = torch.where(scores > limits.score)[0]
    keep = keep[box_ops.remove_small_boxes(boxes[keep], MIN_SIDE)]
    keep = keep[box_ops.nms(boxes[keep], scores[keep], limits.overlap)]
    return keep[: limits.count]
