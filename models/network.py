"""What searching needs of a network, whatever runs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from models.outputs import Detections


class Network(ABC):
    """Images are [3, H, W] tensors, uint8 or float in 0..1; boxes x1 y1 x2 y2 in their pixels."""

    @abstractmethod
    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """Everyone in each image, and each image's given boxes [m_i, 4] embedded [m_i, D]; all
        embeddings unit. amp: the backbone's precision."""

    @abstractmethod
    def keep_best(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """boxes [n, 4], scores [n] -> indices of the detections kept, by falling score."""

    def eval(self) -> "Network":
        """Ready for inference; a network that cannot train always is."""
        return self

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Every person in each gallery image; embeddings are scaled by the score."""
        found, _ = self.detect_and_embed(
            images, [torch.zeros(0, 4, device=i.device) for i in images]
        )
        return [people.weighted() for people in found]

    def embed(self, images: list[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Unit embeddings [n_i, D] of the given boxes [n_i, 4] of each image."""
        return self.detect_and_embed(images, boxes)[1]

    def put_first(self, own: Detections, found: Detections) -> Detections:
        """A query's image seen as a gallery image (for CBGM): the query, `own` [1], comes first
        with score 1, and suppresses what overlaps it."""
        boxes = torch.cat([own.boxes, found.boxes])
        # Two, not one: the query wins over a detection whose score rounds to 1.
        scores = torch.cat([own.scores + 1, found.scores])
        embeddings = torch.cat([own.embeddings, found.embeddings])
        return Detections(boxes, scores.clamp(max=1), embeddings)[self.keep_best(boxes, scores)]


def as_floats(images: list[Tensor]) -> list[Tensor]:
    """uint8 images as float32 in 0..1: they travel as bytes and are divided where they are used."""
    return [i.float().div_(255) if i.dtype == torch.uint8 else i for i in images]
