"""KD, plain logit distillation: temperature-scaled KL of the detection logits.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.outputs import Trace


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
    """

    def __init__(self, *, student_channels: int, teacher_channels: int, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Trace, teacher: Trace) -> Tensor:
        """Class logits [R, 2] of the same R proposals -> scalar."""
        return kd_loss(student.class_logits, teacher.class_logits, self.temperature)
