"""Optimisation for inference: norms folded into convolutions, channels-last memory format.

Plain formula: y = gamma · (conv(x) - mean) / sqrt(var + eps) + beta, two passes over each map.
After folding, the convolution's weights include the factor gamma / sqrt(var + eps) and its bias the
remaining constant. In channels-last format the channels of a pixel are adjacent, which suits
half-precision convolutions and `GatheredRoIAlign`. Sums are computed in another order, so the
choice between two proposals with nearly equal scores may differ.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from models.backbones import BATCH_NORMS
from models.search_net import SearchNet
from models.timm_networks import FED_BY, NormThenActivation


def optimize_for_inference(net: SearchNet) -> SearchNet:
    """Return a copy of `net` that is faster and cannot be trained.

    It detects the same people, except that the choice between proposals with nearly equal scores
    may differ. Under half precision all layers are computed in half precision; boxes, scores and
    embeddings stay float32.
    """
    net = deepcopy(net).eval().requires_grad_(False)
    fold_norms(net)
    net.half_heads = True
    return net.to(memory_format=torch.channels_last)


def fold_norms(parent: nn.Module, before: nn.Module | None = None) -> None:
    """Fold each norm that directly follows a convolution, among a module's children, into it.

    Nearly all BatchNorms of torchvision's and timm's backbones directly follow a convolution.

    Args:
        before: the module that is applied before the first child.
    """
    for name, child in list(parent.named_children()):
        if isinstance(child, (*BATCH_NORMS, FrozenBatchNorm2d)) and _is_foldable(before, child):
            before.weight, before.bias = fuse_conv_bn_weights(
                before.weight,
                before.bias,
                child.running_mean,
                child.running_var,
                child.eps,
                child.weight,
                child.bias,
            )
            setattr(parent, name, nn.Identity())
        fold_norms(child, before if isinstance(child, NormThenActivation) else None)
        before = child


def _is_foldable(before: nn.Module | None, norm: nn.Module) -> bool:
    """Return whether `before` is a convolution whose output `norm` normalises.

    That is so for every convolution before a norm in torchvision's backbones. In timm's, a norm may
    normalise a sum, and convolutions with an epsilon standardise their weights in each pass.
    """
    convolution = isinstance(before, nn.Conv2d) and not hasattr(before, "eps")
    return convolution and before in getattr(norm, FED_BY, [before])
