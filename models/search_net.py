"""The person search network: detect people and embed each of them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from models.backbones import FrozenNormStatistics
from models.filtering import DetectionLimits
from models.network import Network, as_floats
from models.outputs import Detections, ForwardOutputs, Regions, TrainingOutput
from models.roi_heads import PersonSearchHeads
from models.soft_labels import split_ignored

# What each loss is a mean over: a key of TrainingOutput.counts.
MEAN_OVER = {
    "rpn_cls": "anchors",
    "rpn_reg": "anchors",
    "proposal_cls": "proposals",
    "proposal_reg": "proposals",
    "oim": "labelled",
}


class SearchNet(nn.Module, Network):
    """Faster R-CNN with a re-id branch and OIM (SeqNet with one regression).

    Images and boxes are as in Network.

    Attributes:
        half_heads: whether detect_and_embed computes the heads in half precision too, instead of
            the backbone alone.
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

    @property
    def limits(self) -> DetectionLimits:
        return self.roi_heads.limits

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]],
        size: tuple[int, int] | None = None,
    ) -> TrainingOutput:
        """Return the losses of one batch, or of a part of it.

        Args:
            images: as in Network.
            targets: per image "boxes" [n, 4] and "labels" [n]: 1..N, above N for unlabelled people;
                optionally "scores" [n], see models.soft_labels.
            size: of the largest resized image of the batch; None if these images are the whole
                batch.
        """
        return self.training_output(self.forward_train(images, targets, size))

    def training_output(self, outputs: ForwardOutputs) -> TrainingOutput:
        """Return the losses of a training pass, with the counts over which they are means."""
        labels = torch.cat(outputs.people.labels)
        counts = {
            "images": labels.new_tensor(len(outputs.targets)),
            "anchors": labels.new_tensor(outputs.anchors),
            "proposals": labels.new_tensor(len(outputs.class_logits)),
            "labelled": self.oim.is_labelled(labels).sum(),
        }
        mean_over = {name: MEAN_OVER[name] for name in outputs.losses}
        embeddings = outputs.embeddings.detach()
        return TrainingOutput(outputs.losses, mean_over, counts, embeddings, labels)

    def resized_size(self, image: Tensor) -> tuple[int, int]:
        """Return the height and width that the network resizes an image to, before padding."""
        # The transform draws one of its sizes, although there is only one.
        with torch.random.fork_rng(devices=[]):
            resized, _ = self.transform.resize(torch.empty(image.shape, device="meta"), None)
        return tuple(resized.shape[-2:])

    def forward_train(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]],
        size: tuple[int, int] | None = None,
    ) -> ForwardOutputs:
        """Return a training pass; arguments as in `forward`. The network must be in train mode."""
        resized, targets = self.transform(as_floats(images), targets)
        targets = [split_ignored(target) for target in targets]
        if size is not None:
            resized.tensors = pad_maps(resized.tensors, size, self.transform.size_divisible)
        features = self.backbone(resized.tensors)
        proposals, rpn_losses = self.rpn(resized, features, targets)
        outputs = self.roi_heads.forward_train(features, proposals, resized, targets)
        objectness, outputs.anchors = rpn_losses["loss_objectness"]
        own = {"rpn_cls": objectness, "rpn_reg": rpn_losses["loss_rpn_box_reg"]}
        outputs.losses = own | outputs.losses
        outputs.rpn_head = self.rpn.head
        return outputs

    def on_proposals(self, outputs: ForwardOutputs, proposals: Regions) -> ForwardOutputs:
        """Return the training pass with other proposals, and with their class logits.

        The running statistics of norms, which the C4 form has in its heads, are those of the
        sampled regions only.
        """
        sizes = outputs.images.image_sizes
        with FrozenNormStatistics(self.roi_heads):
            logits, _ = self.roi_heads.classify(outputs.features, proposals.boxes, sizes)
        return replace(outputs, proposals=proposals, class_logits=logits)

    def forward_teacher(self, student: ForwardOutputs) -> ForwardOutputs:
        """Return the teacher's pass over the student's transformed images and sampled regions.

        The re-id branch is computed for people only: no term uses the embeddings of background.
        """
        sizes = student.images.image_sizes
        features = self.backbone(student.images.tensors)
        class_logits, _ = self.roi_heads.classify(features, student.proposals.boxes, sizes)
        people = [labels > 0 for labels in student.people.labels]
        boxes = [boxes[keep] for boxes, keep in zip(student.people.boxes, people)]
        found = self.roi_heads.embed(features, boxes, sizes)
        people = torch.cat(people)
        embeddings = found.new_zeros(len(people), found.shape[1])
        embeddings[people] = found
        return ForwardOutputs(
            student.images,
            student.targets,
            features,
            student.proposals,
            class_logits,
            student.people,
            embeddings,
            self.oim,
            rpn_head=self.rpn.head,
        )

    def resize(self, images: Sequence[Tensor], boxes: Sequence[Tensor]):
        """Return the network's input for images, and boxes in its pixels."""
        targets = [{"boxes": b.reshape(-1, 4).float()} for b in boxes]  # float64 from NumPy
        resized, targets = self.transform(as_floats(list(images)), targets)
        return resized, [t["boxes"] for t in targets]

    @torch.inference_mode()
    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """Detect and embed in one pass, as Network.detect_and_embed.

        Under `amp` boxes and scores are float32 (in bfloat16 a coordinate is off by pixels), and so
        are the heads unless `half_heads` is set.
        """
        resized, given = self.resize(images, boxes)
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

    @torch.inference_mode()
    def embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> list[Tensor]:
        """Embed boxes as Network.embed does, without the RPN and the detection branch."""
        resized, boxes = self.resize(images, boxes)
        device, half = resized.tensors.device.type, amp is not None
        with torch.autocast(device, amp, enabled=half):
            features = self.backbone(resized.tensors)
        features = {k: f.float() for k, f in features.items()}
        with torch.autocast(device, amp, enabled=half and self.half_heads):
            embeddings = self.roi_heads.embed(features, boxes, resized.image_sizes)
        return list(embeddings.split([len(b) for b in boxes]))


def pad_maps(maps: Tensor, size: tuple[int, int], divisor: int) -> Tensor:
    """Pad maps [N, C, H, W] at the bottom and on the right to `size`, rounded up to multiples of
    `divisor`."""
    missing = [-(-side // divisor) * divisor - own for side, own in zip(size, maps.shape[-2:])]
    return F.pad(maps, (0, missing[1], 0, missing[0]))
