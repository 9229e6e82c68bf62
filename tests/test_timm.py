"""Backbones of timm: maps, weights, the forms of the network, and the programs that use them."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint, load_net
from engine.training.batching import Part
from engine.training.train_step import TrainStep
from engine.weights import save_weights
from models import backbones, reference
from models.backbones import BATCH_NORMS, backbone_of, make_backbone
from models.build import build_distiller, build_net, reference_sizes
from models.fast.inference import fold_norms, optimize_for_inference
from models.pixels import IMAGENET_MEAN, IMAGENET_STD
from models.timm_networks import NormThenActivation, synchronise_norms
from tests.interruptions import At
from tests.tiny import TINY, pairs
from tests.training import Run, differences, make_data
from tools import export_onnx, profile_model
from utils.errors import UserError

timm = pytest.importorskip("timm")

CPU = torch.device("cpu")
SMALL = "timm:test_efficientnet"
# BatchNorm with activations; BatchNorm and LayerNorm, with another normalisation of pixels.
NAMES = ["test_efficientnet", "test_resnet", "test_convnext3"]
WHOLE = "hrnet_w18_small"  # no sequence of layers
C4 = {"MODEL.NECK": "none", "MODEL.C4.POOL_SIZE": 4, "MODEL.ANCHOR_SIZES": [16, 32]}
BOXES = torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50]])
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
FILES = {"cfg": "cfg.yaml", "ckpt": "net.pth", "out": "net.onnx"}
TARGETS = [{"boxes": BOXES, "labels": torch.tensor([1, n])} for n in (2, 3)]


def make(name: str, weights: object = "", frozen_bn: bool = False, **options) -> nn.Module:
    torch.manual_seed(0)
    return make_backbone(f"timm:{name}", str(weights), frozen_bn, True, 8, **options)


def make_net(**settings: object) -> tuple:
    """The config of a tiny network with a backbone of timm, and the network."""
    torch.manual_seed(0)
    values = TINY | {"BACKBONE.NAME": SMALL, "MODEL.ROI.BATCH_SIZE": 8} | settings
    cfg = load_cfg(None, pairs(values))
    return cfg, build_net(cfg, num_pids=4)


def lively(body: nn.Module) -> nn.Module:
    """The body with norms that differ from the identity."""
    for norm in (m for m in body.modules() if isinstance(m, BATCH_NORMS)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return body.eval()


def close(found: dict, expected: dict, tolerance: float) -> None:
    assert list(found) == list(expected)
    for level, value in expected.items():
        assert (found[level] - value).norm() <= tolerance * value.norm()


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, pytest.param(WHOLE, marks=pytest.mark.slow)])
@torch.no_grad()
def test_weights_of_timm_give_timms_maps(name, tmp_path):
    """The images are normalised as timm prescribes for these weights."""
    torch.manual_seed(0)
    whole = lively(timm.create_model(name))
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "whole.pth")
    spec, facts = backbone_of(f"timm:{name}"), timm.get_pretrained_cfg(name)
    theirs = timm.create_model(name, features_only=True, out_indices=spec.timm.numbers).eval()
    known = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    own = {k: known[k.replace(".", "_")] for k in theirs.state_dict()}
    theirs.load_state_dict(own)
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (facts.mean, facts.std))
    expected = theirs((IMAGES - mean) / std)
    mean, std = (torch.tensor(three).view(3, 1, 1) for three in (IMAGENET_MEAN, IMAGENET_STD))
    images = (IMAGES - mean) / std
    for frozen_bn in {False, spec.batch_norm}:
        net = make(name, tmp_path / "whole.pth", frozen_bn).eval()
        close(net.body(images), {str(i): level for i, level in enumerate(expected)}, 1e-5)
        shapes = [tuple(level.shape) for level in net(images).values()]
        assert shapes == [(2, 8, -(-64 // s), -(-96 // s)) for s in (4, 8, 16, 32, 64)]
        frozen = any(isinstance(m, FrozenBatchNorm2d) for m in net.body.modules())
        assert frozen == frozen_bn
    assert (list(facts.mean) != IMAGENET_MEAN) == (name in NAMES[1:])


@pytest.mark.parametrize("name", NAMES)
def test_only_the_first_convolution_and_its_norm_are_frozen(name):
    net = make(name)
    modules = {id(m): m for m in net.body.modules()}
    fixed = [m for m in modules.values() if any(not p.requires_grad for p in m.parameters(False))]
    first = next(m for m in net.body.modules() if isinstance(m, nn.Conv2d))
    assert fixed[0] is first and "Norm" in type(fixed[1]).__name__ and len(fixed) == 2


@torch.no_grad()
def test_no_activation_is_lost_with_its_norm():
    """PyTorch's SyncBatchNorm and folded norms replace norms; timm has some with activations."""
    body = lively(make(NAMES[0]).body)
    assert any(isinstance(m, NormThenActivation) for m in body.modules())
    expected = body(IMAGES)
    synchronise_norms(body)
    assert not any(type(m) is nn.BatchNorm2d for m in body.modules())
    close(body(IMAGES), expected, 1e-6)
    fold_norms(body)
    assert not any(isinstance(m, BATCH_NORMS) for m in body.modules())
    close(body(IMAGES), expected, 1e-5)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("synchronised", [False, True])
