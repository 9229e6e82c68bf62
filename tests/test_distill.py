"""Distillation terms and OIM: values of the release, cases computed by hand, empty batches,
gradients."""

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from yacs.config import CfgNode

from configs.defaults import get_cfg, load_cfg
from datasets.types import UNLABELED
from engine.run import build_from
from engine.training.build import build_alone, build_distilled
from engine.training.train_step import loss_weights
from models import distill
from models.build import (
    build_distiller,
    build_net,
    build_terms,
    init_from_teacher,
    term_options,
)
from models.distill import (
    cd,
    check_terms,
    dfd,
    kd,
    known_terms,
    ld,
    make_term,
    pkd,
    reviewkd,
    rkd,
    rpn,
)
from models.oim import OIM
from models.outputs import ForwardOutputs, Regions
from tests.golden import named_weights
from tests.golden_losses import LOSSES, normals, release_name
from tests.tiny import pairs
from utils.errors import UserError
from utils.files import save_file

OPTIONS = {name: term_options(get_cfg(), name) for name in known_terms()}
OPTIONS["rpn"]["anchors"] = 5000  # all of them, so that every level has a gradient
WEIGHTS = {name: get_cfg().DISTILLER[name.upper()].WEIGHT for name in OPTIONS}
DFD_PARTS = ("fg", "bg", "attention", "relation")
CONTRASTIVE = OPTIONS["cd"] | dict(form="contrastive")
U = UNLABELED


def close(value, expected):
    assert torch.as_tensor(value).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


# --- values of the release ---------------------------------------------------------------------


def test_dfd_golden():
    golden = LOSSES["dfd"]
    weights = {part: OPTIONS["dfd"][f"{part}_weight"] for part in DFD_PARTS}
    loss = dfd.LevelLoss(32, 32, weights)
    state = {
        name: named_weights.value(f"dfd.{release_name(name)}", value.shape)
        for name, value in loss.state_dict().items()
    }
    shapes = {release_name(name): list(value.shape) for name, value in state.items()}
    assert shapes == golden["adapter_shapes"]
    loss.load_state_dict(state)
    boxes = [
        torch.tensor([[10.0, 20, 60, 150], [100, 5, 160, 155]]),
        torch.tensor([[200.5, 30.2, 239, 150.7]]),
    ]
    sizes = [(160, 240), (155, 240)]
    masks = [dfd.foreground_mask(b, size, (20, 30)) for b, size in zip(boxes, sizes)]
    student = normals("dfd.s", 2, 32, 20, 30).requires_grad_()
    teacher = normals("dfd.t", 2, 32, 20, 30)
    value = loss(student, teacher, torch.stack(masks), OPTIONS["dfd"]["temperature"])
    value.backward()
    close(value, golden["loss"])
    close(student.grad.norm(), golden["grad_norm"])
    assert student.grad.sum().item() == pytest.approx(golden["grad_sum"], rel=1e-4)


@pytest.mark.parametrize(
    "name, key, classes, labels",
    [
        ("ld", "ld", 2, (normals("ld.y", 24) > 0).long()),
        ("ld_5class", "ld5", 5, (normals("ld5.y", 24).abs() * 10).long() % 5),
    ],
)
def test_ld_golden(name, key, classes, labels):
    student = (normals(f"{key}.s", 24, classes) * 3).requires_grad_()
    teacher = normals(f"{key}.t", 24, classes) * 3
    options = {key: OPTIONS["ld"][key] for key in ("temperature", "alpha", "beta")}
    value = ld.decoupled_loss(student, teacher, labels, **options)
    value.backward()
    close(value, LOSSES[name]["loss"])
    close(student.grad.norm(), LOSSES[name]["grad_norm"])


@pytest.mark.parametrize("update_first", [False, True])
def test_oim_golden(update_first):
    oim = OIM(40, 30, 256)
    oim.lut.copy_(F.normalize(normals("oim.lut", 40, 256)))
    labels = torch.tensor([0, 1, 5, U, 7, 5, U, 0, 40, 12, U, 1])
    for k, golden in enumerate(LOSSES["oim"]):
        x = F.normalize(normals(f"oim.x{k}", 12, 256)).requires_grad_()
        loss = oim(x, labels)
        if update_first:
            oim.update(x, labels)
        loss.backward()
        if not update_first:
            oim.update(x, labels)
        close(loss, golden["loss"])
        close(x.grad.norm(), golden["grad_norm"])
        close(oim.lut.sum(), golden["lut_sum"])
        close(oim.cq.sum(), golden["cq_sum"])
        assert int(oim.head) == golden["header"]


