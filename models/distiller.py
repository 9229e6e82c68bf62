"""Distillation: a student, a teacher and the terms that compare them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.outputs import ForwardOutputs, TrainingOutput
from models.search_net import SearchNet


class Distiller(nn.Module):
    """Run the student, run the teacher on the same images and regions, and compute the terms.

    A term is a module `(student: ForwardOutputs, teacher: ForwardOutputs) -> scalar`. Terms are
    computed in float32, since they sum over whole maps. Parameters of terms are trained with the
    student's. The teacher is frozen and stays in eval mode.
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
        """The student's own losses and one loss for each term, unweighted."""
        student = self.student.forward_train(images, targets)
        with torch.no_grad():
            teacher = self.teacher.forward_teacher(student)
        result = self.student.training_output(student)
        ours, theirs = (_float32(outputs) for outputs in (student, teacher))
        with torch.autocast(student.class_logits.device.type, enabled=False):
            for name, term in self.terms.items():
                result.losses[name] = term(ours, theirs)
                result.mean_over[name] = term.mean_over
        return result


def _float32(outputs: ForwardOutputs) -> ForwardOutputs:
    features = {name: level.float() for name, level in outputs.features.items()}
    return replace(outputs, features=features)
