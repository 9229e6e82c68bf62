"""The normalisation of pixels: that of ImageNet, converted where a backbone needs another.

A teacher computes its maps from the student's normalised images, so that all networks have the same
normalisation outside of their backbones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class FromImageNet(nn.Module):
    """Conversion of pixels from ImageNet's mean and deviation to another mean and deviation.

    Both numbers of each channel are stored with the weights, which are valid for them only.

    Args:
        mean, std: of the channels red, green and blue, for pixels in 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        own_mean, own_std, new_mean, new_std = (
            torch.tensor(list(numbers)).view(3, 1, 1)
            for numbers in (IMAGENET_MEAN, IMAGENET_STD, mean, std)
        )
        self.register_buffer("scale", own_std / new_std)
        self.register_buffer("shift", (own_mean - new_mean) / new_std)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift
