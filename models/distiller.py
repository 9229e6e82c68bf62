"""Distillation: a student, a teacher and the terms that compare them."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.cached_teacher import CachedTeacher
from models.outputs import BATCH, ForwardOutputs, TrainingOutput
from models.search_net import SearchNet

Rows = tuple[Tensor, ...]


def only_own(name: str, rows: Rows) -> Rows:
    """Return the rows of a batch that consists of one part."""
    return rows


class Distiller(nn.Module):
    """A student, a teacher, and the terms that compare them.

    A forward pass runs the student, then the teacher on the same images and regions, and computes
    the terms. A term is a module `(student: ForwardOutputs, teacher: ForwardOutputs) -> scalar`.
    Terms are computed in float32, since they sum over whole maps. Parameters of terms are trained
    with the student's. The teacher is frozen and stays in eval mode.

    Args:
        teacher_precision: of the teacher's pass; None for the student's.
    """

    def __init__(
        self,
        student: SearchNet,
        teacher: SearchNet | CachedTeacher,
        terms: dict[str, nn.Module],
        teacher_precision: torch.dtype | None = None,
    ):
        super().__init__()
        self.teacher_precision = teacher_precision
        self.student = student
        self.teacher = teacher.requires_grad_(False).eval()
        self.terms = nn.ModuleDict(terms)

    def train(self, mode: bool = True) -> "Distiller":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]],
        size: tuple[int, int] | None = None,
        names: Collection[str] | None = None,
        join: Callable[[str, Rows], Rows] = only_own,
    ) -> TrainingOutput:
        """Return the student's own losses and one loss for each term, all unweighted.

        Args:
            images, targets, size: as in SearchNet.
            names: the terms to compute; None for all. Without any, the teacher does not run.
            join: a function from the name of a `BatchTerm` and the rows of this part to the rows of
                the whole batch.
        """
        student = self.student.forward_train(images, targets, size)
        result = self.student.training_output(student)
        terms = {k: term for k, term in self.terms.items() if names is None or k in names}
        if not terms:
            return result
        device = student.class_logits.device.type
        with torch.no_grad(), self._precision_of_teacher(device):
            teacher = self.teacher.forward_teacher(student)
        if teacher.proposals is not student.proposals:  # a cached teacher has its own regions
            student = self.student.on_proposals(student, teacher.proposals)
        ours, theirs = (_float32(outputs) for outputs in (student, teacher))
        with torch.autocast(device, enabled=False):
            for name, term in terms.items():
                if term.mean_over == BATCH:
                    loss = term.loss(join(name, term.rows(ours, theirs)), theirs)
                else:
                    loss = term(ours, theirs)
                result.losses[name], result.mean_over[name] = loss, term.mean_over
        return result

    def _precision_of_teacher(self, device: str) -> AbstractContextManager:
        if self.teacher_precision is None:
            return nullcontext()
        return torch.autocast(device, self.teacher_precision)


def _float32(outputs: ForwardOutputs) -> ForwardOutputs:
    features = {name: level.float() for name, level in outputs.features.items()}
    return replace(outputs, features=features)
