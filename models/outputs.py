"""What the network returns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor
from torchvision.models.detection.image_list import ImageList

if TYPE_CHECKING:
    from models.oim import OIM


@dataclass
class Detections:
    """People found in one image: boxes [n, 4] x1 y1 x2 y2 in original pixels, scores [n] in 0..1,
    embeddings [n, D] (unit, or scaled by the score after `weighted`)."""

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor

    def __getitem__(self, keep: Tensor | slice) -> "Detections":
        return Detections(self.boxes[keep], self.scores[keep], self.embeddings[keep])

    def weighted(self) -> "Detections":
        """Unit embeddings scaled by the score: confidence-weighted similarity (NAE, CVPR 2020)."""
        return Detections(self.boxes, self.scores, self.embeddings * self.scores[:, None])


@dataclass
class Regions:
    """Sampled boxes of a batch, one tensor per image: boxes [n_i, 4] in pixels of the resized
    image, labels [n_i] int64 (0 background, 1..N identities, UNLABELED)."""

    boxes: list[Tensor]
    labels: list[Tensor]


@dataclass
class ForwardOutputs:
    """What one training pass saw; a teacher's pass over a student's regions has the same fields,
    with embeddings of zero for the background.

    images: resized and padded; targets: per image "boxes" and "labels" in resized pixels;
    features: FPN levels "0".."3", "pool", each [N, C, H, W]; proposals: the detection branch's
    regions, with class_logits [R, 2]; people: the re-id branch's regions, with unit embeddings
    [P, D]; oim: the table of the network that made the trace; losses: its own, unweighted.
    """

    images: ImageList
    targets: list[dict[str, Tensor]]
    features: dict[str, Tensor]
    proposals: Regions
    class_logits: Tensor
    people: Regions
    embeddings: Tensor
    oim: "OIM"
    losses: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainingOutput:
    """One training step's losses by name (unweighted), what the OIM table learns from it after
    the gradient: embeddings [P, D] without graph, labels [P], and how many images, proposals and
    labelled people the losses are means over."""

    losses: dict[str, Tensor]
    embeddings: Tensor
    labels: Tensor
    counts: dict[str, Tensor]
