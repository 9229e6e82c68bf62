"""models/reference.py equals values of the release, and the product equals models/reference.py."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.defaults import load_cfg
from datasets import load_dataset
from engine.evaluation.cbgm import CBGM
from engine.training.batching import Part
from engine.training.generators import seed_everything
from engine.training.train_step import TrainStep
from models import reference
from models.backbones import BACKBONES
from models.build import build_distiller, build_net, reference_sizes
from tests.golden import named_weights
from tests.golden_losses import LOSSES, normals, release_name
from tests.golden_net import (
    BOX,
    GOLDEN,
    PARAMETERS,
    golden_cfg,
    golden_image,
    golden_net,
    load_named_weights,
)
from tests.tiny import TINY, pairs
from tests.training import CONFIG

UNLABELLED = 99  # any label above the number of identities
IDENTITIES = 5
BOXES = torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50], [85, 5, 105, 60], [5, 2, 9, 30]])


# --- values of the release ---------------------------------------------------------------------


def close(value, expected: float) -> None:
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_dfd_is_the_releases():
    level = reference.DFDLevel(32, 32)
    state = {
        name: named_weights.value(f"dfd.{release_name(name)}", value.shape)
        for name, value in level.state_dict().items()
    }
    level.load_state_dict(state)
    boxes = [
        torch.tensor([[10.0, 20, 60, 150], [100, 5, 160, 155]]),
        torch.tensor([[200.5, 30.2, 239, 150.7]]),
    ]
    sizes = [(160, 240), (155, 240)]
    masks = [reference.foreground_mask(b, size, (20, 30)) for b, size in zip(boxes, sizes)]
    student = normals("dfd.s", 2, 32, 20, 30).requires_grad_()
    loss = level(student, normals("dfd.t", 2, 32, 20, 30), torch.stack(masks))
    loss.backward()
    close(loss, LOSSES["dfd"]["loss"])
    close(student.grad.norm(), LOSSES["dfd"]["grad_norm"])


@pytest.mark.parametrize(
    "name, key, classes, labels",
    [
        ("ld", "ld", 2, (normals("ld.y", 24) > 0).long()),
        ("ld_5class", "ld5", 5, (normals("ld5.y", 24).abs() * 10).long() % 5),
    ],
)
def test_ld_is_the_releases(name, key, classes, labels):
    student = (normals(f"{key}.s", 24, classes) * 3).requires_grad_()
    loss = reference.ld(student, normals(f"{key}.t", 24, classes) * 3, labels)
    loss.backward()
    close(loss, LOSSES[name]["loss"])
    close(student.grad.norm(), LOSSES[name]["grad_norm"])


def test_oim_is_the_releases():
    oim = reference.OIM(reference.Sizes("resnet18", identities=40, queue=30))
    oim.lut.copy_(F.normalize(normals("oim.lut", 40, 256)))
    labels = torch.tensor([0, 1, 5, 99, 7, 5, 99, 0, 40, 12, 99, 1])
    for k, golden in enumerate(LOSSES["oim"]):
        x = F.normalize(normals(f"oim.x{k}", 12, 256)).requires_grad_()
        loss = oim(x, labels)
        loss.backward()
        oim.update(x, labels)
        found = loss, x.grad.norm(), oim.lut.sum(), oim.cq.sum()
        for value, name in zip(found, ("loss", "grad_norm", "lut_sum", "cq_sum")):
            assert value.item() == pytest.approx(golden[name], rel=1e-5, abs=1e-6)
        assert int(oim.head) == golden["header"]


@pytest.mark.parametrize("use_cbgm", [0, 1])
def test_search_and_detection_scores_are_the_releases(use_cbgm):
    dataset = load_dataset("CUHK-SYSU", str(GOLDEN / "eval" / "cuhk"))
    expected = json.loads((GOLDEN / "eval" / "expected.json").read_text())
    arrays = np.load(GOLDEN / "eval" / "detections.npz")

    def read(kind: str) -> list[Tensor]:
        names = sorted(key for key in arrays.files if key.startswith(f"{kind}/"))
        return [torch.from_numpy(arrays[name]) for name in names]

    dets, feats, queries = read("gallery_dets"), read("gallery_feats"), read("query_box_feats")
    cbgm = CBGM(read("query_feats"), k1=10, k2=3) if use_cbgm else None
    found = reference.search_scores(dets, feats, torch.stack(queries), dataset.protocol(50), cbgm)
    scores = expected[f"cuhk.search.g50.cbgm{use_cbgm}"]
    assert {name: found[name] for name in scores} == pytest.approx(scores, abs=1e-6)
    truth = [torch.from_numpy(scene.boxes) for scene in dataset.gallery]
    scores = expected["cuhk.det.0.5"]
    assert reference.detection_scores(truth, dets, 0.5) == pytest.approx(scores, abs=1e-6)


@pytest.mark.slow
def test_detections_and_embeddings_are_the_releases():
    sizes = {"INPUT.MIN_SIZE": "256", "INPUT.MAX_SIZE": "416"}
    product = golden_net("resnet18", **sizes)
    load_named_weights(product, "resnet18")
    net = reference.Network(reference_sizes(golden_cfg("resnet18", **sizes), 40)).eval()
    net.load_state_dict(product.state_dict())
    expected = np.load(GOLDEN / "model_resnet18.npz")
    image = golden_image()
    boxes, scores, embeddings = reference.detect(net, image)
    np.testing.assert_allclose(boxes, expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-3)
    np.testing.assert_allclose(embeddings, expected["emb"], atol=1e-4)
    found = reference.embed(net, image, BOX)
    np.testing.assert_allclose(found, expected["q"], atol=1e-4)


# --- values of the product ---------------------------------------------------------------------


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_state_dicts_are_the_products(backbone):
    cfg = load_cfg(None, ["BACKBONE.WEIGHTS", "", "BACKBONE.NAME", backbone])
    with torch.device("meta"):
        product = build_net(cfg, IDENTITIES)
        net = reference.Network(reference_sizes(cfg, IDENTITIES))
    assert net.backbone.spec is BACKBONES[backbone]
    shapes = {name: value.shape for name, value in product.state_dict().items()}
    assert {name: value.shape for name, value in net.state_dict().items()} == shapes
    trained = [[n for n, p in one.named_parameters() if p.requires_grad] for one in (product, net)]
    assert trained[0] == trained[1]


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return load_cfg(str(tmp_path / "tiny.yaml"), ["BACKBONE.FREEZE", "True"])


def make_batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return two images of different sizes with labelled and unlabelled people."""
    images = [torch.rand(3, 64, 112), torch.rand(3, 60, 100)]
    labels = [[1, UNLABELLED, 2, UNLABELLED], [3, 1, UNLABELLED, 3]]
    return images, [{"boxes": BOXES, "labels": torch.tensor(ids)} for ids in labels]


