"""PKD: Pearson correlation of the student's and the teacher's maps, independent of scale and shift.

Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
Coefficient", NeurIPS 2022, section 3: mean squared error of normalised FPN maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.distill import BatchTerm, align_channels
from models.fast.map_sums import chunks
from models.outputs import ForwardOutputs


class Moments(torch.autograd.Function):
    """Sums over the N·P positions of maps S, T [N, C, P], for each channel: [C, 5] float64.

    The columns are the sums of S, T, S², T² and S·T. The teacher's map T has no gradient.
    """

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(s, t)
        total = torch.zeros(s.shape[1], 5, dtype=torch.float64, device=s.device)
        for si, ti in chunks(s, t):
            si, ti = si.double(), ti.double()
            columns = si, ti, si * si, ti * ti, si * ti
            total += torch.stack([column.sum(dim=(0, 2)) for column in columns], dim=1)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        s, t = ctx.saved_tensors
        ones, _, squares, _, products = grad.to(s.dtype)[:, :, None].unbind(dim=1)
        return torch.addcmul(ones, 2 * squares, s).addcmul_(products, t), None


def channel_moments(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the number of positions and the `Moments` of maps [N, C, H, W]: [C, 6] float64."""
    sums = Moments.apply(student.flatten(2), teacher.flatten(2))
    return torch.cat([sums.new_full((len(sums), 1), student[:, 0].numel()), sums], dim=1)


def loss_of_moments(moments: Tensor) -> Tensor:
    """Return the loss of PKD of maps with these moments [..., C, 6], one for each level: [...].

    The loss is half the mean squared error of the normalised maps, which is (n - 1) / n times 1 -
    their mean correlation. Each channel is normalised to zero mean and unit standard deviation over
    N, H and W, so that the squares of a map add up to n - 1. In double precision the differences
    below are accurate enough for the loss.
    """
    n, s, t, ss, tt, st = moments.unbind(dim=-1)
    squares = [(ss - s * s / n), (tt - t * t / n)]
    # a deviation of 0 has no derivative; far below the 1e-6 another value changes nothing
    scales = [(v.clamp(min=1e-20) / (n - 1).clamp(min=1)).sqrt() + 1e-6 for v in squares]
    parts = [v / scale**2 for v, scale in zip(squares, scales)]
    product = (st - s * t / n) / (scales[0] * scales[1])
    return ((parts[0] + parts[1] - 2 * product) / (2 * n)).mean(dim=-1).float()


class Term(BatchTerm):
    """Sum of the losses of PKD over the levels of both networks: 0 to 3 if both have an FPN."""

    def __init__(self, *, student_channels: int, teacher_channels: int, levels: Sequence[str]):
        super().__init__()
        self.align = nn.ModuleDict(
            {level: align_channels(student_channels, teacher_channels) for level in levels}
        )

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return one row: the moments of all levels, [1, levels, C, 6]."""
        moments = [
            channel_moments(align(student.features[level]), teacher.features[level])
            for level, align in self.align.items()
        ]
        return (torch.stack(moments)[None],)

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        return loss_of_moments(rows[0].sum(dim=0)).sum()
