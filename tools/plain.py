"""The plain formulas of what models/fast computes, as the papers and the release have them: what
benchmarks and tests compare with."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from models.distill.dfd import LevelLoss, background_mask
from models.fast.roi_align import GatheredRoIAlign
from models.fast.rpn_head import SparseRPNHead
from models.outputs import ForwardOutputs
from models.search_net import SearchNet


def all_activations_kept() -> AbstractContextManager:
    """Within it, backbones compute nothing twice, as on a GPU without BACKBONE.CHECKPOINT."""
    return patch("models.backbones._checkpointed", lambda block, x: block(x))


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Within, training goes by them: the whole RPN head has a graph, RoIAlign is torchvision's, DFD
    is summed map by map, the teacher embeds background too, and no activation is computed twice."""
    with (
        all_activations_kept(),
        patch.object(SparseRPNHead, "forward", rpn_head),
        patch.object(GatheredRoIAlign, "forward", MultiScaleRoIAlign.forward),
        patch.object(LevelLoss, "forward", dfd_level),
        patch.object(SearchNet, "forward_teacher", forward_teacher),
    ):
        yield


def rpn_head(head: RPNHead, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    objectness, deltas = RPNHead.forward(head, features)
    return [level.float() for level in objectness], [level.float() for level in deltas]


def forward_teacher(net: SearchNet, seen: ForwardOutputs) -> ForwardOutputs:
    sizes = seen.images.image_sizes
    features = net.backbone(seen.images.tensors)
    logits, _ = net.roi_heads.classify(features, seen.proposals.boxes, sizes)
    embeddings = net.roi_heads.embed(features, seen.people.boxes, sizes)
    regions = seen.proposals, logits, seen.people
    return ForwardOutputs(seen.images, seen.targets, features, *regions, embeddings, net.oim)


def spatial_attention(features: Tensor, temperature: float) -> Tensor:
    """[N, C, H, W] -> [N, 1, H, W] of mean 1 (FGD equations 4 and 6)."""
    strength = features.abs().mean(dim=1, keepdim=True)
    shares = (strength / temperature).flatten(1).softmax(dim=1)
    return (shares.shape[1] * shares).view_as(strength)


def channel_attention(features: Tensor, temperature: float) -> Tensor:
    """[N, C, H, W] -> [N, C, 1, 1] of mean 1 (FGD equations 5 and 7)."""
    strength = features.abs().mean(dim=(2, 3), keepdim=True)
    return features.shape[1] * (strength / temperature).softmax(dim=1)


def with_context(block: nn.Module, features: Tensor) -> Tensor:
    """The map and, at every place, what the whole of it says about each channel (equation 12)."""
    shares = block.mask(features).flatten(1).softmax(dim=1)
    context = torch.einsum("ncp,np->nc", features.flatten(2), shares)
    return features + block.transform(context[:, :, None, None])


def dfd_level(
    loss: nn.Module, student: Tensor, teacher: Tensor, foreground: Tensor, temperature: float
) -> Tensor:
    """`LevelLoss.forward`, equation by equation (FGD 8 to 12)."""
    student = loss.align(student)
    channels = channel_attention(teacher, temperature).flatten(1)
    error = torch.einsum("nchw,nc->nhw", (student - teacher) ** 2, channels)
    error = error * spatial_attention(teacher, temperature)[:, 0]
    by_places, by_channels = loss._scales(student.flatten(2).shape)
    gap = sum(
        scale * (attention(student, temperature) - attention(teacher, temperature)).abs().sum()
        for attention, scale in (
            (spatial_attention, by_places),
            (channel_attention, by_channels),
        )
    )
    ours = with_context(loss.student_context, student)
    relation = (ours - with_context(loss.teacher_context, teacher)) ** 2
    total = (
        loss.weights["fg"] * by_channels * (foreground * error).sum()
        + loss.weights["bg"] * by_channels * (background_mask(foreground) * error).sum()
        + loss.weights["attention"] * gap
        + loss.weights["relation"] * by_places * by_channels * relation.sum()
    )
    return total / len(student)
