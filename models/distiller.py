"""A student, its teacher, and the terms between them."""
import torch
from torch import Tensor, nn

from models.outputs import Step
from models.search_net import SearchNet


class Distiller(nn.Module):
    """One pass of the student, one of the teacher on the same images and regions, then a list of
    terms, each a module `(student: Trace, teacher: Trace) -> scalar`.

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

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> Step:
        """The student's own losses and one for each term, unweighted."""
        student = self.student.trace(images, targets)
        with torch.no_grad():
            teacher = self.teacher.replay(student)
        for name, term in self.terms.items():
            student.losses[name] = term(student, teacher)
        return self.student.step(student)
