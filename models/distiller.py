"""A student, its teacher, and the terms between them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.outputs import ForwardOutputs, TrainingOutput
from models.search_net import SearchNet


class Distiller(nn.Module):
    """One pass of the student, one of the teacher on the same images and regions, then a list of
    terms, each a module `(student: ForwardOutputs, teacher: ForwardOutputs) -> scalar`, in
    float32, since they sum over whole maps.

    The teacher is frozen and stays in eval mode. Terms with weights train beside the student.
    """

    def __init__(self, student: SearchNet, teacher: SearchNet, terms: dict[str, nn.Module]):
        super().__init__()
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        self.terms = nn.ModuleDict(terms)

    def train(self, mode: bool = True) -> "Distiller":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> TrainingOutput:
        """The student's own losses and one for each term, unweighted."""
        student = self.student.forward_train(images, targets)
        with torch.no_grad():
            teacher = self.teacher.forward_teacher(student)
        ours, theirs = (_float32(trace) for trace in (student, teacher))
        with torch.autocast(student.class_logits.device.type, enabled=False):
            for name, term in self.terms.items():
                student.losses[name] = term(ours, theirs)
        return self.student.training_output(student)


def _float32(trace: ForwardOutputs) -> ForwardOutputs:
    return replace(trace, features={name: level.float() for name, level in trace.features.items()})
