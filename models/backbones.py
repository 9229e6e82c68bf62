"""Backbones under an FPN, from torchvision's parts."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint
from torchvision.models import (
    convnext_tiny,
    get_model_weights,
    mobilenet_v2,
    mobilenet_v3_large,
    resnet18,
    resnet50,
)
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from utils.errors import DamagedError, UserError, reason_of
from utils.files import load_file
from utils.states import incompatibility, not_finite


def resnet18_x05(norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d) -> ResNet:
    """ResNet-18 with every width halved: 32, 64, 128, 256."""
    net = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=norm_layer)
    net.inplanes = 32
    net.conv1, net.bn1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False), norm_layer(32)
    for i in range(4):
        layer = net._make_layer(BasicBlock, 32 << i, 2, stride=1 if i == 0 else 2)
        setattr(net, f"layer{i + 1}", layer)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


@dataclass(frozen=True)
class Backbone:
    """How to make one: its constructor, the layers that feed the FPN, their channels, its stem
    (what FREEZE stops), whether torchvision has ImageNet weights for it, and whether its norms are
    batch norms, which FROZEN_BN can freeze."""

    make: Callable[..., nn.Module]
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    stem: tuple[str, ...]
    imagenet: bool = True
    batch_norm: bool = True


_RESNET = dict(layers=("layer1", "layer2", "layer3", "layer4"), stem=("conv1", "bn1"))
BACKBONES = {
    "resnet50": Backbone(resnet50, channels=(256, 512, 1024, 2048), **_RESNET),
    "resnet18": Backbone(resnet18, channels=(64, 128, 256, 512), **_RESNET),
    "resnet18_x05": Backbone(resnet18_x05, channels=(32, 64, 128, 256), imagenet=False, **_RESNET),
    "mobilenet_v2": Backbone(
        lambda norm_layer: mobilenet_v2(norm_layer=norm_layer).features,
        layers=("3", "6", "13", "17"),
        channels=(24, 32, 96, 320),
        stem=("0",),
    ),
    "mobilenet_v3_large": Backbone(  # eps as in its ImageNet training
        lambda norm_layer: mobilenet_v3_large(norm_layer=partial(norm_layer, eps=1e-3)).features,
        layers=("3", "6", "12", "15"),
        channels=(24, 40, 112, 160),
        stem=("0",),
    ),
    "convnext_tiny": Backbone(
        lambda norm_layer: convnext_tiny().features,
        layers=("1", "3", "5", "7"),
        channels=(96, 192, 384, 768),
        stem=("0",),
        batch_norm=False,
    ),
}


def _imagenet_state(name: str) -> dict[str, torch.Tensor]:
    if not BACKBONES[name].imagenet:
        raise UserError(
            f"BACKBONE.WEIGHTS imagenet: there are none for {name}; expected '' or a file's path"
        )
    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except Exception as error:  # of the network, the disk, or a file cut short
        raise UserError(
            f"BACKBONE.WEIGHTS imagenet: cannot download {weights.url} ({reason_of(error)}); "
            "expected a network, or in BACKBONE.WEIGHTS that file's path, or '' for random ones"
        ) from None


def _file_state(path: str) -> dict[str, torch.Tensor]:
    state = load_file(path, "BACKBONE.WEIGHTS")
    if name := not_finite(state):
        raise DamagedError(f"BACKBONE.WEIGHTS {path}: {name} is not finite")
    return {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _load_weights(body: nn.Module, name: str, source: str) -> None:
    state = _imagenet_state(name) if source == "imagenet" else _file_state(source)
    state = {key.removeprefix("features."): value for key, value in state.items()}
    wanted = body.state_dict()
    parts = [part for part, _ in body.named_children()]
    unused = parts[parts.index(BACKBONES[name].layers[-1]) + 1 :]  # beyond what feeds the FPN
    wrong = [
        key
        for key, value in wanted.items()
        if not key.endswith("num_batches_tracked")
        and key.partition(".")[0] not in unused
        and (key not in state or incompatibility(state[key], value))
    ]
    if wrong:
        raise UserError(
            f"BACKBONE.WEIGHTS {source}: not weights of {name}; {len(wrong)} of {len(wanted)} "
            f"tensors are missing or of another shape, the first is {wrong[0]}"
        )
    fitting = {k: v for k, v in state.items() if k in wanted and not incompatibility(v, wanted[k])}
    body.load_state_dict(fitting, strict=False)


class FrozenNormStatistics:
    """Within it, a module's norms use the statistics of what they see and do not remember them: for
    a second pass over what they have seen, or will see. Once left, it may be entered again."""

    def __init__(self, module: nn.Module):
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


class CheckpointedLayers(IntermediateLayerGetter):
    """Layers of which some, in training, keep only their blocks' inputs for the backward pass,
    which computes the rest a second time (Chen et al., "Training Deep Nets with Sublinear Memory
    Cost", 2016): with `everywhere` all of them, else on a CPU the first stage's. Its maps are the
    largest and its convolutions the cheapest: ResNet-50's step at 900×1500 takes a tenth to a fifth
    less memory for a tenth more time, which makes up for most of what `utils.memory` keeps."""

    def __init__(self, body: nn.Module, levels: dict[str, str], everywhere: bool):
        super().__init__(body, levels)
        self.everywhere = everywhere

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels = OrderedDict()
        for name, layer in self.items():
            first_on_cpu = not levels and x.device.type == "cpu"
            twice = self.training and (self.everywhere or first_on_cpu)
            for block in layer if type(layer) is nn.Sequential else [layer]:
                x = _checkpointed(block, x) if twice else block(x)
            if name in self.return_layers:
                levels[self.return_layers[name]] = x
        return levels


def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    if not list(block.children()):  # a convolution, norm or activation of the stem
        return block(x)
    return checkpoint(
        block,
        x,
        use_reentrant=False,
        preserve_rng_state=True,  # ConvNeXt skips blocks at random
        context_fn=lambda: (nullcontext(), FrozenNormStatistics(block)),
    )


class LeanFPN(FeaturePyramidNetwork):
    """Torchvision's sums, into the lateral maps: beside the largest level's sum it keeps the two
    maps that went into it, 170 MiB of a 900×1500 image, through the step that needs most."""

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """A map of each layer, shallow to deep -> as many of equal channels, and "pool"."""
        names, maps = list(x), list(x.values())
        inner, levels = self.inner_blocks[-1](maps[-1]), []
        for number in reversed(range(len(maps))):
            if levels:
                lateral = self.inner_blocks[number](maps[number])
                inner = lateral.add_(F.interpolate(inner, lateral.shape[-2:], mode="nearest"))
            levels.insert(0, self.layer_blocks[number](inner))
        levels, names = self.extra_blocks(levels, maps, names)
        return OrderedDict(zip(names, levels))


class BackboneWithFPN(nn.Module):
    """Image [N, 3, H, W] -> the FPN's levels by name."""

    def __init__(self, body: nn.Module, fpn: nn.Module):
        super().__init__()
        self.body = body
        self.fpn = fpn

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(x))


