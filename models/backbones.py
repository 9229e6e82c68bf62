"""Backbones, built from torchvision's modules or from timm's, and their FPN."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.models import (
    convnext_tiny,
    get_model_weights,
    mobilenet_v2,
    mobilenet_v3_large,
    resnet18,
    resnet50,
)
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from models.timm_networks import TIMM, TimmBackbone
from utils.errors import UserError, reason_of
from utils.weight_files import read_tensors, select_tensors

NO_CHAIN = "whose layers are not applied one after the other"
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def resnet18_x05(norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d) -> ResNet:
    """Return ResNet-18 with every width halved: 32, 64, 128, 256."""
    net = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=norm_layer)
    net.conv1, net.bn1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False), norm_layer(32)
    net.layer1 = _layer(32, 32, norm_layer)
    for i in range(1, 4):
        setattr(net, f"layer{i + 1}", _layer(16 << i, 32 << i, norm_layer))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _layer(in_channels: int, channels: int, norm_layer: Callable[..., nn.Module]) -> nn.Sequential:
    """Return two residual blocks. If the number of channels changes, the first one has stride 2 and
    a downsampling branch."""
    stride, downsample = 1, None
    if in_channels != channels:
        stride = 2
        conv = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)
        downsample = nn.Sequential(conv, norm_layer(channels))
    first = BasicBlock(in_channels, channels, stride, downsample, norm_layer=norm_layer)
    return nn.Sequential(first, BasicBlock(channels, channels, norm_layer=norm_layer))


@dataclass(frozen=True)
class Backbone:
    """The description from which a backbone is built.

    Attributes:
        make: its constructor.
        layers: the layers whose outputs are the FPN's inputs; empty for a network of timm whose
            layers are not applied one after the other.
        channels: of these outputs.
        stem: the paths of the modules that BACKBONE.FREEZE freezes.
        stage: the layers after the map of stride 16, which the C4 form applies to each region;
            empty where `layers` is.
        stage_channels: of their output.
        imagenet: whether torchvision or timm has pretrained weights for it.
        batch_norm: whether it has BatchNorm, which BACKBONE.FROZEN_BN can freeze.
        timm: what it needs of a network of timm; None for one of torchvision.
    """

    make: Callable[..., nn.Module]
    layers: tuple[str, ...]
    channels: tuple[int, ...]
    stem: tuple[str, ...]
    stage: tuple[str, ...]
    stage_channels: int
    imagenet: bool = True
    batch_norm: bool = True
    timm: TimmBackbone | None = None


_RESNET = dict(
    layers=("layer1", "layer2", "layer3", "layer4"), stem=("conv1", "bn1"), stage=("layer4",)
)
BACKBONES = {
    "resnet50": Backbone(resnet50, channels=(256, 512, 1024, 2048), stage_channels=2048, **_RESNET),
    "resnet18": Backbone(resnet18, channels=(64, 128, 256, 512), stage_channels=512, **_RESNET),
    "resnet18_x05": Backbone(
        resnet18_x05, channels=(32, 64, 128, 256), stage_channels=256, imagenet=False, **_RESNET
    ),
    "mobilenet_v2": Backbone(
        lambda norm_layer: mobilenet_v2(norm_layer=norm_layer).features,
        layers=("3", "6", "13", "17"),
        channels=(24, 32, 96, 320),
        stem=("0",),
        stage=("14", "15", "16", "17", "18"),
        stage_channels=1280,
    ),
    "mobilenet_v3_large": Backbone(  # with the epsilon of its ImageNet training
        lambda norm_layer: mobilenet_v3_large(norm_layer=partial(norm_layer, eps=1e-3)).features,
        layers=("3", "6", "12", "15"),
        channels=(24, 40, 112, 160),
        stem=("0",),
        stage=("13", "14", "15", "16"),
        stage_channels=960,
    ),
    "convnext_tiny": Backbone(
        lambda norm_layer: convnext_tiny().features,
        layers=("1", "3", "5", "7"),
        channels=(96, 192, 384, 768),
        stem=("0",),
        stage=("6", "7"),
        stage_channels=768,
        batch_norm=False,
    ),
}


@cache
def _timm_backbone(name: str) -> Backbone:
    found = TimmBackbone(name)
    return Backbone(
        found.make,
        found.layers,
        found.channels,
        found.stem,
        found.stage,
        found.channels[-1],
        imagenet=found.pretrained,
        batch_norm=found.batch_norm,
        timm=found,
    )


def backbone_of(name: str) -> Backbone:
    """Return the backbone of BACKBONE.NAME.

    Raises:
        UserError: if there is no such backbone, or timm is missing.
    """
    if name.startswith(TIMM):
        return _timm_backbone(name.removeprefix(TIMM))
    if name not in BACKBONES:
        raise UserError(
            f"BACKBONE.NAME: expected one of {', '.join(BACKBONES)}, or {TIMM}NAME; found {name}"
        )
    return BACKBONES[name]


def _imagenet_state(name: str) -> dict[str, Tensor]:
    """Return the pretrained weights of a backbone, from torchvision or timm."""
    spec, option = backbone_of(name), "BACKBONE.WEIGHTS"
    if not spec.imagenet:
        raise UserError(
            f"{option}: expected '' or the path of a file for {name}, which has no ImageNet "
            "weights; found imagenet"
        )
    weights = None if spec.timm else get_model_weights(name)["IMAGENET1K_V1"]
    try:
        if spec.timm:
            return spec.timm.pretrained_state()
        return weights.get_state_dict(progress=True, check_hash=True)
    except Exception as error:  # raised by the network, the disk, or an incomplete file
        raise UserError(
            f"{option} imagenet: cannot download {weights.url if weights else name} "
            f"({reason_of(error)}); expected a network connection, or as {option} the path of that "
            "file, or '' for random weights"
        ) from None


def _load_weights(body: nn.Module, name: str, source: str, last: str | None) -> None:
    """Load `source` into `body`; weights of the layers after `last` may be missing."""
    option, own, timm = "BACKBONE.WEIGHTS", body.state_dict(), backbone_of(name).timm
    found = _imagenet_state(name) if source == "imagenet" else read_tensors(source, option)
    parts = [part for part, _ in body.named_children()]
    unused = parts[parts.index(last) + 1 :] if last else []
    keys = [
        key
        for key in own
        if not key.endswith("num_batches_tracked") and key.partition(".")[0] not in unused
    ]
    names = timm.names_in_file(keys) if timm else dict(zip(keys, keys))
    needed = {names[key]: own[key] for key in keys if key in names}
    selected = select_tensors(found, needed, f"{option} {source}: weights of {name}")
    body.load_state_dict({key: selected[theirs] for key, theirs in names.items()}, strict=False)


class FrozenNormStatistics:
    """A context in which a module's BatchNorms do not update their running statistics.

    They still normalise by the statistics of the batch. The context is used for a second pass over
    the same data, and can be entered repeatedly.
    """

    def __init__(self, module: nn.Module):
        self.norms = [m for m in module.modules() if isinstance(m, BATCH_NORMS)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


class CheckpointedLayers(nn.ModuleDict):
    """The layers of a backbone up to the last of `levels`, some of them checkpointed in training.

    A checkpointed layer stores only the inputs of its blocks; the backward pass computes the other
    activations again (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). With
    `everywhere` all layers are checkpointed. Otherwise, on a CPU, only those of the first stage
    are, whose maps are the largest and whose convolutions are the cheapest: a step of ResNet-50 at
    900×1500 then takes a tenth to a fifth less memory and a tenth more time, which offsets most of
    the memory that `utils.memory` retains.

    Args:
        body: the backbone.
        levels: the layers whose outputs are returned, and their names in the result.
        everywhere: whether all layers are checkpointed.
    """

    def __init__(self, body: nn.Module, levels: dict[str, str], everywhere: bool):
        layers = OrderedDict(body.named_children())
        last = list(layers).index(next(reversed(levels)))
        super().__init__(list(layers.items())[: last + 1])
        self.levels = levels
        self.everywhere = everywhere

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of the layers in `levels` for images [N, 3, H, W]."""
        outputs = OrderedDict()
        for name, layer in self.items():
            first_on_cpu = not outputs and x.device.type == "cpu"
            checkpointed = self.training and (self.everywhere or first_on_cpu)
            x = apply_layer(layer, x, checkpointed)
            if name in self.levels:
                outputs[self.levels[name]] = x
        return outputs


