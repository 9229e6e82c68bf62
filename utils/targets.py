"""Annotations of an image as tensors."""

from torch import Tensor

# "boxes" [n, 4] float32 x1 y1 x2 y2 pixels, "labels" [n] int64; further values have one entry for
# each box, or are a single number for the image
Target = dict[str, Tensor]


def select(target: Target, keep: Tensor) -> Target:
    """Return the target with the boxes that a mask [n] selects."""
    return {key: value[keep] if value.dim() else value for key, value in target.items()}
