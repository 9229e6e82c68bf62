"""The sums that DFD needs of a pair of FPN maps, in one forward and one backward pass over them.

Plain formulas, for maps S, T [N, C, P] of P positions, weights w [N, P] and a [N, C], and a mask
q [C], b [1]:

    error    = (w[:, None] * a[:, :, None] * (S - T) ** 2).sum()
    squares  = ((S - T) ** 2).sum()
    gaps     = (S - T).sum(2)                                       [N, C]
    places   = S.abs().mean(1), channels = S.abs().mean(2)          [N, P], [N, C]
    context  = (S * softmax(q · S + b over P)).sum(2)               [N, C]

In this form each formula reads and writes maps of 90 MB, and its gradient is as large as the map;
autograd adds these gradients one by one. Each gradient is (S - T) or sign(S) times a matrix of rank
one, or is itself of rank one. Here all of them are computed chunk by chunk of positions, each small
enough for the processor's cache. On a GPU, where every chunk costs kernel launches, there is one
chunk. The teacher's map has no gradient.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 4096  # positions: 4 MiB for 256 channels


class MapSums(torch.autograd.Function):
    """(S, T, w, a, q, b) -> error, squares, gaps, places, channels, context.

    Gradients are computed for S, q and b only.
    """

    @staticmethod
    def forward(ctx, s: Tensor, t: Tensor, w: Tensor, a: Tensor, q: Tensor, b: Tensor):
        shares = (q @ s + b).softmax(dim=1)
        ctx.save_for_backward(s, t, w, a, q, shares)
        weighted, whole, gaps, context = torch.zeros(4, *a.shape, dtype=s.dtype, device=s.device)
        for si, ti, wi, share in chunks(s, t, w, shares):
            gap = si - ti
            gaps += gap.sum(2)
            squares = gap.square_()
            whole += squares.sum(2)
            weighted += squares.mul_(wi[:, None]).sum(2)  # a matrix product would be off by 1e-5
            context += (si @ share[:, :, None])[:, :, 0]
        return (a * weighted).sum(), whole.sum(), gaps, *strengths(s), context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, error, squares, gaps, places, channels, context):
        s, t, w, a, q, shares = ctx.saved_tensors
        per_share = (context[:, None] @ s)[:, 0]  # [N, P]
        logits = shares * (per_share - (shares * per_share).sum(dim=1, keepdim=True))
        grad, mask, one = torch.empty_like(s), torch.zeros_like(q), torch.ones_like(a)
        columns = (
            torch.stack([2 * error * a, 2 * squares * one], dim=2),
            torch.stack([channels / s.shape[2], one], dim=2),
            torch.stack([context, q.expand_as(a), gaps], dim=2),
        )
        rows = w, places / s.shape[1], shares, logits
        for si, ti, to, wi, place, share, logit in chunks(s, t, grad, *rows):
            one = torch.ones_like(wi)
            torch.mul(columns[0] @ torch.stack([wi, one], dim=1), si - ti, out=to)
            to += (columns[1] @ torch.stack([one, place], dim=1)).mul_(si.sign())
            to += columns[2] @ torch.stack([share, logit, one], dim=1)
            mask += (si @ logit[:, :, None]).sum(dim=(0, 2))
        return grad, None, None, None, mask, logits.sum()[None]


def strengths(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean absolute features [N, C, P] of each position [N, P] and each channel [N, C]."""
    channels, places = features.new_zeros(features.shape[:2]), []
    for (chunk,) in chunks(features):
        strength = chunk.abs()
        channels += strength.sum(2)
        places.append(strength.mean(1))
    return torch.cat(places, dim=1), channels / features.shape[2]


def chunks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Return tuples of parts of the maps, split along their last dimension: CHUNK positions each on
    a CPU, one part elsewhere."""
    places = CHUNK if maps[0].is_cpu else maps[0].shape[-1]
    return zip(*(one.split(places, dim=-1) for one in maps))
