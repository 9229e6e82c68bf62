"""What DFD sums over a pair of FPN maps, with one backward pass over the student's map.

Plain, for maps S, T [N, C, P] of P places, weights w [N, P] and a [N, C], and a mask q [C], b [1]:

    error    = (w[:, None] * a[:, :, None] * (S - T) ** 2).sum()
    squares  = ((S - T) ** 2).sum()
    gaps     = (S - T).sum(2)                                       [N, C]
    places   = S.abs().mean(1), channels = S.abs().mean(2)          [N, P], [N, C]
    context  = (S * softmax(q · S + b over P)).sum(2)               [N, C]

Written so, each is a term of the gradient as large as the map, which autograd adds to the others
one by one. All of them are (S - T) or the sign of S times something of rank one, or of rank one
themselves, and are written here at once. The teacher's map gets no gradient.
"""

import torch
from torch import Tensor


class MapSums(torch.autograd.Function):
    """(S, T, w, a, q, b) -> error, squares, gaps, places, channels, context; w and a are constants
    to it."""

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor, w: Tensor, a: Tensor, q: Tensor, b: Tensor):
        shares = (q @ s + b).softmax(dim=1)
        ctx.save_for_backward(s, t, w, a, q, shares)
        gap, strength = s - t, s.abs()
        squares = gap.square() @ torch.stack([w, torch.ones_like(w)], dim=2)
        weighted, whole = squares.unbind(2)  # [N, C] each
        context = (s @ shares[:, :, None])[:, :, 0]
        error = (a * weighted).sum()
        return error, whole.sum(), gap.sum(2), strength.mean(1), strength.mean(2), context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, error, squares, gaps, places, channels, context):
        s, t, w, a, q, shares = ctx.saved_tensors
        per_share = (context[:, None] @ s)[:, 0]  # [N, P]
        logits = shares * (per_share - (shares * per_share).sum(dim=1, keepdim=True))
        mask = (s @ logits[:, :, None]).sum(dim=(0, 2))
        one_c, one_p = torch.ones_like(a), torch.ones_like(w)
        below = _outer([2 * error * a, 2 * squares * one_c], [w, one_p]).mul_(s - t)
        strength = _outer([channels / s.shape[2], one_c], [one_p, places / s.shape[1]])
        below += strength.mul_(s.sign())
        below += _outer([context, q.expand_as(a), gaps], [shares, logits, one_p])
        return below, None, None, None, mask, logits.sum()[None]


def _outer(columns: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Sum of outer products of columns [N, C] and rows [N, P]: [N, C, P]."""
    return torch.stack(columns, dim=2) @ torch.stack(rows, dim=1)