def test_pkd_value():
    student, teacher = normals("pkd.s", 2, 32, 20, 30), normals("pkd.t", 2, 32, 20, 30)
    value = pkd.loss_of_moments(pkd.channel_moments(student, teacher))
    correlations = [
        np.corrcoef(student[:, c].flatten(), teacher[:, c].flatten())[0, 1] for c in range(32)
    ]
    assert value.item() == pytest.approx((1 - np.mean(correlations)) * 1199 / 1200, rel=1e-5)
    close(WEIGHTS["pkd"] * value, 5.9557237)
    close(pkd.loss_of_moments(pkd.channel_moments(3 * teacher + 1, teacher)), 0)


# --- OIM ---------------------------------------------------------------------------------------


def test_oim_updates_in_order():
    oim, dim = OIM(3, 4, 8), 8
    x = F.normalize(normals("people", 9, dim))
    labels = torch.tensor([2, U, 2, 0, U, U, 2, U, U])
    expected = torch.zeros(dim)
    for row in x[labels == 2]:
        expected = F.normalize(0.5 * expected + 0.5 * row, dim=0)
    oim.update(x, labels)
    torch.testing.assert_close(oim.lut[1], expected)
    assert not oim.lut[[0, 2]].any()
    torch.testing.assert_close(
        oim.cq, x[[8, 4, 5, 7]]
    )  # the fifth unlabelled person replaced the first
    assert int(oim.head) == 1
    assert set(oim.state_dict()) == {"lut", "cq", "head"}


def test_oim_momentum_is_the_share_of_the_old_row():
    oim = OIM(1, 0, 2, momentum=0.8)
    oim.lut[0] = torch.tensor([1.0, 0])
    oim.update(torch.tensor([[0.0, 1]]), torch.tensor([1]))
    torch.testing.assert_close(oim.lut[0], F.normalize(torch.tensor([0.8, 0.2]), dim=0))


def test_oim_without_queue():
    oim, x = OIM(3, 0, 8), F.normalize(normals("people", 3, 8)).requires_grad_()
    labels = torch.tensor([1, U, 3])
    oim.update(x.flip(0), labels)
    loss = oim(x, labels)
    loss.backward()
    assert loss > 0 and x.grad[0].any() and not x.grad[1].any()


@pytest.mark.parametrize("labels", [[], [0, 0], [U, 0, U]])
def test_oim_without_identity(labels):
    oim, labels = OIM(3, 4, 8), torch.tensor(labels, dtype=torch.int64)
    x = normals("x", len(labels), 8).requires_grad_()
    loss = oim(x, labels)
    loss.backward()
    oim.update(x, labels)
    assert loss.item() == 0 and not x.grad.any() and not oim.lut.any()


# --- parts of DFD ------------------------------------------------------------------------------


def test_foreground_mask_by_hand():
    boxes = torch.tensor([[2.0, 0, 5.9, 3.9], [4.0, 2, 4, 2]])
    mask = dfd.foreground_mask(boxes, (8, 16), (4, 8))  # columns 1 to 3, rows 0 to 2; cell (1, 2)
    expected = torch.zeros(4, 8)
    expected[0:3, 1:4] = 1 / 9
    expected[1, 2] = 1
    torch.testing.assert_close(mask, expected)


def test_masks_without_boxes_and_without_background():
    empty = dfd.foreground_mask(torch.zeros(0, 4), (8, 16), (4, 8))
    full = dfd.foreground_mask(torch.tensor([[0.0, 0, 16, 8]]), (8, 16), (4, 8))
    background = dfd.background_mask(torch.stack([empty, full]))
    assert not empty.any() and full.all()
    torch.testing.assert_close(background[0], torch.full((4, 8), 1 / 32))
    assert not background[1].any()


@pytest.mark.parametrize("shape", [(8, 4, 6), (16, 5, 10)])
@pytest.mark.parametrize("part, by_hand", [("fg", 256), ("bg", 256), ("relation", 256 * 100)])
def test_normalized_dfd_by_hand(part, by_hand, shape):
    """Maps differ by 1 everywhere.

    The parts are the means over a box and over the background, and the sum over the map, each
    scaled to the published number of channels and positions, here 100.
    """
    weights = dict.fromkeys(DFD_PARTS, 0.0) | {part: 1.0}
    loss = dfd.LevelLoss(shape[0], shape[0], weights, places=100)
    foreground = dfd.foreground_mask(torch.tensor([[0.0, 0, 9, 20]]), (40, 40), shape[1:])
    maps = torch.ones(2, *shape), torch.zeros(2, *shape)
    close(loss(*maps, torch.stack([foreground] * 2), 0.5), by_hand)