def test_a_norm_of_a_sum_is_not_folded(synchronised):
    """In RepViT a convolution is registered before a norm that normalises a sum."""
    body = lively(make("repvit_m0_9").body)
    if synchronised:
        synchronise_norms(body)
    expected, kept = body(IMAGES), [m for m in body.modules() if isinstance(m, BATCH_NORMS)]
    fold_norms(body)
    left = [m for m in body.modules() if isinstance(m, BATCH_NORMS)]
    assert 0 < len(left) < len(kept) / 3 and all(norm.fed_by == [] for norm in left)
    close(body(IMAGES), expected, 1e-5)


def test_checkpointed_layers_are_equal():
    losses = []
    for checkpointed in (False, True):
        net = make(NAMES[0], checkpointed=checkpointed).train()
        loss = sum(level.square().mean() for level in net(IMAGES).values())
        loss.backward()
        losses.append([loss, *(p.grad for p in net.parameters() if p.requires_grad)])
        losses[-1] += [v for k, v in net.state_dict().items() if "running" in k]
    assert all(map(torch.equal, *losses))


@torch.no_grad()
def test_the_reference_computes_the_same_maps():
    cfg, net = make_net()
    plain = reference.Network(reference_sizes(cfg, 4))
    plain.load_state_dict(net.state_dict())
    close(plain.eval().backbone(IMAGES), net.eval().backbone(IMAGES), 1e-6)
    fixed = [{n for n, p in one.named_parameters() if not p.requires_grad} for one in (net, plain)]
    assert fixed[0] == fixed[1]


@pytest.mark.parametrize("form", [{}, C4])
def test_a_step_and_the_files_with_the_network(form, tmp_path):
    """A step, a checkpoint, exported weights and folded norms."""
    cfg, net = make_net(**form)
    step = TrainStep(cfg, net.train(), net, CPU)
    step.step([Part(list(IMAGES), TARGETS)], 1e-3, "a test")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.parameters)
    counts = profile_model.parameters(net)
    assert counts["all"] == sum(counts.values()) - counts["all"] and counts["backbone"] > 0
    (expected,) = net.eval().embed([IMAGES[0]], [BOXES])
    torch.save({"model": net.state_dict(), "config": cfg.dump()}, tmp_path / "net.pth")
    save_weights(net.state_dict(), cfg.dump(), None, tmp_path / "net.safetensors", half=False)
    for file in ("net.pth", "net.safetensors"):
        loaded = Checkpoint.read(tmp_path / file).own_net(CPU)
        assert torch.equal(loaded.embed([IMAGES[0]], [BOXES])[0], expected)
        fast = optimize_for_inference(loaded)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
        (found,) = fast.embed([IMAGES[0]], [BOXES])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", [{}, C4])
def test_all_terms_between_a_network_of_timm_and_another(form):
    """The channels differ, of the FPN and of the maps of stride 16."""
    terms = {"DISTILLER.TERMS": ["dfd", "ld", "cd", "pkd", "reviewkd", "kd", "hint", "rkd", "rpn"]}
    others = {"BACKBONE.NAME": "resnet18_x05", "MODEL.FPN_CHANNELS": 24}
    made = [make_net(**form, **terms), make_net(**form, **terms, **others)]
    for (cfg, student), (teacher_cfg, teacher) in (made, made[::-1]):
        distiller = build_distiller(cfg, student, teacher, teacher_cfg).train()
        step = TrainStep(cfg, distiller, student, CPU)
        losses = step.step([Part(list(IMAGES), TARGETS)], 1e-3, "a test")
        assert losses.keys() > set(terms["DISTILLER.TERMS"])
        assert step.parameters[0].grad.isfinite().all()
        student.requires_grad_()


# --- bad settings ---------------------------------------------------------------------------------


def refused(**settings: object) -> str:
    with pytest.raises(UserError) as error:
        make_net(**{key.replace("__", "."): value for key, value in settings.items()})
    assert "\n" not in str(error.value)
    return str(error.value)


