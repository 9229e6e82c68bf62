"""RPN distillation: plain logit distillation of the objectness of anchors.

LD and KD distil the logits of the detection branch; this term distils those of the region proposal
network. It is not part of DDPS. The loss is that of Hinton et al., "Distilling the Knowledge in a
Neural Network", 2015, section 2, for two classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.distill.kd import kd_loss
from models.outputs import ForwardOutputs


def objectness_loss(student: Tensor, teacher: Tensor, anchors: int, temperature: float) -> Tensor:
    """Return KL(teacher || student) of the objectness of some anchors, times temperature squared.

    The loss is a mean over these anchors.

    Args:
        student, teacher: logits [N, A] of all A anchors of N images.
        anchors: the number of anchors per image, those with the largest logits of the teacher.
        temperature: of both sigmoids.
    """
    best = teacher.topk(min(anchors, teacher.shape[1]), dim=1).indices
    ours, theirs = (_two_classes(side.gather(1, best).flatten()) for side in (student, teacher))
    return kd_loss(ours, theirs, temperature)


def _two_classes(logits: Tensor) -> Tensor:
    """Convert logits [R] to logits of two classes [R, 2]: the sigmoid of a logit is the softmax of
    that logit and zero."""
    return torch.stack([logits, torch.zeros_like(logits)], dim=1)


def objectness(outputs: ForwardOutputs) -> Tensor:
    """Compute the RPN's logits [N, A] of all anchors from the features of a pass."""
    assert outputs.rpn_head is not None
    levels = outputs.rpn_head(list(outputs.features.values()))[0]
    return torch.cat([level.flatten(1) for level in levels], dim=1)


class Term(nn.Module):
    """Distillation of the RPN's objectness.

    Both networks must have the same anchors. The student's RPN head runs a second time. All anchors
    but the selected ones have no gradient.

    Args:
        anchors, temperature: as in `objectness_loss`.
    """

    mean_over = "images"

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        levels: Sequence[str],
        anchors: int,
        temperature: float,
    ):
        super().__init__()
        self.anchors = anchors
        self.temperature = temperature

    def forward(self, student: ForwardOutputs, teacher: ForwardOutputs) -> Tensor:
        """Compute the loss, a scalar, from both networks' features of the same images."""
        ours = objectness(student)
        with torch.no_grad():
            theirs = objectness(teacher)
        return objectness_loss(ours, theirs, self.anchors, self.temperature)
