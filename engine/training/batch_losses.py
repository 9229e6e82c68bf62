"""The rows of the terms that are defined over the whole batch, collected from all of its parts.

The loss of such a term (`models.distill.BatchTerm`) is a function of the rows of all parts and
ranks. Each part computes this loss from its own rows, with a graph, and from all other rows as
constants. The gradient is then the derivative with respect to its own rows, and the gradients of
all parts add up to that of the whole batch.
"""

import torch
from torch import Tensor

from engine.distributed import rank, rows_of_ranks
from models.distiller import Rows


class BatchRows:
    """The rows of each term in all parts of this rank and in all other ranks, without graphs.

    All ranks must construct it at the same time.

    Args:
        parts: for each part of this rank the rows of each term, by its name.
    """

    def __init__(self, parts: list[dict[str, Rows]]):
        self.parts = [
            {name: tuple(map(Tensor.detach, rows)) for name, rows in part.items()} for part in parts
        ]
        self.others = {
            name: [
                _of_others(torch.cat(rows)) for rows in zip(*(part[name] for part in self.parts))
            ]
            for name in parts[0]
        }

    def join(self, number: int, name: str, own: Rows) -> Rows:
        """Return the rows of the whole batch.

        Args:
            number: of a part of this rank.
            own: the rows of that part with a graph; they come first in the result.
        """
        beside = [part[name] for i, part in enumerate(self.parts) if i != number]
        return tuple(map(torch.cat, zip(own, *beside, self.others[name])))


def _of_others(rows: Tensor) -> Tensor:
    """Return the rows of the other ranks."""
    ranks = rows_of_ranks(rows)
    ranks[rank()] = rows[:0]
    return torch.cat(ranks)
