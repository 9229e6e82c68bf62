"""The plain formulas of what models/fast computes, as the papers write them: the oracle."""

import torch
from torch import Tensor, nn

from models.distill.dfd import background_mask


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
    gap = sum(
        (attention(student, temperature) - attention(teacher, temperature)).abs().sum()
        for attention in (spatial_attention, channel_attention)
    )
    ours = with_context(loss.student_context, student)
    relation = (ours - with_context(loss.teacher_context, teacher)) ** 2
    total = (
        loss.weights["fg"] * (foreground * error).sum()
        + loss.weights["bg"] * (background_mask(foreground) * error).sum()
        + loss.weights["attention"] * gap
        + loss.weights["relation"] * relation.sum()
    )
    return total / len(student)