def make_backbone(
    name: str,
    weights: str,
    frozen_bn: bool,
    freeze: bool,
    fpn_channels: int,
    checkpointed: bool = False,
) -> BackboneWithFPN:
    """Backbone and FPN; the levels come out as "0".."3" and "pool", strides 4 to 64.

    weights: "imagenet", "" for random ones, or the path of a state dict in torchvision's naming.
    checkpointed: activations inside the backbone's blocks are computed twice instead of kept; on a
    CPU, those inside the first stage's always are.
    Raises UserError for an unknown name, weights that do not fit, or batch norms to freeze where
    there are none.
    """
    if name not in BACKBONES:
        raise UserError(f"BACKBONE.NAME: expected one of {', '.join(BACKBONES)}; found {name}")
    spec = BACKBONES[name]
    if frozen_bn and not spec.batch_norm:
        raise UserError(
            f"BACKBONE.FROZEN_BN: expected False for {name}, which has LayerNorm, without "
            "statistics that could be frozen; found True"
        )
    body = spec.make(norm_layer=FrozenBatchNorm2d if frozen_bn else nn.BatchNorm2d)
    if weights:
        _load_weights(body, name, weights)
    if freeze:
        for part in spec.stem:
            getattr(body, part).requires_grad_(False)
    levels = {layer: str(i) for i, layer in enumerate(spec.layers)}
    layers = CheckpointedLayers(body, levels, everywhere=checkpointed)
    fpn = LeanFPN(list(spec.channels), fpn_channels, extra_blocks=LastLevelMaxPool())
    return BackboneWithFPN(layers, fpn)