def test_normalized_attention_by_hand():
    """At temperature 1/2, the strengths (ln 3) / 2 at half of the positions and 0 elsewhere give
    attentions of 3/2 and 1/2. Both differ from 1 by 1/2."""
    for shape, halves, by_hand in [
        ((6, 4, 6), (6, 4, 3), 100 / 2),
        ((8, 5, 3), (4, 5, 3), 256 / 2),
    ]:
        loss = dfd.LevelLoss(
            shape[0], shape[0], {"attention": 1.0, "fg": 0, "bg": 0, "relation": 0}, 100
        )
        student = torch.zeros(1, *shape)
        student[:, : halves[0], : halves[1], : halves[2]] = np.log(3) / 2
        close(loss(student, torch.zeros(1, *shape), torch.zeros(1, *shape[1:]), 0.5), by_hand)


def test_normalized_dfd_is_the_published_at_the_published_size():
    weights = {part: OPTIONS["dfd"][f"{part}_weight"] for part in DFD_PARTS}
    torch.manual_seed(0)
    published = dfd.LevelLoss(256, 256, weights)
    normalized = dfd.LevelLoss(256, 256, weights, dfd.PLACES["3"])
    normalized.load_state_dict(published.state_dict())
    maps = normals("s", 1, 256, 29, 47), normals("t", 1, 256, 29, 47)
    mask = torch.zeros(1, 29, 47)
    assert published(*maps, mask, 0.5) == normalized(*maps, mask, 0.5)
    assert dfd.PLACES == {"0": 232 * 376, "1": 116 * 188, "2": 58 * 94, "3": 29 * 47}
    outputs = make_outputs("student"), make_outputs("teacher")
    sums, shares = (
        make_term("dfd", 8, 8, OPTIONS["dfd"] | dict(normalize=value))(*outputs)
        for value in (False, True)
    )
    assert shares > 100 * sums


# --- parts of CD -------------------------------------------------------------------------------


def test_nms_per_identity_and_image():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(9, 1)
    boxes[8] = torch.tensor([3.0, 3, 3.005, 8])  # too narrow
    labels = torch.tensor([5000, 5000, 7, U, U, 5000, U, U, 9])
    images = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.3, 0.5, 0.4, 0.6, 1.0])
    boxes[7] += 500  # another unlabelled person
    keep = cd.nms_per_identity(boxes, labels, images, scores, 0.7)
    assert sorted(keep.tolist()) == [1, 2, 3, 5, 6, 7]


def test_nms_is_exact_with_large_labels():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6.9], [0, 0, 10, 7.1], [0, 0, 4, 4]])
    keep = cd.nms_per_identity(
        boxes, torch.full((4,), U), torch.zeros(4).long(), torch.ones(4), 0.7
    )
    assert sorted(keep.tolist()) == [0, 1, 3]


def test_confidence_of_labelled_and_unlabelled_people():
    oim = make_oim()
    x = F.normalize(normals("confident", 3, 8))
    probabilities = (30 * x @ torch.cat([oim.lut, oim.cq]).t()).softmax(dim=1)
    found = cd.confidence(x, torch.tensor([2, U, 4]), oim)
    expected = torch.stack([probabilities[0, 1], probabilities[1, 4:].max(), probabilities[2, 3]])
    torch.testing.assert_close(found, expected)
    without_queue = OIM(4, 0, 8)
    assert cd.confidence(x, torch.tensor([2, U, 4]), without_queue)[1] == 0


def test_correlation_by_hand():
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0], [0.6, 0.8]])
    close(cd.correlation_loss(student, teacher), 0.01 * 2 * 0.6**2)


