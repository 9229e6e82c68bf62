"""Networks of timm, which is an optional requirement, and their use as backbones."""

import difflib
import io
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from models.pixels import FromImageNet
from utils.errors import UserError, first_of, reason_of
from utils.optional import optional

TIMM = "timm:"  # before the name of a network of timm
REQUIREMENTS_TIMM = "requirements-timm.txt"
STRIDES = (4, 8, 16, 32)  # of the maps that the FPN reads
SIZES = ((64, 96), (96, 160))  # of the images that a backbone is tried with
INPUT = "from_imagenet"  # the first layer of a body
PLAIN = "plain_norm"  # the norm in a NormThenActivation
FED_BY = "fed_by"  # attribute of a BatchNorm: its convolution in a list, or an empty list
NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


def create_timm(where: str, name: str, pretrained: bool, **options: Any) -> nn.Module:
    """Create a network of timm.

    Args:
        where: the option and its value, for messages.
        pretrained: whether its weights are downloaded, or read from timm's own cache.
        options: as in timm.create_model.

    Raises:
        UserError: if timm is missing, the network does not exist, or its weights cannot be read.
    """
    timm = optional("timm", where, REQUIREMENTS_TIMM)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        near = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"{where}: expected the name of a network of timm, found {name}{near}")
    try:
        return _create(timm, name, pretrained, **options)
    except Exception as error:  # errors of names, of the network and of files have many types
        raise UserError(f"{where}: cannot be created ({reason_of(error)})") from None


def _create(timm: ModuleType, name: str, pretrained: bool, **options: Any) -> nn.Module:
    with redirect_stderr(io.StringIO()):  # retries of the download
        return timm.create_model(name, pretrained=pretrained, **options)


def synchronise_norms(module: nn.Module) -> None:
    """Replace each BatchNorm in a module by PyTorch's SyncBatchNorm.

    PyTorch's conversion copies weights and statistics, but not FED_BY.
    """
    before = {n: norm.fed_by for n, norm in module.named_modules() if hasattr(norm, FED_BY)}
    nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, convolution in before.items():
        setattr(module.get_submodule(name), FED_BY, convolution)


class NormThenActivation(nn.Sequential):
    """A BatchNorm and the activation after it, which timm computes in one module.

    Programs that replace or fold a BatchNorm, such as PyTorch's conversion to SyncBatchNorm, would
    lose the activation of timm's module.
    """


