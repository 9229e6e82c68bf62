"""Backbones: their levels, torchvision's weights, and invalid settings."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor

from models.backbones import BACKBONES, make_backbone
from tests.tiny import PUBLIC
from utils.errors import UserError

PRETRAINED = [name for name in PUBLIC if BACKBONES[name].imagenet]
IMAGE = torch.linspace(-2, 2, 3 * 64 * 96).view(1, 3, 64, 96)


def small(name: str, weights: str = "", frozen_bn: bool = False, freeze: bool = False):
    return make_backbone(name, weights, frozen_bn, freeze, fpn_channels=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_levels_halve_from_stride_four(name):
    levels = small(name).eval()(IMAGE)
    shapes = [tuple(level.shape) for level in levels.values()]
    assert list(levels) == ["0", "1", "2", "3", "pool"]
    assert shapes == [(1, 8, -(-64 // s), -(-96 // s)) for s in (4, 8, 16, 32, 64)]


@pytest.mark.slow
@pytest.mark.parametrize("frozen_bn", [False, True])
@pytest.mark.parametrize("name", PRETRAINED)
def test_torchvisions_weights_give_torchvisions_maps(name, frozen_bn, tmp_path):
    """The names and epsilons of the ImageNet weights are right; nothing is downloaded."""
    torch.manual_seed(0)
    whole, spec = get_model(name).eval(), BACKBONES[name]
    for norm in (m for m in whole.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.constant_(norm.running_var, 1e-3)  # small, so that epsilon has an effect
        nn.init.constant_(norm.weight, 0.03)
    torch.save(whole.state_dict(), tmp_path / "imagenet.pth")
    assert "IMAGENET1K_V1" in get_model_weights(name).__members__
    if frozen_bn and not spec.batch_norm:
        with pytest.raises(UserError, match="FROZEN_BN: .*convnext_tiny"):
            small(name, frozen_bn=True)
        return
    body = small(name, str(tmp_path / "imagenet.pth"), frozen_bn).eval().body
    layers = {layer: str(i) for i, layer in enumerate(spec.layers)}
    theirs = create_feature_extractor(getattr(whole, "features", whole), layers)(IMAGE)
    for level, ours in body(IMAGE).items():
        torch.testing.assert_close(ours, theirs[level], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PUBLIC)
def test_freeze_freezes_the_stem_only(name):
    net = small(name, freeze=True)
    frozen = {n.split(".")[0] for n, p in net.body.named_parameters() if not p.requires_grad}
    assert frozen == set(BACKBONES[name].stem)
    first = next(m for m in net.body.modules() if isinstance(m, nn.Conv2d))
    assert not first.weight.requires_grad


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(get_model("resnet18").state_dict(), tmp_path / "other.pth")
    for name in ("mobilenet_v3_large", "convnext_tiny"):
        with pytest.raises(UserError, match=f"BACKBONE.WEIGHTS .*{name}.*found conv1.weight, bn1"):
            small(name, str(tmp_path / "other.pth"))
