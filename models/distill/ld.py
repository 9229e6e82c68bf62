"""LD, logit distillation: decoupled knowledge distillation of the detection logits.

DDPS, TMM 2024; Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.distill import check_choice
from models.distill.kd import LOGITS, standardize
from models.outputs import ForwardOutputs


def decoupled_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """alpha * TCKD + beta * NCKD, mean over R, times temperature squared.

    TCKD compares (target, rest), NCKD the classes other than the target among themselves. With
    two classes there is one such class and NCKD is exactly zero.

    Args:
        student, teacher: [R, C] logits.
        labels: [R] int64 in 0..C-1, the target class.
    """
    student, teacher = student / temperature, teacher / temperature
    target = F.one_hot(labels, student.shape[1]).bool()
    target_kl = _sum_kl(_target_or_rest(student, target), _target_or_rest(teacher, target))
    rest_kl = _sum_kl(
        _others(student, target).log_softmax(dim=1), _others(teacher, target).log_softmax(dim=1)
    )
    return (alpha * target_kl + beta * rest_kl) * temperature**2 / max(len(labels), 1)


def _others(logits: Tensor, target: Tensor) -> Tensor:
    """[R, C - 1]: the logits without the target's."""
    return logits[~target].view(len(logits), logits.shape[1] - 1)


def _target_or_rest(logits: Tensor, target: Tensor) -> Tensor:
    """[R, 2]: log probabilities of the target class and of all others together."""
    rest = _others(logits, target).logsumexp(dim=1)
    return torch.stack([logits[target], rest], dim=1).log_softmax(dim=1)


def _sum_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="sum", log_target=True)


class Term(nn.Module):
    """Decoupled distillation of person against background on the sampled proposals.

    Args:
        temperature: softens both sides' probabilities.
        alpha, beta: weights of TCKD and NCKD; with these two classes beta has no effect.
        logits: "raw" (published), or "standardized" as in `models.distill.kd`.
    """

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        temperature: float,
        alpha: float,
        beta: float,
        logits: str,
    ):
        super().__init__()
        self.logits = check_choice("DISTILLER.LD.LOGITS", logits, LOGITS)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Class logits [R, 2] of the same R proposals -> scalar."""
        labels = torch.cat(student.proposals.labels).clamp(max=1)  # any person is class 1
        logits = student.class_logits, teacher.class_logits
        if self.logits == "standardized":
            logits = tuple(map(standardize, logits))
        return decoupled_loss(*logits, labels, self.temperature, self.alpha, self.beta)
