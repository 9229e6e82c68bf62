"""Annotations with a score: soft targets for the classification, and ignore regions.

A target may have "scores" [n] in 0..1, the probability that a box is a person's. A sample that lies
on the box is classified with this probability as its target. A score of 0 marks an ignore region,
which is neither a person nor background: the samples on it take no part in any loss. Without
"scores" every box is a person's, and the losses are the published ones.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# torchvision's RPN creates this sampler itself, and has no parameter for another one.
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from utils.targets import Target, select


def split_ignored(target: Target) -> Target:
    """Return a target of people alone; its ignore regions, if any, are in "ignored" [m, 4]."""
    if "scores" not in target:
        return target
    person = target["scores"] > 0
    return select(target, person) | {"ignored": target["boxes"][~person]}


def on_ignored(boxes: Tensor, target: Target, share: float) -> Tensor:
    """Return which boxes [n, 4] lie on an ignore region of the target, [n] bool.

    Such a box has at least `share` of its area in one of the regions. This is not IoU, since the
    region may be a crowd, which is larger than the people in it. A box whose IoU with a region is
    at least `share` also has at least this share of its area in it.
    """
    if not len(target.get("ignored", ())):
        return boxes.new_zeros(len(boxes)).bool()
    regions = target["ignored"][:, None].to(boxes.dtype)
    sides = boxes[:, 2:].minimum(regions[..., 2:]) - boxes[:, :2].maximum(regions[..., :2])
    inside = sides.clamp(min=0).prod(2).amax(0)
    return inside >= share * (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-9)


def without_ignored(proposals: list[Tensor], targets: list[Target], iou: float) -> list[Tensor]:
    """Return the proposals [n_i, 4] of each image without those on ignore regions that would be
    background, with an IoU below `iou` with everyone."""
    kept = []
    for boxes, target in zip(proposals, targets):
        if len(target.get("ignored", ())):
            on_person = (box_iou(boxes, target["boxes"].to(boxes.dtype)) >= iou).any(1)
            boxes = boxes[on_person | ~on_ignored(boxes, target, iou)]
        kept.append(boxes)
    return kept


def sampled_scores(
    matched: list[Tensor], labels: list[Tensor], targets: list[Target]
) -> Tensor | None:
    """Return the targets [R] of the class person; None if no target has "scores".

    Args:
        matched: for each region of each image, the annotated box that it lies on.
        labels: of the regions; 0 is background.
        targets: of the images.
    """
    if not any("scores" in target for target in targets):
        return None
    scores = [
        target["scores"][found] if len(target.get("scores", ())) else found.new_ones(len(found))
        for found, target in zip(matched, targets)
    ]
    return torch.cat(scores).float() * (torch.cat(labels) > 0)


def classification_loss(class_logits: Tensor, is_person: Tensor, scores: Tensor | None) -> Tensor:
    """Return the cross-entropy over background and person, summed over R.

    Args:
        class_logits: [R, 2].
        is_person: [R] bool.
        scores: [R] targets of the class person; None: 1 for people, 0 for background.
    """
    if scores is None:
        return F.cross_entropy(class_logits, is_person.long(), reduction="sum")
    return F.cross_entropy(class_logits, torch.stack([1 - scores, scores], 1), reduction="sum")


class SoftSampler(BalancedPositiveNegativeSampler):
    """torchvision's sampler of anchors, for which each label above 0 is that of a person."""

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return super().__call__([some.ceil() for some in labels])


class SoftRPN(RegionProposalNetwork):
    """torchvision's RPN with soft targets and ignore regions."""

    def __init__(self, *modules: nn.Module, **options: Any):
        super().__init__(*modules, **options)
        self.fg_bg_sampler: BalancedPositiveNegativeSampler = SoftSampler(
            options["batch_size_per_image"], options["positive_fraction"]
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return for each image the targets of the objectness [A], -1 for anchors that take no
        part, and the boxes [A, 4] of the regression."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for own, some, target in zip(labels, anchors, targets):
            if "scores" in target:
                self._soften(own, some, target)
        return labels, boxes

    def _soften(self, labels: Tensor, anchors: Tensor, target: Target) -> None:
        """Write the scores of one image's people and its ignore regions into `labels`."""
        below = self.proposal_matcher.low_threshold
        labels[(labels == 0) & on_ignored(anchors, target, below)] = -1
        if len(target["boxes"]):
            matched = self.proposal_matcher(self.box_similarity(target["boxes"], anchors))
            person = matched >= 0
            labels[person] = target["scores"][matched[person]]

    def compute_loss(  # type: ignore[override]  # forward passes on whatever this returns
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[tuple[Tensor, int], Tensor]:
        """Return the losses of objectness and deltas, as torchvision; zero if all anchors lie on
        ignore regions.

        The first loss is in a pair with the number of sampled anchors, over which both are means.
        """
        count = sum(map(self._sampled, labels))
        if not count:
            return (0 * objectness.sum(), 0), 0 * pred_bbox_deltas.sum()
        cls, reg = super().compute_loss(objectness, pred_bbox_deltas, labels, regression_targets)
        return (cls, count), reg

    def _sampled(self, labels: Tensor) -> int:
        """Return how many anchors of an image the sampler selects."""
        most, share = self.fg_bg_sampler.batch_size_per_image, self.fg_bg_sampler.positive_fraction
        people = min(int((labels > 0).sum()), int(most * share))
        return people + min(int((labels == 0).sum()), most - people)
