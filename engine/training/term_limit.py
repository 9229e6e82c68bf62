"""A limit on the gradient of the distillation terms, relative to the student's own gradient."""

import torch
from torch import Tensor, nn

from engine.distributed import total


class TermLimit:
    """The gradients of own losses and of terms, collected separately and added with a limit.

    Let o be the gradient of the student's own losses on its weights, and t that of all distillation
    terms. The limit scales t by a factor of at most 1, such that |t| / (|o| + |t|) is at most
    `share`. Weights of the terms themselves have only gradients of terms, which are not scaled. All
    norms are of the whole batch, over all parts and ranks.

    Args:
        weights: the trained weights of the student.
        others: the trained weights of the terms.
        share: 0 < share < 1.
    """

    def __init__(self, weights: list[nn.Parameter], others: list[nn.Parameter], share: float):
        self.weights, self.others, self.share = weights, others, share
        self.own: list[Tensor] = []
        self.terms: list[Tensor] = []

    def reset(self) -> None:
        """Reset the gradients for a new batch."""
        self.own = [torch.zeros_like(p) for p in self.weights]
        self.terms = [torch.zeros_like(p) for p in [*self.weights, *self.others]]

    def add(self, own: Tensor, terms: Tensor) -> None:
        """Add the gradients of one part's own losses and terms. The graph is freed."""
        if own.requires_grad:
            _add_gradients(self.own, own, self.weights, retain_graph=True)
        if terms.requires_grad:
            _add_gradients(self.terms, terms, [*self.weights, *self.others])

    def write(self) -> None:
        """Write the limited sum of all gradients, over all ranks, into the weights' `grad`."""
        own, terms = (list(map(total, some)) for some in (self.own, self.terms))
        count = len(self.weights)
        factor = self.share / (1 - self.share) * _norm(own) / _norm(terms[:count]).clamp(min=1e-12)
        factor = factor.clamp(max=1)
        for weight, ours, theirs in zip(self.weights, own, terms):
            weight.grad = ours + factor * theirs
        for weight, gradient in zip(self.others, terms[count:]):
            weight.grad = gradient


def _add_gradients(
    sums: list[Tensor], loss: Tensor, weights: list[nn.Parameter], retain_graph: bool = False
) -> None:
    gradients = torch.autograd.grad(loss, weights, retain_graph=retain_graph, allow_unused=True)
    for one, gradient in zip(sums, gradients):
        if gradient is not None:
            one += gradient


def _norm(gradients: list[Tensor]) -> Tensor:
    return torch.stack([gradient.norm() for gradient in gradients]).norm()
