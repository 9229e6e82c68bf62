"""The cost of a config's network: parameters and FLOPs of a detection pass."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from models.build import build_net
from models.search_net import SearchNet


def make_net(cfg: CfgNode, device: torch.device) -> SearchNet:
    """Return a network in eval mode with random weights and the largest possible cost.

    Box and class predictions are zero, so every image has as many proposals and detections as the
    config allows. PyTorch's generator is seeded with SEED.
    """
    torch.manual_seed(cfg.SEED)
    net = build_net(cfg, num_pids=1, pretrained=False)
    predictor = net.roi_heads.box_predictor
    for layer in (net.rpn.head.bbox_pred, predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return net.to(device).eval()


def count_parameters(cfg: CfgNode) -> int:
    """Return the number of parameters of the config's network, without buffers."""
    with torch.device("meta"):  # shapes only, no memory for the values
        net = build_net(cfg, num_pids=1, pretrained=False)
    return sum(p.numel() for p in net.parameters())


def count_flops(net: SearchNet, image: Tensor) -> int:
    """Return the FLOPs of a detection pass of one image [3, H, W], without RoI pooling.

    A multiply-add counts as 2.
    """
    with FlopCounterMode(display=False) as counter:
        net.detect_and_embed([image], [image.new_zeros(0, 4)])
    return counter.get_total_flops()
