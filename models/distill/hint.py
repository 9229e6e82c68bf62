"""Hint: regression of the teacher's FPN maps from the student's.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3; here it is a mean,
applied to FPN maps, and trained together with the other losses instead of in a stage before them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.outputs import ForwardOutputs


class Term(nn.Module):
    """Mean squared error, summed over the levels of both networks, each with a 1×1 regressor."""

    mean_over = "images"

    def __init__(self, *, student_channels: int, teacher_channels: int, levels: Sequence[str]):
        super().__init__()
        self.regressors = nn.ModuleDict(
            {level: nn.Conv2d(student_channels, teacher_channels, 1) for level in levels}
        )

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Compute the loss, a scalar, from both networks' maps [N, C, H, W] of the same images."""
        losses = [
            F.mse_loss(regressor(student.features[level]), teacher.features[level])
            for level, regressor in self.regressors.items()
        ]
        return torch.stack(losses).sum()