def test_contrastive_by_hand():
    """There are two boxes of identity 1, one of identity 2 and two unlabelled ones, and table rows
    of both identities."""
    oim = OIM(3, 2, 2, scale=1.0)
    oim.lut[:2] = torch.tensor([[0.6, 0.8], [0.8, 0.6]])  # identity 3 has no row yet
    oim.cq[0] = torch.tensor([-1.0, 0])
    labels = torch.tensor([1, 1, 2, U, U])
    student, teacher = F.normalize(normals("s", 5, 2)), F.normalize(normals("t", 5, 2))
    lut, cq = oim.lut, oim.cq
    positives = [[0, 1], [0, 1], [2], [3], [4]]
    first, second = teacher[:2], teacher[2:3]
    unlabelled = torch.cat([teacher[3:], cq[:1]])
    negatives = [torch.cat([second, lut[1:2], unlabelled])] * 2
    negatives += [torch.cat([first, lut[:1], unlabelled])]
    negatives += [torch.cat([first, second, lut[:2]])] * 2
    losses = [
        sum(
            -F.log_softmax(torch.cat([teacher[p : p + 1], negatives[i]]) @ student[i], dim=0)[0]
            for p in positives[i]
        )
        / len(positives[i])
        for i in range(5)
    ]
    close(cd.contrastive_loss(student, teacher, labels, oim), float(sum(losses) / 5))


def test_contrastive_prefers_the_teachers_embeddings():
    oim, labels = make_oim(), torch.tensor([1, 2, 3, U, 1, 2])
    teacher, other = F.normalize(normals("a", 6, 8)), F.normalize(normals("b", 6, 8))
    same = cd.contrastive_loss(teacher, teacher, labels, oim)
    assert same < cd.contrastive_loss(other, teacher, labels, oim)
    alone = cd.contrastive_loss(teacher[3:4], teacher[3:4], labels[3:4], OIM(4, 3, 8))
    assert alone.item() == 0  # no negatives


# --- baselines ------------------------------------------------------------------------------------


def test_hierarchical_loss_by_hand():
    """The maps differ by a checkerboard of ±1 on 8×8 (error 1 at full size, 0 pooled), plus a
    constant 2."""
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    checkers = (1 - 2 * ((rows + columns) % 2)).float().expand(2, 3, 8, 8)
    zeros = torch.zeros(2, 3, 8, 8)
    close(reviewkd.hierarchical_loss(checkers, zeros), 1 / 1.875)
    close(reviewkd.hierarchical_loss(checkers + 2, zeros), (5 + 4 / 2 + 4 / 4 + 4 / 8) / 1.875)
    # a 4×4 map is not pooled to 4×4
    small = checkers[..., :4, :4] + 2, zeros[..., :4, :4]
    close(reviewkd.hierarchical_loss(*small), (5 + 4 / 2 + 4 / 4) / 1.75)


def test_fusion_by_hand():
    """The first attention weight is that of the level's own map, the second that of the deeper
    one."""
    fusion = reviewkd.Fusion(3, 4, deepest=False)
    maps, deeper = normals("m", 2, 3, 4, 4), normals("d", 2, 4, 2, 2)
    own = fusion.reduce(maps).detach()
    torch.nn.init.zeros_(fusion.attention.weight)
    enlarged = deeper.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    for bias, expected in (([50.0, -50], own), ([-50.0, 50], enlarged)):
        fusion.attention.bias.data = torch.tensor(bias)
        compared, fused = fusion(maps, deeper)
        torch.testing.assert_close(fused, expected)
        torch.testing.assert_close(compared, fusion.out(expected))


def test_reviewkd_fuses_from_deep_to_shallow(monkeypatch):
    """The compared map of each of the five levels depends on its own and on all deeper maps."""
    compared = []

    def keep(ours, theirs):
        compared.append((ours, theirs))
        return ours.sum()

    monkeypatch.setattr(reviewkd, "hierarchical_loss", keep)
    student, teacher = make_outputs("student"), make_outputs("teacher")
    make_term("reviewkd", 8, 8, {})(student, teacher)
    levels = ["pool", "3", "2", "1", "0"]
    maps = [student.features[level] for level in levels]
    assert len(compared) == len(levels)
    for number, (ours, theirs) in enumerate(compared):
        assert theirs is teacher.features[levels[number]]
        found = torch.autograd.grad(ours.square().sum(), maps, retain_graph=True, allow_unused=True)
        assert [one is not None for one in found] == [i <= number for i in range(5)]


def test_reviewkd_needs_two_values_per_channel():
    student, teacher = make_outputs("student"), make_outputs("teacher")
    term = make_term("reviewkd", 8, 8, {})
    for outputs in (student, teacher):
        outputs.features["pool"] = outputs.features["pool"][:, :, :1, :1]
    assert term(student, teacher).isfinite()  # two images
    for outputs in (student, teacher):
        outputs.features = {level: maps[:1] for level, maps in outputs.features.items()}
    with pytest.raises(UserError, match="reviewkd .* two images"):
        term(student, teacher)
    assert term.eval()(student, teacher).isfinite()


