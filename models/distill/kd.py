"""KD, plain logit distillation: temperature-scaled KL of the detection logits.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2; standardized logits
after Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.distill import check_choice
from models.outputs import ForwardOutputs

LOGITS = ("raw", "standardized")


def standardize(logits: Tensor) -> Tensor:
    """[R, C] with zero mean and unit standard deviation of each class over the R proposals.

    Sun et al. take both over the classes of one sample. Of two classes that leaves +1 and -1 for
    any logits, without a gradient; over the proposals, how strong the student's logits are is as
    free as in the paper, and how they differ from one proposal to the next is learnt.
    """
    centred = logits - logits.mean(dim=0)
    return F.normalize(centred, dim=0) * len(logits) ** 0.5


def kd_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of [R, C] logits, mean over R, times temperature squared."""
    ours = (student / temperature).log_softmax(dim=1)
    theirs = (teacher / temperature).log_softmax(dim=1)
    total = F.kl_div(ours, theirs, reduction="sum", log_target=True)
    return total * temperature**2 / max(len(student), 1)


class Term(nn.Module):
    """Person against background on the sampled proposals.

    Args:
        temperature: softens both sides' probabilities.
        logits: "raw", or "standardized", as `standardize` does.
    """

    def __init__(
        self, *, student_channels: int, teacher_channels: int, temperature: float, logits: str
    ):
        super().__init__()
        self.temperature = temperature
        self.logits = check_choice("DISTILLER.KD.LOGITS", logits, LOGITS)

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Class logits [R, 2] of the same R proposals -> scalar."""
        logits = student.class_logits, teacher.class_logits
        if self.logits == "standardized":
            logits = tuple(map(standardize, logits))
        return kd_loss(*logits, self.temperature)
