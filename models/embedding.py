"""Norm-aware embedding (NAE; Chen et al., CVPR 2020), as in SeqNet."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _projector(in_features: int, out_features: int) -> nn.Sequential:
    linear, norm = nn.Linear(in_features, out_features), nn.BatchNorm1d(out_features)
    for layer in (linear, norm):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(linear, norm)


class NormAwareEmbedding(nn.Module):
    """Norm-aware embedding of regions.

    Two feature vectors of a region are each projected to half of the embedding. The halves are
    concatenated and L2-normalised.
    """

    def __init__(self, pooled_size: int, fc_size: int, embedding_size: int):
        super().__init__()
        self.pooled = _projector(pooled_size, embedding_size // 2)
        self.fc = _projector(fc_size, embedding_size - embedding_size // 2)
        # Released checkpoints contain this norm's statistics. No score and no loss depends on its
        # output, so its two weights never receive a gradient.
        self.norm = nn.BatchNorm1d(1).requires_grad_(False)

    @staticmethod
    def flat(pooled: Tensor) -> Tensor:
        """Return the input of the first projection for pooled regions [R, C, P, P]: [R, C·P·P]."""
        return pooled.flatten(1)

    def forward(self, pooled: Tensor, fc: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit embeddings [R, D] and rescaled norms [R] from pooled [R, C, P, P] and fc [R,
        FC]."""
        pooled = self.flat(pooled)
        if self.training and len(pooled) == 1:  # BatchNorm rejects a single row: no variance
            embeddings, norms = self._join(pooled.repeat(2, 1), fc.repeat(2, 1))
            return embeddings[:1], norms[:1]
        return self._join(pooled, fc)

    def _join(self, pooled: Tensor, fc: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([self.pooled(pooled), self.fc(fc)], dim=1)
        return F.normalize(joined), self.norm(joined.norm(dim=1, keepdim=True)).squeeze(1)