def test_kd_by_hand():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * np.log(3), 0.0]])
    kl = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    close(kd.kd_loss(student, teacher.float(), 2), 4 * kl)


def test_ld_of_two_classes_is_kd():
    """For this reason the benchmark trains only one of the two."""
    student, teacher = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 2
    loss = ld.decoupled_loss(student, teacher, labels, temperature=4, alpha=1, beta=0.5)
    torch.testing.assert_close(loss, kd.kd_loss(student, teacher, 4))


def test_standardized_kd_by_hand():
    """Each class of two proposals is standardized to +1 and -1, with opposite signs for the
    teacher.

    At temperature 2 the teacher's odds are e to 1, and the student's 1 to e.
    """
    student, teacher = torch.tensor([[0.0, 0], [2, -6]]), torch.tensor([[5.0, 5], [3, 9]])
    torch.testing.assert_close(kd.standardize(student), torch.tensor([[-1.0, 1], [1, -1]]))
    loss = kd.kd_loss(kd.standardize(student), kd.standardize(teacher), 2)
    close(loss, 4 * np.tanh(0.5))  # 2² times (2p - 1) ln(p / (1 - p)) with p = 1 / (1 + 1/e)
    strong = kd.standardize(7 * student + 3)
    torch.testing.assert_close(strong, kd.standardize(student))
    assert not kd.standardize(torch.full((3, 2), 4.0)).any()


def test_rkd_by_hand():
    """The teacher's triangle has sides 3, 4 and 5. The student's three points are on a line."""
    teacher = torch.tensor([[0.0, 0], [3, 0], [0, 4]])
    student = torch.tensor([[0.0], [1], [2]])
    distance = (0 + 0.5**2 / 2 + 0.5**2 / 2) / 3  # 3/4, 4/4, 5/4 against 3/4, 6/4, 3/4
    angle = (1 / 2 + (1.6 - 1 / 2) + 0.2**2 / 2) / 3  # 0, 0.6, 0.8 against 1, -1, 1
    close(rkd.rkd_loss(student, teacher, 1, 0), distance)
    close(rkd.rkd_loss(student, teacher, 0, 1), angle)
    close(rkd.rkd_loss(student, teacher, 1, 2), distance + 2 * angle)
    close(rkd.rkd_loss(5 * teacher.flip(1) + 7, teacher, 1, 2), 0)  # scale, shift and mirror


def test_rpn_by_hand():
    """The teacher's scores of two anchors are the highest: the first and the third."""
    teacher = torch.tensor([[2.0, -3.0, 0.0]])
    student = torch.tensor([[1.0, 50.0, 1.0]], requires_grad=True)
    p, q = torch.sigmoid(teacher / 2)[0, [0, 2]], torch.sigmoid(torch.tensor([0.5, 0.5]))
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * 4
    loss = rpn.objectness_loss(student, teacher, 2, 2.0)
    close(loss, by_hand.item())
    loss.backward()
    assert student.grad[0, 1] == 0 and student.grad[0, [0, 2]].all()


@pytest.mark.parametrize("key", ["NECK", "ANCHOR_SIZES"])
def test_rpn_needs_the_same_anchors(key):
    cfg, other = small_cfg(), small_cfg().clone()
    other.defrost()
    other.MODEL[key] = {"NECK": "none", "ANCHOR_SIZES": [8, 64, 128, 256, 512]}[key]
    with pytest.raises(UserError, match=f"DISTILLER.TERMS: rpn: .*MODEL.{key} "):
        build_terms(cfg, other)
    assert "rpn" in build_terms(cfg, cfg)


# --- every term, called as by the distiller -----------------------------------------------------


def make_oim() -> OIM:
    oim = OIM(4, 3, 8)
    oim.lut.copy_(F.normalize(normals("lut", 4, 8)))
    oim.cq.copy_(F.normalize(normals("cq", 3, 8)))
    return oim


SAMPLED = [[1, 2, U, 0, 1], [U, 3, 0, 0, 4, 2]]


