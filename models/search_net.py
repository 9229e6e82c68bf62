"""The person search network: find every person, and embed each."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from models.network import Network, as_floats
from models.oim import is_labelled
from models.outputs import Detections, ForwardOutputs, TrainingOutput
from models.roi_heads import PersonSearchHeads


class SearchNet(nn.Module, Network):
    """Faster R-CNN with a re-id branch and OIM (SeqNet's frame, one regression).

    Images and boxes are as in Network. half_heads: in half precision detect_and_embed computes the
    heads too, not the backbone alone.
    """

    half_heads = False

    def __init__(
        self,
        transform: GeneralizedRCNNTransform,
        backbone: nn.Module,
        rpn: RegionProposalNetwork,
        roi_heads: PersonSearchHeads,
    ):
        super().__init__()
        self.transform = transform
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    @property
    def oim(self) -> nn.Module:
        return self.roi_heads.oim

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> TrainingOutput:
        """Losses of one batch. targets: "boxes" [n, 4], "labels" [n] (1..N or UNLABELED)."""
        return self.training_output(self.forward_train(images, targets))

    def training_output(self, trace: ForwardOutputs) -> TrainingOutput:
        labels = torch.cat(trace.people.labels)
        counts = {
            "images": labels.new_tensor(len(trace.targets)),
            "proposals": labels.new_tensor(len(trace.class_logits)),
            "labelled": is_labelled(labels).sum(),
        }
        return TrainingOutput(trace.losses, trace.embeddings.detach(), labels, counts)

    def forward_train(
        self, images: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> ForwardOutputs:
        """A training pass with all it saw; needs train mode."""
        resized, targets = self.transform(as_floats(images), targets)
        features = self.backbone(resized.tensors)
        proposals, rpn_losses = self.rpn(resized, features, targets)
        trace = self.roi_heads.forward_train(features, proposals, resized, targets)
        trace.losses = {
            "rpn_cls": rpn_losses["loss_objectness"],
            "rpn_reg": rpn_losses["loss_rpn_box_reg"],
        } | trace.losses
        return trace

    def forward_teacher(self, seen: ForwardOutputs) -> ForwardOutputs:
        """This network on another's transformed images and sampled regions (the teacher's part);
        the re-id branch sees the people alone, since no term reads what it makes of background."""
        sizes = seen.images.image_sizes
        features = self.backbone(seen.images.tensors)
        class_logits, _ = self.roi_heads.classify(features, seen.proposals.boxes, sizes)
        people = [labels > 0 for labels in seen.people.labels]
        boxes = [boxes[keep] for boxes, keep in zip(seen.people.boxes, people)]
        found = self.roi_heads.embed(features, boxes, sizes)
        people = torch.cat(people)
        embeddings = found.new_zeros(len(people), found.shape[1])
        embeddings[people] = found
        return ForwardOutputs(
            seen.images,
            seen.targets,
            features,
            seen.proposals,
            class_logits,
            seen.people,
            embeddings,
            self.oim,
        )

    def _resize(self, images: list[Tensor], boxes: Sequence[Tensor]):
        targets = [{"boxes": b.reshape(-1, 4).float()} for b in boxes]  # NumPy's are float64
        resized, targets = self.transform(as_floats(images), targets)
        return resized, [t["boxes"] for t in targets]

    @torch.inference_mode()
    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """In one pass. amp: boxes and scores stay float32, since a corner in bfloat16 is off by
        pixels; so do the heads but for half_heads."""
        resized, given = self._resize(images, boxes)
        device, half, sizes = resized.tensors.device.type, amp is not None, resized.image_sizes
        with torch.autocast(device, amp, enabled=half):
            features = self.backbone(resized.tensors)
        features = {k: f.float() for k, f in features.items()}
        with torch.autocast(device, amp, enabled=half and self.half_heads):
            proposals, _ = self.rpn(resized, features)
            found, scores = self.roi_heads.detect_boxes(features, proposals, sizes)
            everyone = [torch.cat([f, g]) for f, g in zip(found, given)]
            embeddings = self.roi_heads.embed(features, everyone, sizes)
        counts = [len(part) for pair in zip(found, given) for part in pair]
        parts = embeddings.split(counts)
        people = [
            Detections(resize_boxes(b, size, image.shape[-2:]), s, e)
            for b, size, image, s, e in zip(found, sizes, images, scores, parts[::2])
        ]
        return people, list(parts[1::2])

    def keep_best(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return self.roi_heads.keep_best(boxes, scores)

    @torch.inference_mode()
    def embed(self, images: list[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """Without detecting anyone."""
        resized, boxes = self._resize(images, boxes)
        features = self.backbone(resized.tensors)
        embeddings = self.roi_heads.embed(features, boxes, resized.image_sizes)
        return list(embeddings.split([len(b) for b in boxes]))