def apply_layer(layer: nn.Module, x: Tensor, checkpointed: bool) -> Tensor:
    """Return `layer(x)`, block by block."""
    for block in layer if type(layer) is nn.Sequential else [layer]:
        x = checkpointed_block(block, x) if checkpointed else block(x)
    return x


def checkpointed_block(block: nn.Module, x: Tensor) -> Tensor:
    """Return `block(x)`. The backward pass computes the block's inner activations again."""
    if not list(block.children()):  # a single convolution, norm or activation of the stem
        return block(x)
    return checkpoint(
        block,
        x,
        use_reentrant=False,
        preserve_rng_state=True,  # ConvNeXt drops blocks at random
        context_fn=lambda: (nullcontext(), FrozenNormStatistics(block)),
    )


class LeanFPN(FeaturePyramidNetwork):
    """torchvision's FPN, with its sums computed in place in the lateral maps.

    At the step's peak of memory, torchvision keeps both summands of the largest level as well as
    their sum: 170 MiB for a 900×1500 image.
    """

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute maps of equal channels, and "pool", from the maps of the layers, shallow to
        deep."""
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
    """A backbone followed by an FPN: image [N, 3, H, W] -> the FPN's levels by name."""

    def __init__(self, body: nn.Module, fpn: nn.Module):
        super().__init__()
        self.body = body
        self.fpn = fpn

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(x))


