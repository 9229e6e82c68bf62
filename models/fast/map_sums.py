"""What DFD sums over a pair of FPN maps, with one pass over them and one backward.

Plain, for maps S, T [N, C, P] of P places, weights w [N, P] and a [N, C], and a mask q [C], b [1]:

    error    = (w[:, None] * a[:, :, None] * (S - T) ** 2).sum()
    squares  = ((S - T) ** 2).sum()
    gaps     = (S - T).sum(2)                                       [N, C]
    places   = S.abs().mean(1), channels = S.abs().mean(2)          [N, P], [N, C]
    context  = (S * softmax(q · S + b over P)).sum(2)               [N, C]

Written so, each reads and writes maps of 90 MB, and is a term of the gradient as large as the map,
which autograd adds to the others one by one. All terms are (S - T) or the sign of S times something
of rank one, or of rank one themselves. Here they are computed piece by piece, each of so few places
that all that is needed of them stays in the processor's cache; on a GPU, where every piece costs
launches of kernels, in one. The teacher's map gets no gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 4096  # places: 4 MiB of 256 channels


class MapSums(torch.autograd.Function):
    """(S, T, w, a, q, b) -> error, squares, gaps, places, channels, context; w and a are constants
    to it."""

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor, w: Tensor, a: Tensor, q: Tensor, b: Tensor):
        shares = (q @ s + b).softmax(dim=1)
        ctx.save_for_backward(s, t, w, a, q, shares)
        weighted, whole, gaps, context = torch.zeros(4, *a.shape, dtype=s.dtype, device=s.device)
        for si, ti, wi, share in _pieces(s, t, w, shares):
            gap = si - ti
            gaps += gap.sum(2)
            squares = gap.square_()
            whole += squares.sum(2)
            weighted += squares.mul_(wi[:, None]).sum(2)  # a product of matrices rounds 1e-5 away
            context += (si @ share[:, :, None])[:, :, 0]
        return (a * weighted).sum(), whole.sum(), gaps, *strengths(s), context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, error, squares, gaps, places, channels, context):
        s, t, w, a, q, shares = ctx.saved_tensors
        per_share = (context[:, None] @ s)[:, 0]  # [N, P]
        logits = shares * (per_share - (shares * per_share).sum(dim=1, keepdim=True))
        below, mask, one = torch.empty_like(s), torch.zeros_like(q), torch.ones_like(a)
        columns = (
            torch.stack([2 * error * a, 2 * squares * one], dim=2),
            torch.stack([channels / s.shape[2], one], dim=2),
            torch.stack([context, q.expand_as(a), gaps], dim=2),
        )
        rows = w, places / s.shape[1], shares, logits
        for si, ti, to, wi, place, share, logit in _pieces(s, t, below, *rows):
            one = torch.ones_like(wi)
            torch.mul(columns[0] @ torch.stack([wi, one], dim=1), si - ti, out=to)
            to += (columns[1] @ torch.stack([one, place], dim=1)).mul_(si.sign())
            to += columns[2] @ torch.stack([share, logit, one], dim=1)
            mask += (si @ logit[:, :, None]).sum(dim=(0, 2))
        return below, None, None, None, mask, logits.sum()[None]


def strengths(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute features [N, C, P] of the places [N, P] and of the channels [N, C]."""
    channels, places = features.new_zeros(features.shape[:2]), []
    for (piece,) in _pieces(features):
        strength = piece.abs()
        channels += strength.sum(2)
        places.append(strength.mean(1))
    return torch.cat(places, dim=1), channels / features.shape[2]


def _pieces(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Maps of the same places, which are the last dimension, piece by piece."""
    places = PIECE if maps[0].is_cpu else maps[0].shape[-1]
    return zip(*(one.split(places, dim=-1) for one in maps))
