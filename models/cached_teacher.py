"""A teacher whose outputs on annotated people and on some background boxes were computed
beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from models.oim import OIM
from models.outputs import ForwardOutputs, Regions
from models.search_net import SearchNet

BACKGROUND_IOU = 0.5  # below it a region is background, as in the sampling of regions


@dataclass
class CachedEmbeddings:
    """Embeddings of B annotated boxes: people [2B, D], by "rows" of the targets (see
    datasets.loaders.SceneDataset), and the tables of their identities."""

    people: Tensor
    oim: OIM


@dataclass
class CachedLogits:
    """Class logits of B annotated boxes and of K background boxes in each of I pictures.

    Attributes:
        people: [2B, 2], by "rows" of the targets.
        boxes: [I, K, 4] x1 y1 x2 y2 as shares of the picture's sides; of no area for missing ones.
        background: [2I, K, 2], by "picture" of the targets; odd rows are of the mirrored picture,
            whose boxes are mirrored too.
    """

    people: Tensor
    boxes: Tensor
    background: Tensor


class CachedTeacher(nn.Module):
    """A source of cached teacher outputs, used instead of a network.

    A sampled box has the embedding of the annotated person that it overlaps most, so all boxes on
    one person have the same embedding. Class logits are those of fixed regions: the annotated
    people, and as many background boxes as are needed to have K regions in each picture.

    Args:
        embeddings: None: those of `live` are used.
        logits: None: those of `live` are used.
        live: the network that computes what is not cached; None if no term reads that.
    """

    def __init__(
        self,
        embeddings: CachedEmbeddings | None,
        logits: CachedLogits | None,
        live: SearchNet | None = None,
    ):
        super().__init__()
        self.live = live
        self.oim = embeddings.oim if embeddings else None
        tables = {"embeddings": embeddings and embeddings.people} | {
            f"logits_{name}": value for name, value in (vars(logits) if logits else {}).items()
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward_teacher(self, student: ForwardOutputs) -> ForwardOutputs:
        """Return the teacher's pass as SearchNet.forward_teacher does. With cached logits,
        `proposals` are the fixed regions."""
        outputs = student
        if self.live is not None:
            outputs = self.live.forward_teacher(student)
        if self.oim is not None:
            outputs = replace(outputs, embeddings=self._embeddings(student), oim=self.oim)
        if hasattr(self, "logits_people"):
            regions, logits = self._regions(student)
            outputs = replace(outputs, proposals=regions, class_logits=logits)
        return outputs

    def _embeddings(self, student: ForwardOutputs) -> Tensor:
        """Return the embeddings [P, D] of the sampled boxes; zero for background."""
        rows = [
            target["rows"][box_iou(boxes, target["boxes"]).argmax(1)]
            if len(target["boxes"])
            else target["rows"].new_zeros(len(boxes))
            for boxes, target in zip(student.people.boxes, student.targets)
        ]
        person = torch.cat(student.people.labels) > 0
        return self.embeddings[torch.cat(rows)].float() * person[:, None]

    def _regions(self, student: ForwardOutputs) -> tuple[Regions, Tensor]:
        """Return the fixed regions of each image, and their logits [R, 2]."""
        boxes, labels, logits = [], [], []
        for target, (height, width) in zip(student.targets, student.images.image_sizes):
            picture, count = target["picture"], len(self.logits_boxes[0]) - len(target["boxes"])
            shares = self.logits_boxes[picture // 2, : max(count, 0)]
            if picture % 2:
                shares = mirrored_shares(shares)
            sized = (shares[:, 2:] > shares[:, :2]).all(1)
            found = shares[sized] * shares.new_tensor([width, height, width, height])
            boxes.append(torch.cat([target["boxes"], found]))
            labels.append(torch.cat([target["labels"], target["labels"].new_zeros(len(found))]))
            logits += [
                self.logits_people[target["rows"]],
                self.logits_background[picture, : len(sized)][sized],
            ]
        return Regions(boxes, labels), torch.cat(logits).float()


def mirrored_shares(boxes: Tensor) -> Tensor:
    """Mirror boxes [K, 4], whose sides are shares of the picture's sides."""
    left, top, right, bottom = boxes.unbind(1)
    return torch.stack([1 - right, top, 1 - left, bottom], 1)


def tables_of(people: Tensor, pids: Tensor, oim: OIM) -> OIM:
    """Fill the tables of a teacher that has none.

    The row of an identity is the mean of its embeddings, normalised to length 1. The embeddings of
    unlabelled people go into the queue.

    Args:
        people: [2B, D], the embedding of each of B annotated boxes, followed by that of its mirror
            image.
        pids: [B], labels of the boxes: 1..N, above N for unlabelled people.
        oim: with N rows and a queue, both empty.
    """
    labels, people = pids.repeat_interleave(2), people.to(oim.lut.dtype)
    known = oim.is_labelled(labels)
    sums = oim.lut.new_zeros(oim.lut.shape).index_add_(0, labels[known] - 1, people[known])
    oim.lut.copy_(nn.functional.normalize(sums))
    others = people[::2][oim.is_unlabelled(pids)][: len(oim.cq)]
    oim.cq[: len(others)] = others
    return oim


@torch.inference_mode()
def outputs_on(
    net: SearchNet, images: Sequence[Tensor], boxes: Sequence[Tensor], count: int
) -> tuple[list[Tensor], list[Tensor], Tensor, list[Tensor]]:
    """Compute a network's outputs on a picture and its mirror image.

    Args:
        images: the picture and its mirror image.
        boxes: the annotated boxes [n, 4] in each, in pixels.
        count: K, the number of background boxes, which are proposals of the RPN.

    Returns:
        For both images the embeddings [n, D] and class logits [n, 2] of the boxes, the background
        boxes [K, 4] as CachedLogits.boxes has them, and for both images their logits [K, 2].
    """
    resized, given = net.resize(images, boxes)
    features = net.backbone(resized.tensors)
    proposals, _ = net.rpn(resized, features)
    height, width = resized.image_sizes[0]
    sides = proposals[0].new_tensor([width, height, width, height])
    shares = _background(proposals[0], given[0], count) / sides
    extra = [shares * sides, mirrored_shares(shares) * sides]
    everything = [torch.cat(pair) for pair in zip(given, extra)]
    logits, _ = net.roi_heads.classify(features, everything, resized.image_sizes)
    parts = logits.split([len(part) for pair in zip(given, extra) for part in pair])
    embeddings = net.roi_heads.embed(features, given, resized.image_sizes)
    return (
        list(embeddings.split([len(b) for b in given])),
        list(parts[::2]),
        shares,
        list(parts[1::2]),
    )


def _background(proposals: Tensor, people: Tensor, count: int) -> Tensor:
    """Draw `count` of the proposals that overlap no person; every call draws the same ones.

    If there are too few, the remaining boxes have no area.
    """
    if len(people):
        proposals = proposals[box_iou(proposals, people).amax(1) < BACKGROUND_IOU]
    order = torch.randperm(len(proposals), generator=torch.Generator().manual_seed(0))
    chosen = proposals[order[:count].to(proposals.device)]
    return torch.cat([chosen, chosen.new_zeros(count - len(chosen), 4)])
