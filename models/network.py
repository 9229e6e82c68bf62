"""The interface of a person search network, independent of the runtime."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from models.filtering import DetectionLimits, filter_detections
from models.outputs import Detections


class Network(ABC):
    """A network for inference.

    Images are [3, H, W] tensors, uint8 or float in 0..1. Boxes are x1 y1 x2 y2 in pixels.
    """

    @property
    @abstractmethod
    def limits(self) -> DetectionLimits:
        """The limits by which the network filters its detections."""

    @abstractmethod
    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """Detect the people of each image, and embed the given boxes.

        Args:
            images: one image or more.
            boxes: the boxes to embed, [m_i, 4] for each image.
            amp: precision of the backbone; None for float32.

        Returns:
            The detections of each image, and the unit embeddings [m_i, D] of its given boxes.
        """

    def eval(self) -> "Network":
        """Switch to inference. A network that cannot be trained is always in this mode."""
        return self

    def detect(self, images: list[Tensor], amp: torch.dtype | None = None) -> list[Detections]:
        """Detect the people of each image, as `detect_and_embed` does."""
        nothing = [torch.zeros(0, 4, device=image.device) for image in images]
        return self.detect_and_embed(images, nothing, amp)[0]

    def embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> list[Tensor]:
        """Return unit embeddings [n_i, D] of the given boxes [n_i, 4] of each image.

        They are those of `detect_and_embed`, which also describes `amp`.
        """
        return self.detect_and_embed(images, boxes, amp)[1]

    def put_first(self, query: Detections, found: Detections) -> Detections:
        """Combine a query with the detections of its own image, in the form that CBGM needs.

        The query, one detection, comes first with score 1; detections that overlap it are
        suppressed.
        """
        boxes = torch.cat([query.boxes, found.boxes])
        # The query's score is 2, not 1, so that it precedes a detection whose score rounds to 1.
        scores = torch.cat([query.scores + 1, found.scores])
        embeddings = torch.cat([query.embeddings, found.embeddings])
        keep = filter_detections(boxes, scores, self.limits)
        return Detections(boxes, scores.clamp(max=1), embeddings)[keep]


def as_floats(images: list[Tensor]) -> list[Tensor]:
    """Convert uint8 images to float32 in 0..1. Images are transferred as bytes and converted on the
    device that uses them."""
    return [i.float().div_(255) if i.dtype == torch.uint8 else i for i in images]
