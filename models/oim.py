"""Online instance matching (OIM): the re-id loss over a table of identities and a queue of
unlabelled people.

Xiao et al., "Joint Detection and Identification Feature Learning for Person Search", CVPR 2017,
section 3.2, equations 1 to 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OIM(nn.Module):
    """Look-up table of the identities 1..N (row label - 1) and circular queue of unlabelled people.

    Labels are int64: 0 is background, 1..N are the identities, and every label above N is an
    unlabelled person.

    The loss is computed on a copy of the tables, and `update` changes the tables. `update` may
    therefore run before or after `backward`: the gradient is that of the tables at the time of the
    loss.

    Args:
        num_pids: N, the number of training identities.
        cq_size: rows of the queue; 0 for none.
        dim: D, length of an embedding.
        momentum: share of the old row that is kept in an update.
        scale: inverse temperature of the softmax.
    """

    lut: Tensor
    cq: Tensor
    head: Tensor

    def __init__(
        self, num_pids: int, cq_size: int, dim: int, momentum: float = 0.5, scale: float = 30.0
    ):
        super().__init__()
        self.dim = dim
        self.momentum = momentum
        self.scale = scale
        self.register_buffer("lut", torch.zeros(num_pids, dim))
        self.register_buffer("cq", torch.zeros(cq_size, dim))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))

    def is_labelled(self, labels: Tensor) -> Tensor:
        """Return whether each label is that of an identity, 1..N: [R] bool."""
        return (labels > 0) & (labels <= len(self.lut))

    def is_unlabelled(self, labels: Tensor) -> Tensor:
        """Return whether each label is that of an unlabelled person, above N: [R] bool."""
        return labels > len(self.lut)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return scaled similarities [R, N + queue] of embeddings [R, D] to the rows of both
        tables.

        They are float32 under mixed precision too.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            # cat copies the tables: writing them before backward is safe
            return self.scale * embeddings.to(self.lut.dtype) @ torch.cat([self.lut, self.cq]).t()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy, a mean over labelled people; without any, a zero that has a
        graph.

        Args:
            embeddings: [R, D], unit rows.
            labels: [R].
        """
        labelled = self.is_labelled(labels)
        logits = self.logits(embeddings[labelled])
        total = F.cross_entropy(logits, labels[labelled] - 1, reduction="sum")
        return total / labelled.sum().clamp(min=1)

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Write people into the tables, in order.

        A labelled person updates the row of their identity, an unlabelled person is added to the
        queue, and background is ignored. The arguments are those of `forward`.
        """
        embeddings = embeddings.to(self.lut.dtype)
        labelled = self.is_labelled(labels)
        self._blend(embeddings[labelled], labels[labelled] - 1)
        self._enqueue(embeddings[self.is_unlabelled(labels)])

    def _blend(self, people: Tensor, rows: Tensor) -> None:
        """Compute `row <- unit(momentum * row + (1 - momentum) * x)` for one person after another.

        Rows do not depend on each other, so step k updates each row with its k-th person, all rows
        at once.
        """
        if len(rows) == 0:
            return
        ids, row = rows.unique(return_inverse=True)
        turn = (rows[:, None] == rows).tril(-1).sum(dim=1)  # earlier people of the same row
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
        self.cq[slots[-size:]] = people[-size:]  # of more than `size` people the last are kept
        self.head.add_(len(people)).remainder_(size)