def make_outputs(
    key: str, channels: int = 8, boxes: tuple[int, ...] = (2, 1), sampled: list[list[int]] = SAMPLED
) -> ForwardOutputs:
    """Return outputs for two images of 96×128, padded to 128×128.

    Args:
        sampled: labels of the regions of each image.
    """

    def people(name, count):
        corners = 60 * torch.from_numpy(
            np.random.RandomState(zlib.crc32(name.encode())).rand(count, 4).astype(np.float32)
        )
        corners[:, 2:] += corners[:, :2] + 5
        return corners

    labels = [torch.tensor(image, dtype=torch.int64) for image in sampled]
    regions = Regions([people(f"region{i}", len(y)) for i, y in enumerate(labels)], labels)
    count = sum(map(len, sampled))
    sizes = {"0": 32, "1": 16, "2": 8, "3": 4, "pool": 2}
    grad = key == "student"
    return ForwardOutputs(
        images=ImageList(torch.zeros(2, 3, 128, 128), [(96, 128), (96, 120)]),
        targets=[
            {"boxes": people(f"gt{i}", n), "labels": torch.ones(n).long()}
            for i, n in enumerate(boxes)
        ],
        features={
            level: normals(f"{key}{level}", 2, channels, size, size).requires_grad_(grad)
            for level, size in sizes.items()
        },
        proposals=regions,
        class_logits=normals(f"{key}.logits", count, 2).requires_grad_(grad),
        people=regions,
        embeddings=F.normalize(normals(f"{key}.x", count, 8)).requires_grad_(grad),
        oim=make_oim(),
        rpn_head=RPNHead(channels, 3),
    )


def student_leaves(outputs: ForwardOutputs) -> list[torch.Tensor]:
    return [*outputs.features.values(), outputs.class_logits, outputs.embeddings]


CASES = [
    *OPTIONS.items(),
    ("cd", CONTRASTIVE),
    ("cd", OPTIONS["cd"] | dict(rank_by="constant")),
    *((name, OPTIONS[name] | dict(logits="standardized")) for name in ("kd", "ld")),
]


@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("name, options", CASES)
def test_gradients_reach_student_and_term(name, options, channels):
    term = make_term(name, channels, 8, options)
    student, teacher = make_outputs("student", channels), make_outputs("teacher")
    loss = term(student, teacher)
    loss.backward()
    assert loss.shape == () and loss > 0
    reached = [leaf for leaf in student_leaves(student) if leaf.grad is not None]
    assert reached and all(leaf.grad.any() and leaf.grad.isfinite().all() for leaf in reached)
    # transforms before a zero-initialised convolution have zero gradients in the first step
    missing = [n for n, p in term.named_parameters() if p.grad is None]
    assert not missing
    assert term.state_dict().keys() >= dict(term.named_parameters()).keys()


