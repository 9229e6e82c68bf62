"""ReviewKD: each of the student's maps, fused with the deeper maps, is compared with the teacher's.

Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021: residual learning (section
3.2, L_MKD_R) with attention-based fusion and hierarchical context loss (section 3.3: ABF, HCL).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.distill import FPN_LEVELS
from models.outputs import ForwardOutputs
from utils.errors import UserError

POOLED_SIDES = (4, 2, 1)


def hierarchical_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return a weighted mean of the squared errors of maps [N, C, H, W] at full size and at pooled
    sizes.

    The weight of the full size is 1; those of 4×4, 2×2 and 1×1 are half of the previous one. Sizes
    that are not smaller than the map are left out.
    """
    total, weights = F.mse_loss(student, teacher), 1.0
    sides = [side for side in POOLED_SIDES if side < min(student.shape[-2:])]
    for step, side in enumerate(sides, start=1):
        ours, theirs = (F.adaptive_avg_pool2d(maps, side) for maps in (student, teacher))
        total = total + F.mse_loss(ours, theirs) / 2**step
        weights += 1 / 2**step
    return total / weights


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Fusion(nn.Module):
    """ABF: attention-weighted sum of the student's map and the fused map of the deeper level.

    The deepest level has no deeper map, and therefore no attention.
    """

    def __init__(self, in_channels: int, channels: int, deepest: bool):
        super().__init__()
        self.reduce = _conv(in_channels, channels, 1)
        self.attention = None if deepest else nn.Conv2d(2 * channels, 2, kernel_size=1)
        self.out = _conv(channels, channels, 3)

    def forward(self, features: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute the map to compare and the fused map, from a map [N, C, H, W] and the fused map
        of the deeper level."""
        fused = self.reduce(features)
        if self.attention is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[-2:], mode="nearest")
            weights = self.attention(torch.cat([fused, deeper], dim=1)).sigmoid()
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        return self.out(fused), fused


class Term(nn.Module):
    """Sum of `hierarchical_loss` over the levels of both networks (all five if both have an FPN),
    with one fusion module per level."""

    mean_over = "images"

    def __init__(self, *, student_channels: int, teacher_channels: int, levels: Sequence[str]):
        super().__init__()
        order = [*reversed(levels)]  # from deep to shallow
        if tuple(levels) == FPN_LEVELS:
            order.insert(0, "pool")
        self.fusions = nn.ModuleDict(
            {
                level: Fusion(student_channels, teacher_channels, deepest=level == order[0])
                for level in order
            }
        )

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Compute the loss, a scalar, from both networks' maps [N, C, H, W] of the same images.

        Raises:
            UserError: in training, if a map of the batch has one value per channel, which cannot be
                normalized.
        """
        losses, fused = [], None
        for level, fusion in self.fusions.items():
            features = student.features[level]
            if self.training and features[:, 0].numel() == 1:
                raise UserError(
                    "DISTILLER.TERMS: reviewkd expected a batch of two images, or images of more "
                    f"than 64 pixels, found one image with one value per channel in map {level!r}"
                )
            reviewed, fused = fusion(features, fused)
            losses.append(hierarchical_loss(reviewed, teacher.features[level]))
        return torch.stack(losses).sum()
