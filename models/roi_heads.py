"""The two branches on pooled regions: detection and re-identification."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import boxes as box_ops

from models.embedding import NormAwareEmbedding
from models.filtering import DetectionLimits, filter_detections
from models.oim import OIM
from models.outputs import ForwardOutputs, Regions
from models.soft_labels import classification_loss, sampled_scores, without_ignored

PERSON = 1  # class index of the detection branch; 0 is background


def detection_losses(
    class_logits: Tensor,
    box_deltas: Tensor,
    labels: Tensor,
    targets: Tensor,
    scores: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return losses of the detection branch (Girshick, "Fast R-CNN", ICCV 2015, equations 1 to 3).

    Args:
        class_logits: [R, 2]; R may be 0.
        box_deltas: [R, 8].
        labels: [R], person labels.
        targets: [R, 4], regression targets.
        scores: [R], targets of the class person; None: 1 for people, 0 for background.

    Returns:
        "proposal_cls": cross-entropy over person and background, mean over R.
        "proposal_reg": smooth L1 (beta 1) of the person deltas, summed over the positives and
            divided by R.
    """
    is_person = labels > 0
    positives = torch.where(is_person)[0]
    deltas = box_deltas.reshape(-1, 2, 4)[positives, PERSON]
    regions = max(len(labels), 1)
    return {
        "proposal_cls": classification_loss(class_logits, is_person, scores) / regions,
        "proposal_reg": F.smooth_l1_loss(deltas, targets[positives], beta=1.0, reduction="sum")
        / regions,
    }


@dataclass
class Branches:
    """The modules of both branches, in the order in which their random weights are drawn.

    Attributes:
        box_head: from pooled regions [R, C, P, P] to vectors [R, F].
        box_predictor: from these vectors to class logits [R, 2] and box deltas [R, 8].
        reid_head: from pooled regions [R, C, P, P] to vectors [R, F]; None: box_head serves both.
        embedding_head: from pooled regions and the vectors of reid_head to embeddings.
    """

    box_head: nn.Module
    box_predictor: nn.Module
    reid_head: nn.Module | None
    embedding_head: NormAwareEmbedding


def fc_branches(pooled_size: int, fc_size: int, embedding_size: int) -> Branches:
    """Return branches of two fully connected layers each, whose input is the flattened region."""
    return Branches(
        TwoMLPHead(pooled_size, fc_size),
        FastRCNNPredictor(fc_size, 2),
        TwoMLPHead(pooled_size, fc_size),
        NormAwareEmbedding(pooled_size, fc_size, embedding_size),
    )


class PersonSearchHeads(RoIHeads):
    """Detection branch, re-id branch and OIM on RoI-pooled features (SeqNet with one regression).

    torchvision's RoIHeads provides the sampler of training regions and the box coder. Detections
    are filtered by `limits`.
    """

    def __init__(
        self,
        box_roi_pool: nn.Module,
        branches: Branches,
        oim: OIM,
        batch_size: int,
        positive_fraction: float,
        limits: DetectionLimits,
    ):
        super().__init__(
            box_roi_pool,
            branches.box_head,
            branches.box_predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=batch_size,
            positive_fraction=positive_fraction,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=limits.score,
            nms_thresh=limits.overlap,
            detections_per_img=limits.count,
        )
        self.limits = limits
        self.reid_head = branches.reid_head
        self.embedding_head = branches.embedding_head
        self.oim = oim

    def classify(
        self, features: dict[str, Tensor], boxes: list[Tensor], sizes
    ) -> tuple[Tensor, Tensor]:
        """Run the detection branch on boxes [n_i, 4] of each image. Return class logits [R, 2] and
        box deltas [R, 8]."""
        logits, deltas = self.box_predictor(
            self.box_head(self.box_roi_pool(features, boxes, sizes))
        )
        return logits.float(), deltas.float()

    def embed(self, features: dict[str, Tensor], boxes: list[Tensor], sizes) -> Tensor:
        """Run the re-id branch on boxes [n_i, 4] of each image. Return unit embeddings [R, D].

        They are float32 under mixed precision too.
        """
        pooled = self.box_roi_pool(features, boxes, sizes)
        fc = self.represent(pooled)
        with torch.autocast(fc.device.type, enabled=False):
            return self.embedding_head(pooled.float(), fc.float())[0]

    def represent(self, pooled: Tensor) -> Tensor:
        """Compute the re-id branch's vectors [R, F] of pooled regions [R, C, P, P]."""
        return (self.box_head if self.reid_head is None else self.reid_head)(pooled)

    def _person_boxes(self, deltas: Tensor, boxes: list[Tensor], sizes) -> list[Tensor]:
        """Apply the person deltas [R, 8] to the `boxes` of each image, and clip the results to the
        image."""
        decoded = self.box_coder.decode(deltas, boxes).reshape(-1, 2, 4)[:, PERSON]
        decoded = decoded.split([len(b) for b in boxes])
        return [box_ops.clip_boxes_to_image(b, size) for b, size in zip(decoded, sizes)]

    def forward_train(
        self, features: dict[str, Tensor], proposals: list[Tensor], images, targets
    ) -> ForwardOutputs:
        """Return a training pass with unweighted losses: sample, classify, decode, sample again,
        embed."""
        sizes = images.image_sizes
        threshold = self.proposal_matcher.low_threshold
        proposals = without_ignored(proposals, targets, threshold)
        boxes, matched, labels, regression_targets = self.select_training_samples(
            proposals, targets
        )
        class_logits, deltas = self.classify(features, boxes, sizes)
        losses = detection_losses(
            class_logits,
            deltas,
            torch.cat(labels),
            torch.cat(regression_targets),
            sampled_scores(matched, labels, targets),
        )
        decoded = [b.detach() for b in self._person_boxes(deltas, boxes, sizes)]
        decoded = without_ignored(decoded, targets, threshold)
        people, _, identities, _ = self.select_training_samples(decoded, targets)
        embeddings = self.embed(features, people, sizes)
        losses["oim"] = self.oim(embeddings, torch.cat(identities))
        return ForwardOutputs(
            images,
            targets,
            features,
            Regions(boxes, labels),
            class_logits,
            Regions(people, identities),
            embeddings,
            self.oim,
            losses,
        )

    def detect_boxes(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return boxes [n, 4] in resized pixels and scores [n] of each image, by falling score."""
        logits, deltas = self.classify(features, proposals, sizes)
        scores = F.softmax(logits, -1)[:, PERSON].split([len(p) for p in proposals])
        boxes = self._person_boxes(deltas, proposals, sizes)
        kept = [filter_detections(b, s, self.limits) for b, s in zip(boxes, scores)]
        return [b[k] for b, k in zip(boxes, kept)], [s[k] for s, k in zip(scores, kept)]
