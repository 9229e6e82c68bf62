"""The normalisation of pixels: that of ImageNet, converted where a backbone needs another.

A teacher computes its maps from the student's normalised images, so that all networks have the same
normalisation outside of their backbones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class FromImageNet(nn.Module):
    """Convert pixels normalised by ImageNet's mean and deviation to another mean and deviation.

    Both numbers of each channel are stored with the weights, which are valid for them only.

    Args:
        mean, std: of the channels red, green and blue, for pixels in 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        before, after = (torch.tensor(pair).view(2, 3, 1, 1) for pair in _pairs(mean, std))
        self.register_buffer("scale", before[1] / after[1])
        self.register_buffer("shift", (before[0] - after[0]) / after[1])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def _pairs(mean: Sequence[float], std: Sequence[float]) -> tuple[list, list]:
    return [IMAGENET_MEAN, IMAGENET_STD], [list(mean), list(std)]