class Chain(nn.Sequential):
    """A body whose layers are applied one after the other: image -> the maps "0".."3".

    Args:
        first: applied to the image.
        layers: all others by name.
        levels: the names of the layers with the maps.
    """

    def __init__(self, first: FromImageNet, layers: dict[str, nn.Module], levels: Iterable[str]):
        super().__init__(OrderedDict([(INPUT, first), *layers.items()]))
        self.levels = list(levels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict()
        for name, layer in self.named_children():
            x = layer(x)
            if name in self.levels:
                maps[str(len(maps))] = x
        return maps


class Whole(nn.Module):
    """A body with another structure: image -> the maps "0".."3"."""

    levels = ()

    def __init__(self, first: FromImageNet, net: nn.Module):
        super().__init__()
        self.add_module(INPUT, first)
        self.net = net

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.net(getattr(self, INPUT)(x))
        return OrderedDict((str(number), level) for number, level in enumerate(maps))


class TimmBackbone:
    """What a backbone needs of a network of timm, determined on the meta device.

    Attributes:
        layers: the layers of the body with the maps of strides 4 to 32; empty for a `Whole`.
        channels: of these maps.
        stem: the paths of the first convolution and its norm.
        stage: the layers after the map of stride 16; empty for a `Whole`.
        batch_norm: whether it has BatchNorm.
        pretrained: whether timm has weights of it.
        convolutions: for each BatchNorm, by its path, the path of the convolution whose output it
            normalises; "" if it normalises another map, such as a sum.

    Args:
        name: of the network, without "timm:".

    Raises:
        UserError: if there is no such network, or it has no such maps for images of any size.
    """

    def __init__(self, name: str):
        self.name, self.where = name, f"BACKBONE.NAME {TIMM}{name}"
        self.convolutions: dict[str, str] = {}
        with torch.device("meta"):
            strides = [fact["reduction"] for fact in self._create().feature_info.info]
            if missing := [stride for stride in STRIDES if stride not in strides]:
                raise UserError(
                    f"{self.where}: expected a network with maps of strides 4, 8, 16 and 32; found "
                    f"none of stride {first_of(missing)}"
                )
            last = {stride: number for number, stride in enumerate(strides)}
            self.numbers = tuple(last[stride] for stride in STRIDES)
            body = self.make()
            with _convolutions_before_norms(body) as self.convolutions:
                shapes = [self._shapes(body, *size) for size in SIZES]
        self.channels = tuple(shape[0] for shape in shapes[0])
        for size, found in zip(SIZES, shapes):
            sides = [tuple(side // stride for side in size) for stride in STRIDES]
            expected = [(count, *side) for count, side in zip(self.channels, sides)]
            if found != expected:
                raise self._unusable(f"{expected} for an image of {size}", str(found))
        self.layers = tuple(body.levels)
        names = [layer for layer, _ in body.named_children()]
        self.stage = tuple(names[names.index(self.layers[2]) + 1 :]) if self.layers else ()
        self.stem = tuple(_stem(body))
        timm = optional("timm", self.where, REQUIREMENTS_TIMM)
        facts = timm.models.get_pretrained_cfg(name)
        self.pretrained = facts is not None and facts.has_weights
        self.batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in body.modules())

    def make(self, norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d) -> nn.Module:
        """Build the body: a `Chain` of the layers up to stride 32 if they are one, else a `Whole`.

        Args:
            norm_layer: BatchNorm2d, or FrozenBatchNorm2d in its place.
        """
        timm = optional("timm", self.where, REQUIREMENTS_TIMM)
        net = self._create(out_indices=self.numbers)
        _separate_activations(net, timm.layers.BatchNormAct2d)
        if norm_layer is FrozenBatchNorm2d:
            net = timm.layers.freeze_batch_norm_2d(net)
        prepared = timm.data.resolve_model_data_config(net)
        first = FromImageNet(prepared["mean"], prepared["std"])
        found = _chain_of(net)
        body = Chain(first, *found) if found else Whole(first, net)
        for norm, path in self.convolutions.items():
            setattr(body.get_submodule(norm), FED_BY, [body.get_submodule(path)] if path else [])
        return body

    def pretrained_state(self) -> dict[str, Tensor]:
        """Return the pretrained weights of the whole network, downloaded or from timm's own cache.

        Raises:
            Exception: of many kinds, if they cannot be read.
        """
        timm = optional("timm", self.where, REQUIREMENTS_TIMM)
        return _create(timm, self.name, pretrained=True).state_dict()

    def names_in_file(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the names of tensors of the body in a file of timm, which has no tensors of the
        first layer."""
        with torch.device("meta"):
            theirs = create_timm(self.where, self.name, False).state_dict()
        known = {name.replace(".", "_"): name for name in theirs}
        names = {}
        for key in keys:
            if not key.startswith(INPUT):
                own = key.replace(f".{PLAIN}.", ".").removeprefix("net.")
                own = own.removeprefix("model.").removeprefix("body.").replace(".", "_")
                names[key] = known.get(own, key)
        return names

    def _create(self, **options: Any) -> nn.Module:
        return create_timm(self.where, self.name, False, features_only=True, **options)

    def _shapes(self, body: nn.Module, height: int, width: int) -> list[tuple[int, ...]]:
        """Return channels, height and width of the four maps of an image."""
        try:
            maps = body.eval()(torch.empty(1, 3, height, width))
            return [tuple(level.shape[1:]) for level in maps.values()]
        except Exception as error:  # networks check their input with errors of many types
            raise self._unusable("images of any size", reason_of(error)) from None

    def _unusable(self, expected: str, found: str) -> UserError:
        return UserError(
            f"{self.where}: expected a network that takes images of any size and returns maps "
            f"[channels, height, width] of strides 4, 8, 16 and 32; found {found}"
        )


def is_of_timm(body: nn.Module) -> bool:
    """Return whether a body is that of a network of timm."""
    return hasattr(body, INPUT)


def _separate_activations(parent: nn.Module, kind: type) -> None:
    """Replace every module of `kind`, timm's BatchNormAct2d, by a NormThenActivation."""
    for name, child in list(parent.named_children()):
        if not isinstance(child, kind):
            _separate_activations(child, kind)
            continue
        norm = nn.BatchNorm2d(
            child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
        )
        norm.load_state_dict(child.state_dict())
        parts = [(PLAIN, norm), ("drop", child.drop), ("act", child.act)]
        setattr(parent, name, NormThenActivation(OrderedDict(parts)))


@contextmanager
def _convolutions_before_norms(body: nn.Module) -> Iterator[dict[str, str]]:
    """Yield a dict that passes of `body` fill with its BatchNorms and their convolutions, see
    `TimmBackbone`."""
    paths = {module: path for path, module in body.named_modules()}
    made, found = [], {}

    def after_convolution(module: nn.Module, _: tuple, output: Tensor) -> None:
        made.append((paths[module], output))

    def before_norm(module: nn.Module, inputs: tuple) -> None:
        source = next((path for path, output in made if output is inputs[0]), "")
        norm = paths[module]
        found[norm] = source if found.get(norm, source) == source else ""

    hooks = [
        module.register_forward_hook(after_convolution)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before_norm)
        for module in paths
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    yield found
    for hook in hooks:
        hook.remove()


def _chain_of(net: nn.Module) -> tuple[dict[str, nn.Module], tuple[str, ...]] | None:
    """Return the layers of a network and the names of those whose outputs are its maps.

    The result is None for a network that does not apply its layers one after the other.
    """
    kind, layers = type(net).__name__, {}
    if kind == "FeatureListNet":
        return dict(net.items()), tuple(net.return_layers)
    if kind not in ("EfficientNetFeatures", "MobileNetV3Features") or net.feature_hooks:
        return None
    for name, child in net.named_children():
        inner = child.named_children() if name == "blocks" else ()
        layers |= {f"{name}_{number}": stage for number, stage in inner} or {name: child}
    stages = net.feature_info.get("stage")  # counted from 1, after the stem
    return layers, tuple(f"blocks_{stage - 1}" for stage in stages)


def _stem(body: nn.Module) -> Iterator[str]:
    """Yield the path of the first convolution, and that of the norm if it is the next layer with
    weights."""
    before = None
    for name, module in body.named_modules():
        if before is not None and list(module.parameters(recurse=False)):
            if isinstance(module, NORMS):
                yield name
            return
        if before is None and isinstance(module, nn.Conv2d):
            before = module
            yield name