def test_networks_that_cannot_be_backbones():
    said = refused(BACKBONE__NAME="timm:test_efficentnet")
    assert said.startswith("BACKBONE.NAME timm:test_efficentnet: ") and "test_efficientnet " in said
    assert "Invalid" in refused(BACKBONE__NAME=f"{SMALL}.no_such_tag")
    assert "stride 4, 8, 32" in refused(BACKBONE__NAME="timm:test_vit")
    assert "any size" in refused(BACKBONE__NAME="timm:swin_tiny_patch4_window7_224")
    assert "timm:NAME" in refused(BACKBONE__NAME="vgg16")


def test_options_that_a_network_does_not_have(tmp_path):
    said = refused(BACKBONE__NAME="timm:test_convnext", BACKBONE__FROZEN_BN=True)
    assert said.startswith("BACKBONE.FROZEN_BN: ")
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "other.pth")
    said = refused(BACKBONE__WEIGHTS=tmp_path / "other.pth")
    assert said.startswith("BACKBONE.WEIGHTS ") and SMALL in said


@pytest.mark.slow
def test_options_of_sequences_of_layers():
    whole = f"timm:{WHOLE}"
    assert refused(BACKBONE__NAME=whole, **C4).startswith("MODEL.NECK: expected fpn")
    assert "CHECKPOINT" in refused(BACKBONE__NAME=whole, BACKBONE__CHECKPOINT=True)


def test_pretrained_weights(monkeypatch):
    """They are timm's; without a network, one line names the ways out."""
    create, state = timm.create_model, timm.create_model("test_efficientnet").state_dict()

    def download(name, pretrained=False, **options):
        net = create(name, **options)
        if pretrained:
            net.load_state_dict(state)
        return net

    monkeypatch.setattr(timm, "create_model", download)
    net = make("test_efficientnet", "imagenet")
    assert torch.equal(net.body.conv_stem.weight, state["conv_stem.weight"])
    assert torch.equal(net.body.blocks_4[0].conv_pw.weight, state["blocks.4.0.conv_pw.weight"])

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no\nnetwork")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    said = refused(BACKBONE__WEIGHTS="imagenet")
    assert said.startswith(f"BACKBONE.WEIGHTS imagenet: cannot download {SMALL} (no)")
    without = next(n for n in timm.list_models("resnet*") if not _has_weights(n))
    assert "no ImageNet weights" in refused(
        BACKBONE__NAME=f"timm:{without}", BACKBONE__WEIGHTS="imagenet"
    )


def _has_weights(name: str) -> bool:
    return timm.get_pretrained_cfg(name).has_weights


def test_timm_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for prepare in (lambda: None, backbones._timm_backbone.cache_clear):
        prepare()
        assert "requirements-timm.txt" in refused()


@pytest.mark.parametrize("form", [{}, C4])
def test_networks_that_pytorch_cannot_export(monkeypatch, form):
    def fail(*_):
        raise ValueError("data-dependent\ncontrol flow")

    monkeypatch.setattr(export_onnx, "_graph", fail)
    with pytest.raises(UserError, match=r"backbone .* of timm \(data-dependent\)$"):
        export_onnx.to_onnx(make_net(**form)[1], {})


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_exported_network_finds_and_embeds_the_same(tmp_path: Path, monkeypatch):
    """The program compares both networks; the exported one does not need timm."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    cfg, net = make_net(**C4)
    lively(net.backbone.body)
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    torch.save({"model": net.state_dict(), "config": cfg.dump()}, tmp_path / "net.pth")
    line = [f"--{name}={tmp_path / file}" for name, file in FILES.items()]
    monkeypatch.setattr(sys, "argv", ["export_onnx", *line])
    export_onnx.main()
    (expected,) = net.eval().embed([IMAGES[0]], [BOXES])
    monkeypatch.setitem(sys.modules, "timm", None)
    (found,) = load_net(cfg, tmp_path / "net.onnx", CPU).embed([IMAGES[0]], [BOXES])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_killed_and_resumed_to_the_bit(tmp_path: Path):
    """The network is then the teacher of another."""
    make_data(tmp_path)
    options = "BACKBONE.NAME", SMALL
    whole = Run(tmp_path, "whole", *options)
    assert whole.wait() == 0, whole.text
    run = Run(tmp_path, "other", *options, sabotage=At("train_step", "step", 6, "before"))
    assert run.wait() == -signal.SIGKILL, run.text
    run = Run(tmp_path, "other", *options, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path / "other", tmp_path / "whole") == []
    terms = "DISTILLER.TEACHER_CKPT", str(tmp_path / "whole" / "best.pth")
    run = Run(tmp_path, "student", *terms, program="ddps")
    assert run.wait() == 0, run.text