def make_body(
    name: str, weights: str, frozen_bn: bool, freeze: bool, stage: bool = False
) -> nn.Module:
    """Build a backbone with all its layers; arguments and errors as in make_backbone.

    Args:
        stage: whether all of the last stage is used, so that its weights are required.
    """
    spec = backbone_of(name)
    if frozen_bn and not spec.batch_norm:
        raise UserError(
            f"BACKBONE.FROZEN_BN: expected False for {name}, which has no BatchNorm; found True"
        )
    body = spec.make(norm_layer=FrozenBatchNorm2d if frozen_bn else nn.BatchNorm2d)
    if weights:
        used = spec.stage if stage else spec.layers
        _load_weights(body, name, weights, used[-1] if used else None)
    if freeze:
        for part in spec.stem:
            body.get_submodule(part).requires_grad_(False)
    return body


def make_backbone(
    name: str,
    weights: str,
    frozen_bn: bool,
    freeze: bool,
    fpn_channels: int,
    checkpointed: bool = False,
) -> BackboneWithFPN:
    """Build a backbone and its FPN, whose levels are "0".."3" and "pool", strides 4 to 64.

    Args:
        name: a key of BACKBONES, or timm:NAME.
        weights: "imagenet", "" for random weights, or the path of a state dict with torchvision's
            or timm's names.
        frozen_bn: whether FrozenBatchNorm replaces BatchNorm.
        freeze: whether the stem is frozen.
        fpn_channels: of every level.
        checkpointed: whether all layers are checkpointed, as in `CheckpointedLayers`.

    Raises:
        UserError: if the name is unknown, the weights are not of this backbone, frozen_bn is set
            for a backbone without BatchNorm, or checkpointed for one without `layers`.
    """
    body, spec = make_body(name, weights, frozen_bn, freeze), backbone_of(name)
    if spec.layers:
        levels = {layer: str(i) for i, layer in enumerate(spec.layers)}
        body = CheckpointedLayers(body, levels, everywhere=checkpointed)
    elif checkpointed:
        raise UserError(f"BACKBONE.CHECKPOINT: expected False for {name}, {NO_CHAIN}; found True")
    fpn = LeanFPN(list(spec.channels), fpn_channels, extra_blocks=LastLevelMaxPool())
    return BackboneWithFPN(body, fpn)
