"""The values that a network returns."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

if TYPE_CHECKING:
    from models.oim import OIM

BATCH = "batch"  # of a loss that is a function of the whole batch, not a mean over its parts


@dataclass
class Detections:
    """The people found in one image.

    Boxes [n, 4] are x1 y1 x2 y2 in original pixels, scores [n] are in 0..1, and embeddings [n, D]
    are unit vectors.
    """

    boxes: Tensor
    scores: Tensor
    embeddings: Tensor

    def __getitem__(self, keep: Tensor | slice) -> "Detections":
        return Detections(self.boxes[keep], self.scores[keep], self.embeddings[keep])

    @property
    def weighted_embeddings(self) -> Tensor:
        """The embeddings times the scores [n, D]; their inner product with a query's embedding is
        the confidence-weighted similarity (NAE; Chen et al., CVPR 2020)."""
        return self.embeddings * self.scores[:, None]


@dataclass
class Regions:
    """Sampled boxes of a batch, one tensor per image.

    Boxes [n_i, 4] are in pixels of the resized image. Labels [n_i] int64 are 0 for background, 1..N
    for identities, above N for unlabelled people.
    """

    boxes: list[Tensor]
    labels: list[Tensor]


@dataclass
class ForwardOutputs:
    """The tensors of one training pass.

    A teacher's pass over a student's regions has the same fields, with embeddings of zero for the
    background.

    Attributes:
        images: the resized and padded images.
        targets: per image "boxes" and "labels", in resized pixels.
        features: FPN levels "0".."3" and "pool", or "2" alone in the C4 form, each [N, C, H, W].
        proposals: the regions of the detection branch.
        class_logits: [R, 2], of these proposals.
        people: the regions of the re-id branch.
        embeddings: [P, D], unit, of these regions.
        oim: the tables of the network that computed the pass.
        losses: the network's own losses, unweighted.
        anchors: the number of sampled anchors, over which the RPN's losses are means.
        rpn_head: the RPN's head, from features to logits. Only the term rpn uses it.
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
    anchors: int = 0
    rpn_head: nn.Module | None = None


@dataclass
class TrainingOutput:
    """The results of one training pass.

    Attributes:
        losses: by name, unweighted.
        mean_over: for each loss, the key of `counts` over which it is a mean, or BATCH.
        counts: the number of images, of sampled anchors, of proposals and of labelled people in the
            pass.
        embeddings: [P, D], without a graph; the OIM tables are updated with them after the
            gradient step.
        labels: [P], of these embeddings.
    """

    losses: dict[str, Tensor]
    mean_over: dict[str, str]
    counts: dict[str, Tensor]
    embeddings: Tensor
    labels: Tensor