@pytest.mark.parametrize("boxes", [(0, 0), (0, 2)])
@pytest.mark.parametrize("sampled", [[[], []], [[0, 0], [0]], [[U], []], [[0], [3]]])
@pytest.mark.parametrize("name, options", CASES)
def test_empty_batches(name, options, sampled, boxes):
    term = make_term(name, 8, 8, options)
    student = make_outputs("student", 8, boxes, sampled)
    loss = term(student, make_outputs("teacher", 8, boxes, sampled))
    assert loss.isfinite() and loss.requires_grad
    loss.backward()
    grads = [leaf.grad for leaf in student_leaves(student) if leaf.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", ["dfd", "ld", "cd", "kd", "pkd", "rkd", "rpn"])
def test_loss_of_equal_networks_is_zero(name):
    outputs = make_outputs("student")
    assert make_term(name, 8, 8, OPTIONS[name])(outputs, outputs).item() == pytest.approx(
        0, abs=1e-6
    )


FOUR = SimpleNamespace(num_pids=4)  # a dataset of four identities
SMALL = {
    "BACKBONE.WEIGHTS": "",
    "MODEL.FC_SIZE": "32",
    "MODEL.EMBEDDING_SIZE": "16",
    "MODEL.OIM.QUEUE_SIZE": "8",
    "MODEL.ROI.BATCH_SIZE": "32",
    "INPUT.MIN_SIZE": "96",
    "INPUT.MAX_SIZE": "128",
    "DISTILLER.TERMS": str(list(OPTIONS)),
}


def small_cfg(**options: str):
    return load_cfg(None, pairs(SMALL | options))


def teacher_of(teacher, folder: Path, **options: str):
    """Save a teacher in the folder, and return the config of a student with it."""
    config = small_cfg(**{"BACKBONE.NAME": "resnet18"}).dump()
    save_file({"model": teacher.state_dict(), "config": config}, folder / "teacher.pth")
    cfg = small_cfg(**options).clone()
    cfg.defrost()
    cfg.DISTILLER.TEACHER_CKPT = str(folder / "teacher.pth")
    return cfg


@pytest.mark.slow
def test_each_term_trains_the_student_and_not_the_teacher():
    torch.manual_seed(0)
    slim = {"MODEL.FPN_CHANNELS": "12", "MODEL.FC_SIZE": "24", "MODEL.EMBEDDING_SIZE": "10"}
    cfg = small_cfg(**{"BACKBONE.NAME": "resnet18_x05"}, **slim)
    teacher_cfg = small_cfg(**{"BACKBONE.NAME": "resnet18", "MODEL.FPN_CHANNELS": "16"})
    student, teacher = build_net(cfg, 4), build_net(teacher_cfg, 4)
    distiller = build_distiller(cfg, student, teacher, teacher_cfg).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    boxes = torch.tensor([[10.0, 10, 50, 90], [60, 20, 100, 90], [90, 5, 120, 60]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, U, 2])},
        {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    images = [normals("image0", 3, 96, 128).sigmoid(), normals("image1", 3, 96, 110).sigmoid()]
    step = distiller(images, targets)
    for name, term in distiller.terms.items():
        distiller.zero_grad()
        step.losses[name].backward(retain_graph=True)
        reached = {n for n, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        branches = {"box_predictor": ("ld", "kd"), "embedding_head": ("cd", "rkd")}
        for branch, names in branches.items():
            assert name not in names or any(branch in n for n in reached)
        assert any("backbone.body" in n for n in reached)
        assert all(p.grad is not None for p in term.parameters())
        assert all(p.grad is None for p in teacher.parameters())
    torch.optim.SGD([p for p in distiller.parameters() if p.requires_grad], 0.1).step()
    assert all(torch.equal(value, before[n]) for n, value in teacher.state_dict().items())


def test_scale_boxes_by_is_the_size_that_a_map_covers():
    def loss(scale_boxes_by: str, sizes: list[tuple[int, int]]) -> float:
        student, teacher = make_outputs("student"), make_outputs("teacher")
        student.images.image_sizes = sizes
        term = make_term("dfd", 8, 8, OPTIONS["dfd"] | dict(scale_boxes_by=scale_boxes_by))
        return term(student, teacher).item()

    before, after = [(96, 128), (96, 120)], [(128, 128)] * 2  # padding
    assert loss("padded", before) == loss("padded", after) == loss("image", after)
    assert loss("image", before) != loss("image", after)


@pytest.mark.slow
def test_init_student_copies_and_names_heads_rpn_and_fpn_outputs(tmp_path, capsys):
    teacher = build_net(small_cfg(**{"BACKBONE.NAME": "resnet18"}), 4)
    cfg = teacher_of(teacher, tmp_path, **{"BACKBONE.NAME": "resnet18_x05"})
    cfg.DISTILLER.INIT_STUDENT, device = True, torch.device("cpu")
    alone = build_from(cfg, build_alone, FOUR, device, False)[1].state_dict()
    student = build_from(cfg, build_distilled, FOUR, device, False)[1].state_dict()
    first, said = capsys.readouterr().out.splitlines()
    assert first == said
    names = said.partition(": ")[2].strip().split(", ")
    assert f" {len(names)} " in said
    theirs = teacher.state_dict()
    assert all(student[name].equal(theirs[name]) for name in names)
    wanted = (
        "rpn.",
        "backbone.fpn.layer_blocks.",
        "roi_heads.box_head.",
        "roi_heads.reid_head.",
        "roi_heads.box_predictor.",
        "roi_heads.embedding_head.",
    )
    assert set(names) == {name for name in theirs if name.startswith(wanted)}
    assert all(alone[name].equal(theirs[name]) for name in names)

    student = build_from(cfg, build_distilled, FOUR, device, True)[1].state_dict()  # --resume
    assert not capsys.readouterr().out
    assert not student["rpn.head.conv.0.0.weight"].equal(theirs["rpn.head.conv.0.0.weight"])


@pytest.mark.slow
def test_a_seed_gives_the_same_student_with_and_without_a_teacher(tmp_path):
    teacher = build_net(small_cfg(**{"BACKBONE.NAME": "resnet18"}), 4)
    cfg = teacher_of(teacher, tmp_path)
    starts = []
    for build in (build_alone, build_distilled):
        torch.manual_seed(3)
        starts.append(build(cfg, FOUR, torch.device("cpu"))[1].state_dict())
    assert all(value.equal(starts[1][name]) for name, value in starts[0].items())


def test_init_from_teacher_copies_equal_shapes_only(tmp_path):
    teacher = build_net(small_cfg(**{"BACKBONE.NAME": "resnet18"}), 4)
    cfg = teacher_of(teacher, tmp_path, **{"BACKBONE.NAME": "resnet18", "MODEL.FC_SIZE": "16"})
    copied = init_from_teacher(build_net(cfg, 4), teacher)
    assert "roi_heads.embedding_head.pooled.0.weight" in copied
    assert not any(name.startswith(("roi_heads.reid_head.", "roi_heads.oim.")) for name in copied)


def test_cd_needs_a_teacher_of_the_same_identities():
    student, teacher = make_outputs("student"), make_outputs("teacher")
    teacher.oim = OIM(5, 3, 8)
    with pytest.raises(UserError, match="4 .* 5"):
        make_term("cd", 8, 8, OPTIONS["cd"])(student, teacher)


def test_lengths_of_embeddings_may_differ():
    student, teacher = make_outputs("student"), make_outputs("teacher")
    teacher.oim = OIM(4, 3, 6)
    teacher.embeddings = F.normalize(normals("teacher.x", len(teacher.embeddings), 6))
    for name, options in [
        ("cd", OPTIONS["cd"] | dict(rank_by="constant")),
        ("rkd", OPTIONS["rkd"]),
        ("cd", CONTRASTIVE | dict(lengths=(8, 6))),
    ]:
        term = make_term(name, 8, 8, options)
        assert term(student, teacher) > 0
    assert [tuple(weight.shape) for weight in term.parameters()] == [(6, 8)]
    assert not list(make_term("cd", 8, 8, CONTRASTIVE | dict(lengths=(8, 8))).parameters())


def test_a_method_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "sign.py").write_text("""
from torch import nn

class Term(nn.Module):
    mean_over = "images"

    def __init__(self, *, student_channels, teacher_channels, levels, power):
        super().__init__()
        self.power = power

    def forward(self, student, teacher):
        gap = student.embeddings.sign() - teacher.embeddings.sign()
        return gap.abs().mean() ** self.power
""")
    monkeypatch.setattr(distill, "__path__", [*distill.__path__, str(tmp_path)])
    cfg = get_cfg()
    cfg.DISTILLER.SIGN = CfgNode(
        {"WEIGHT": 3.0, "POWER": 2}
    )  # in place of the line in configs/defaults.py
    cfg.DISTILLER.TERMS = ["sign", "ld"]
    terms = build_terms(cfg, cfg)
    value = terms["sign"](make_outputs("student"), make_outputs("teacher"))
    assert list(terms) == ["sign", "ld"] and 0 < value < 4
    assert loss_weights(cfg)["sign"] == 3


def test_weights_of_terms_after_stop_epoch():
    cfg = get_cfg()
    assert loss_weights(cfg, epoch=9)["dfd"] == 1  # STOP_EPOCH 0: never
    cfg.DISTILLER.STOP_EPOCH = 2
    assert loss_weights(cfg, epoch=1) == loss_weights(cfg)
    stopped = loss_weights(cfg, epoch=2)
    changed = {name for name, weight in loss_weights(cfg).items() if weight != stopped[name]}
    assert changed == {"dfd", "ld", "cd"} and stopped["cd"] == 0


def test_unknown_names_and_choices():
    with pytest.raises(UserError, match="cd, dfd, hint, kd, ld, pkd, reviewkd, rkd.*found fgd2"):
        check_terms(["dfd", "fgd2"])
    with pytest.raises(UserError, match="CD.FORM: .*found cosine"):
        make_term("cd", 8, 8, OPTIONS["cd"] | dict(form="cosine"))
    with pytest.raises(UserError, match="CD.RANK_BY"):
        make_term("cd", 8, 8, OPTIONS["cd"] | dict(rank_by="score"))
    for name in ("kd", "ld"):
        with pytest.raises(UserError, match=f"{name.upper()}.LOGITS: "):
            make_term(name, 8, 8, OPTIONS[name] | dict(logits="scaled"))
    with pytest.raises(UserError, match="DFD.SCALE_BOXES_BY"):
        make_term("dfd", 8, 8, OPTIONS["dfd"] | dict(scale_boxes_by="map"))
