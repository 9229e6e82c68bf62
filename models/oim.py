"""Online instance matching: the re-id loss over a table of identities and a queue of strangers.

Xiao et al., "Joint Detection and Identification Feature Learning for Person Search", CVPR 2017,
section 3.2, equations 1 to 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datasets.types import UNLABELED


def is_labelled(labels: Tensor) -> Tensor:
    """[R] bool: people with an identity, 1..N."""
    return (labels > 0) & (labels != UNLABELED)


class OIM(nn.Module):
    """Look-up table of identities 1..N (row label - 1) and circular queue of unlabelled people.

    The loss reads a copy of the tables, `update` writes them: it may run before or after
    `backward`, the gradient always comes from the tables as the loss has read them.

    Args:
        num_pids: N, training identities.
        cq_size: rows of the queue; 0 for none.
        dim: D, size of an embedding.
        momentum: part of the old row that stays in an update.
        scale: inverse temperature of the softmax.
    """

    lut: Tensor
    cq: Tensor
    head: Tensor

    def __init__(
        self, num_pids: int, cq_size: int, dim: int, momentum: float = 0.5, scale: float = 30.0
    ):
        super().__init__()
        self.momentum = momentum
        self.scale = scale
        self.register_buffer("lut", torch.zeros(num_pids, dim))
        self.register_buffer("cq", torch.zeros(cq_size, dim))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def logits(self, embeddings: Tensor) -> Tensor:
        """Scaled similarities [R, N + queue] of embeddings [R, D] to the rows of both tables, in
        float32 under mixed precision too."""
        with torch.autocast(embeddings.device.type, enabled=False):
            # cat copies: writing into the tables before backward is safe
            return self.scale * embeddings.to(self.lut.dtype) @ torch.cat([self.lut, self.cq]).t()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, mean over labelled people; zero, with a graph, where there are none.

        Args:
            embeddings: [R, D], unit rows.
            labels: [R] int64: 0 background, 1..N, UNLABELED.
        """
        labeled = is_labelled(labels)
        logits = self.logits(embeddings[labeled])
        total = F.cross_entropy(logits, labels[labeled] - 1, reduction="sum")
        return total / labeled.sum().clamp(min=1)

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Write people into the tables, in order: labelled ones into their row, others queued.

        Args: as in `forward`.
        """
        embeddings = embeddings.to(self.lut.dtype)
        labeled = is_labelled(labels)
        self._blend(embeddings[labeled], labels[labeled] - 1)
        self._enqueue(embeddings[labels == UNLABELED])

    def _blend(self, people: Tensor, rows: Tensor) -> None:
        """`row <- unit(momentum * row + (1 - momentum) * x)`, person by person.

        Rows do not depend on each other: step k moves every row by its k-th person at once.
        """
        if len(rows) == 0:
            return
        ids, row = rows.unique(return_inverse=True)
        turn = (rows[:, None] == rows).tril(-1).sum(dim=1)  # how many of the same row came before
        moves = people.new_zeros(len(ids), int(turn.max()) + 1, people.shape[1])
        moves[row, turn] = people
        moved = torch.zeros(moves.shape[:2], dtype=torch.bool, device=rows.device)
        moved[row, turn] = True
        table = self.lut[ids]
        for k in range(moves.shape[1]):
            blended = F.normalize(self.momentum * table + (1 - self.momentum) * moves[:, k])
            table = torch.where(moved[:, k, None], blended, table)
        self.lut[ids] = table

    def _enqueue(self, people: Tensor) -> None:
        size = len(self.cq)
        if size == 0 or len(people) == 0:
            return
        slots = (self.head + torch.arange(len(people), device=people.device)) % size
        self.cq[slots[-size:]] = people[-size:]  # more than `size` people: the last ones stay
        self.head.add_(len(people)).remainder_(size)
