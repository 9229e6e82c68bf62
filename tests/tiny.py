"""A network small enough for tests: its settings, and a backbone that is registered here.

Programs in processes of their own do not have this backbone; their tests use resnet18_x05.
"""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from torch import nn
from torchvision.models.resnet import BasicBlock

from models.backbones import BACKBONES, Backbone

PUBLIC = tuple(BACKBONES)  # the backbones that users can choose
WIDTHS = (8, 16, 24, 32)  # of the four layers


def tiny_resnet(norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d) -> nn.Sequential:
    """Return a ResNet with one narrow block in each layer."""
    first = WIDTHS[0]
    parts = OrderedDict(
        conv1=nn.Conv2d(3, first, 7, 2, 3, bias=False),
        bn1=norm_layer(first),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(3, 2, 1),
        layer1=nn.Sequential(BasicBlock(first, first, norm_layer=norm_layer)),
    )
    for number, (before, width) in enumerate(pairwise(WIDTHS), 2):
        shortcut = nn.Sequential(nn.Conv2d(before, width, 1, 2, bias=False), norm_layer(width))
        block = BasicBlock(before, width, 2, shortcut, norm_layer=norm_layer)
        parts[f"layer{number}"] = nn.Sequential(block)
    return nn.Sequential(parts)


BACKBONES["tiny"] = Backbone(
    tiny_resnet,
    layers=("layer1", "layer2", "layer3", "layer4"),
    channels=WIDTHS,
    stem=("conv1", "bn1"),
    stage=("layer4",),
    stage_channels=WIDTHS[-1],
    imagenet=False,
)


def pairs(settings: dict[str, Any]) -> list[str]:
    """Convert settings to KEY VALUE KEY VALUE ..., as on a command line."""
    return [str(part) for pair in settings.items() for part in pair]


TINY = {
    "DEVICE": "cpu",
    "BACKBONE.NAME": "tiny",
    "BACKBONE.WEIGHTS": "",
    "MODEL.FPN_CHANNELS": 16,
    "MODEL.FC_SIZE": 32,
    "MODEL.EMBEDDING_SIZE": 16,
    "MODEL.OIM.QUEUE_SIZE": 8,
    "MODEL.RPN.PRE_NMS_TOP_N": [99, 40],
    "MODEL.RPN.POST_NMS_TOP_N": [99, 20],
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 6,
    "INPUT.MIN_SIZE": 64,
    "INPUT.MAX_SIZE": 128,
    "INPUT.BATCH_SIZE_TEST": 3,
    "INPUT.NUM_WORKERS": 0,
}
