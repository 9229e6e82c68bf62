"""KD, plain logit distillation: temperature-scaled KL divergence of the detection logits.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2. Standardized logits
follow Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from models.distill import BatchTerm, check_choice
from models.outputs import BATCH, ForwardOutputs

LOGITS = ("raw", "standardized")


def logits_mean_over(logits: str, cached: bool) -> str:
    """Return what the loss of such logits is a mean over, as `Term.mean_over`.

    The regions of a cached teacher are not those that a pass counts.
    """
    return "proposals" if logits == "raw" and not cached else BATCH


def standardize(logits: Tensor) -> Tensor:
    """Give the logits [R, C] of each class zero mean and unit standard deviation over the R
    proposals.

    Sun et al. standardize over the classes of one sample. With two classes the result would be +1
    and -1 for any logits, without a gradient. Over proposals, the loss is independent of the scale
    of the student's logits, as in the paper, and depends on their differences between proposals.
    """
    centred = logits - logits.mean(dim=0)
    return F.normalize(centred, dim=0) * len(logits) ** 0.5


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return KL(teacher || student) for logits [R, C], mean over R, times temperature squared."""
    ours = (student / temperature).log_softmax(dim=1)
    theirs = (teacher / temperature).log_softmax(dim=1)
    total = F.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total * temperature**2 / max(len(student), 1)


class Term(BatchTerm):
    """KD of person and background on the sampled proposals.

    Args:
        temperature: of both softmaxes.
        logits: "raw", or "standardized" by `standardize`.
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
        logits: str,
        cached: bool = False,
    ):
        super().__init__()
        self.temperature = temperature
        self.logits = check_choice("DISTILLER.KD.LOGITS", logits, LOGITS)
        self.mean_over = logits_mean_over(logits, cached)

    def rows(self, student: ForwardOutputs, teacher: ForwardOutputs) -> tuple[Tensor, ...]:
        """Return class logits [R, 2] of the same R proposals."""
        return student.class_logits, teacher.class_logits

    def loss(self, rows: tuple[Tensor, ...], teacher: ForwardOutputs) -> Tensor:
        ours, theirs = rows
        if self.logits == "standardized":
            ours, theirs = standardize(ours), standardize(theirs)
        return kd_loss(ours, theirs, self.temperature)
