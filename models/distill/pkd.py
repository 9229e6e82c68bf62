"""PKD: Pearson correlation of the student's and the teacher's maps, independent of scale and shift.

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022, section 3: mean squared error of normalised FPN maps.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.distill import align_channels
from models.outputs import ForwardOutputs


def standardize(features: Tensor) -> Tensor:
    """Maps [N, C, H, W] with zero mean and unit standard deviation per channel over N, H and W."""
    mean = features.mean(dim=(0, 2, 3), keepdim=True)
    std = features.std(dim=(0, 2, 3), keepdim=True)
    return (features - mean) / (std + 1e-6)


def pkd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the mean squared error of standardized maps, which is 1 - their mean correlation."""
    return F.mse_loss(standardize(student), standardize(teacher)) / 2


class Term(nn.Module):
    """Sum of `pkd_loss` over the levels of both networks: 0 to 3 if both have an FPN."""

    mean_over = "images"

    def __init__(self, *, student_channels: int, teacher_channels: int, levels: Sequence[str]):
        super().__init__()
        self.align = nn.ModuleDict(
            {level: align_channels(student_channels, teacher_channels) for level in levels}
        )

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Maps of the same images [N, C, H, W] per level -> scalar."""
        losses = [
            pkd_loss(align(student.features[level]), teacher.features[level])
            for level, align in self.align.items()
        ]
        return torch.stack(losses).sum()