def make_pair(cfg, student_channels: int = 16):
    """Return the product's distiller, and the reference's student, teacher and DFD with its
    weights."""
    student_cfg = cfg.clone()
    student_cfg.defrost()
    student_cfg.MODEL.FPN_CHANNELS = student_channels
    seed_everything(1)
    student, teacher = build_net(student_cfg, IDENTITIES), build_net(cfg, IDENTITIES)
    model = build_distiller(student_cfg, student, teacher, cfg).train()
    for oim in (student.oim, teacher.oim):
        oim.lut.copy_(F.normalize(torch.randn(IDENTITIES, 16)))
        oim.cq.copy_(F.normalize(torch.randn(8, 16)))
    for weight in model.terms.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    plain = [reference.Network(reference_sizes(c, IDENTITIES)) for c in (student_cfg, cfg)]
    dfd = reference.DFD(student_channels, 16)
    for net, weights in zip((*plain, dfd), (student, teacher, model.terms["dfd"])):
        net.load_state_dict(weights.state_dict())
    return student_cfg, model, plain[0], plain[1].eval(), dfd


@pytest.mark.parametrize("student_channels", [16, 12])
def test_a_training_step_is_the_products(cfg, student_channels):
    """Losses are equal to 1e-6; gradients, seen in the weights after the step, and OIM's tables to
    1e-5."""
    cfg, model, student, teacher, dfd = make_pair(cfg, student_channels)
    images, targets = make_batch()
    train_step = TrainStep(cfg, model, model.student, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seed_everything(2)
    found = train_step.step([Part(images, targets)], 0.01, "a test")
    weights = [p for net in (student, dfd) for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, 0.01, momentum=0.9, weight_decay=5e-4)
    seed_everything(2)
    losses = reference.training_step(student, optimizer, images, targets, teacher, dfd)
    assert len(losses) == 8 and losses.keys() == found.keys() - {"total"}
    for name, loss in losses.items():
        assert found[name] == pytest.approx(loss.item(), rel=1e-6, abs=1e-6), name
    expected = dict(student.named_parameters(prefix="student"))
    expected |= dict(dfd.named_parameters(prefix="terms.dfd"))
    moves = {name: p.detach() - before[name] for name, p in expected.items()}
    largest = max(float(move.norm()) for move in moves.values())
    for name, weight in model.named_parameters():
        if name in expected and float(moves[name].norm()) > 1e-5 * largest:  # not only rounding
            gap = weight.detach() - before[name] - moves[name]
            assert gap.norm() <= 1e-5 * moves[name].norm() + 1e-7 * before[name].norm(), name
    for name, value in student.roi_heads.oim.state_dict().items():
        torch.testing.assert_close(model.student.oim.state_dict()[name], value, atol=1e-6, rtol=0)


def test_detections_and_embeddings_are_the_products():
    cfg = load_cfg(None, pairs(TINY))
    seed_everything(1)
    product = build_net(cfg, 3).eval()
    net = reference.Network(reference_sizes(cfg, 3)).eval()
    net.load_state_dict(product.state_dict())
    image = torch.rand(3, 60, 100)
    (found,), (given,) = product.detect_and_embed([image], [BOXES])
    boxes, scores, embeddings = reference.detect(net, image)
    assert len(boxes) > 1
    torch.testing.assert_close(found.boxes, boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.scores, scores, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.weighted_embeddings, embeddings, atol=1e-5, rtol=0)
    torch.testing.assert_close(given, reference.embed(net, image, BOXES), atol=1e-5, rtol=0)
