"""A network for inference alone: norms folded into convolutions, channels last.

Plain: y = gamma · (conv(x) - mean) / sqrt(var + eps) + beta, two passes over each map. Folded, the
convolution's weights carry gamma / sqrt(var + eps), its bias the rest. With channels last a pixel's
channels lie side by side: the layout of half-precision convolutions, and of the gathering RoIAlign.
Sums run in another order: now and then a proposal whose score ties with another's is kept in its
place.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from models.search_net import SearchNet


def optimize_for_inference(net: SearchNet) -> SearchNet:
    """A copy of `net` in eval mode that finds the same people sooner and cannot be trained; under
    half precision all of it is computed in half, but boxes, scores and embeddings."""
    net = deepcopy(net).eval().requires_grad_(False)
    fold_norms(net.backbone)
    net.half_heads = True
    return net.to(memory_format=torch.channels_last)


def fold_norms(parent: nn.Module) -> None:
    """Every norm that directly follows a convolution among a module's children goes into it; so
    all of torchvision's backbones are built."""
    before = None
    for name, child in list(parent.named_children()):
        if isinstance(child, (_BatchNorm, FrozenBatchNorm2d)) and isinstance(before, nn.Conv2d):
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
        fold_norms(child)
        before = child
