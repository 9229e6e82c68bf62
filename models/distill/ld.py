"""LD, logit distillation: decoupled knowledge distillation of the detection logits.

DDPS, TMM 2024; Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equation 7.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.distill import BatchTerm, check_choice
from models.distill.kd import LOGITS, logits_mean_over, standardize
from models.outputs import ForwardOutputs


def decoupled_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Return alpha · TCKD + beta · NCKD, mean over R, times temperature squared.

    TCKD is the KL divergence of the probabilities (target, rest), NCKD that of the classes other
    than the target. With two classes there is one such class and NCKD is exactly zero.

    Args:
        student: [R, C] logits.
        teacher: [R, C] logits.
        labels: [R] int64 in 0..C-1, the target class.
        temperature: of all softmaxes.
        alpha: weight of TCKD.
        beta: weight of NCKD.
    """
    student, teacher = student / temperature, teacher / temperature
    target = F.one_hot(labels, student.shape[1]).bool()
    target_kl = _sum_kl(_target_or_rest(student, target), _target_or_rest(teacher, target))
    rest_kl = _sum_kl(
        _others(student, target).log_softmax(dim=1), _others(teacher, target).log_softmax(dim=1)
    )
    return (alpha * target_kl + beta * rest_kl) * temperature**2 / max(len(labels), 1)


def _others(logits: Tensor, target: Tensor) -> Tensor:
    """Return the logits of the classes other than the target, [R, C - 1]."""
    return logits[~target].view(len(logits), logits.shape[1] - 1)


def _target_or_rest(logits: Tensor, target: Tensor) -> Tensor:
    """Return log probabilities of the target class and of all other classes together, [R, 2]."""
    rest = _others(logits, target).logsumexp(dim=1)
    return torch.stack([logits[target], rest], dim=1).log_softmax(dim=1)


def _sum_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="sum", log_target=True)


class Term(BatchTerm):
    """LD of person and background on the sampled proposals.

    Args:
        temperature: of all softmaxes.
        alpha: weight of TCKD.
        beta: weight of NCKD; it has no effect with these two classes.
        logits: "raw" (published), or "standardized" as in `models.distill.kd`.
        cached: whether the teacher's logits come from the cache.
    """

    reads = "class_logits"

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        levels: Sequence[str],
        temperature: float,
        alpha: float,
        beta: float,
        logits: str,
        cached: bool = False,
    ):
        super().__init__()
        self.logits = check_choice("DISTILLER.LD.LOGITS", logits, LOGITS)
        self.mean_over = logits_mean_over(logits, cached)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return class logits [R, 2] of the same R proposals, and their classes [R]; 1: any
        person."""
        labels = torch.cat(student.proposals.labels).clamp(max=1)
        return student.class_logits, teacher.class_logits, labels

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        ours, theirs, labels = rows
        if self.logits == "standardized":
            ours, theirs = standardize(ours), standardize(theirs)
        return decoupled_loss(ours, theirs, labels, self.temperature, self.alpha, self.beta)
