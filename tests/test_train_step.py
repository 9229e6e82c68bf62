"""A training step in one process, computed by hand: clipping, ranks, teacher and learning rate."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from configs.defaults import load_cfg
from engine.training import train_step
from engine.training.batching import Part
from engine.training.schedule import learning_rate
from engine.training.train_step import TrainStep, check_finite, loss_weights, make_optimizer
from models.backbones import FrozenNormStatistics
from models.build import build_distiller, build_net
from models.filtering import DetectionLimits, filter_detections
from models.oim import OIM
from models.outputs import Detections
from models.roi_heads import detection_losses
from models.search_net import SearchNet
from tests.tiny import TINY, pairs
from utils.errors import UserError

CPU = torch.device("cpu")
SMALL = TINY | {
    "INPUT.BATCH_SIZE_TRAIN": 2,
    "MODEL.ANCHOR_SIZES": [8, 16, 24, 32, 48],
    "MODEL.ROI.BATCH_SIZE": 8,
    "SOLVER.MOMENTUM": 0.0,
    "SOLVER.WEIGHT_DECAY": 0.0,
}
IMAGES = [torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(i)) for i in range(2)]
TARGETS = [
    {"boxes": torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50]]), "labels": torch.tensor([1, 2])},
    {"boxes": torch.tensor([[30.0, 4, 60, 60]]), "labels": torch.tensor([3])},
]
RATE = 0.5


def take_step(**settings) -> Tensor:
    """Return the change of all trained weights in one step of SGD, divided by its learning rate
    RATE.

    The initial weights and the sampled regions are the same in every call.
    """
    torch.manual_seed(3)
    cfg = load_cfg(None, pairs(SMALL | settings))
    net = build_net(cfg, num_pids=3)
    step = TrainStep(cfg, net.train(), net, CPU)
    before = flat(step.parameters)
    torch.manual_seed(5)
    step.step([Part(IMAGES, TARGETS)], RATE, "a test")
    return (before - flat(step.parameters)) / RATE


def test_norms_of_gradients_that_overflow_in_half_precision():
    """They are nearly those of float32."""
    norms = []
    for precision in ("", "fp16"):
        torch.manual_seed(3)
        settings = {"SOLVER.AMP": precision, "SOLVER.LOSS_WEIGHTS.PROPOSAL_REG": 1e4}
        net = build_net(cfg := load_cfg(None, pairs(SMALL | settings)), num_pids=3)
        step = TrainStep(cfg, net.train(), net, CPU)
        torch.manual_seed(5)
        norms.append(step.gradient_norms(IMAGES, TARGETS))
    assert norms[0]["total"] > 1e3
    for name in ("proposal_reg", "total", "rpn_cls"):
        assert norms[1][name] == pytest.approx(norms[0][name], rel=0.05)


def flat(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters]).double()


def test_gradients_are_clipped_to_the_norm_of_the_config():
    whole = take_step(**{"SOLVER.CLIP_GRADIENTS": 0.0})
    clipped = take_step(**{"SOLVER.CLIP_GRADIENTS": 0.01})
    assert whole.norm() > 0.1
    assert clipped.norm() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), whole / whole.norm(), atol=1e-4, rtol=0)


def step_of(parts: int) -> tuple[dict[str, float], Tensor]:
    """Return the losses and the change of the weights of one step on a batch in this many parts.

    All regions are used, so that parts do not depend on random samples. The losses of the RPN have
    weight 0, since they are means over anchors, whose number differs between images.
    """
    every = {"MODEL.RPN.BATCH_SIZE": 9999, "MODEL.ROI.BATCH_SIZE": 999}
    positive = {"MODEL.ROI.POSITIVE_FRACTION": 0.5, "BACKBONE.FROZEN_BN": True}
    positive |= {f"SOLVER.LOSS_WEIGHTS.{name}": 0.0 for name in ("RPN_CLS", "RPN_REG")}
    torch.manual_seed(3)
    cfg = load_cfg(None, pairs(SMALL | every | positive | {"SOLVER.CLIP_GRADIENTS": 0.0}))
    net = build_net(cfg, num_pids=3).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()  # its statistics would be those of one part
    step = TrainStep(cfg, net, net, CPU)
    before = flat(step.parameters)
    size = len(IMAGES) // parts
    cuts = [Part(IMAGES[i : i + size], TARGETS[i : i + size]) for i in range(0, 2, size)]
    losses = step.step(cuts, RATE, "a test")
    return losses, before - flat(step.parameters)


def test_parts_of_a_batch_add_up_to_the_whole():
    """Losses are means over the images, proposals or labelled people of the whole batch."""
    losses, change = step_of(1)
    in_parts, change_in_parts = step_of(2)
    names = ("proposal_cls", "proposal_reg", "oim", "total")
    assert [in_parts[n] for n in names] == pytest.approx([losses[n] for n in names], rel=1e-4)
    torch.testing.assert_close(change_in_parts, change, atol=1e-5, rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run():
    with pytest.raises(UserError, match="oim"):
        check_finite({"rpn_cls": torch.ones(()), "oim": torch.tensor(torch.nan)}, "a test")


def test_a_second_pass_leaves_the_statistics_of_norms():
    norm, other = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    values = torch.rand(4, 2)
    with FrozenNormStatistics(norm):
        norm(values)
    assert norm.running_mean.tolist() == [0, 0] and norm.num_batches_tracked == 0
    for one in (norm, other):
        one(values)
    assert all(map(torch.equal, norm.state_dict().values(), other.state_dict().values()))


def test_optimizers_have_the_values_of_the_config():
    weights = [nn.Parameter(torch.zeros(2))]
    values = {"SOLVER.MOMENTUM": 0.7, "SOLVER.WEIGHT_DECAY": 0.01}
    for name, key, expected in (("sgd", "momentum", 0.7), ("adamw", "betas", (0.7, 0.999))):
        cfg = load_cfg(None, pairs(values | {"SOLVER.OPTIMIZER": name}))
        (group,) = make_optimizer(cfg, weights).param_groups
        assert (group[key], group["weight_decay"]) == (expected, 0.01)


def test_background_is_not_written_to_the_oim_tables(monkeypatch):
    written = []
    monkeypatch.setattr(OIM, "update", lambda self, x, labels: written.append((x, labels)))
    take_step()
    ((embeddings, labels),) = written
    assert len(embeddings) == len(labels) > 0 and (labels > 0).all()


def _halve(parameter: nn.Parameter) -> None:
    parameter.grad /= 2


class MeanOverTwoRanks(nn.Module):
    """DistributedDataParallel of two ranks, the second of which has gradients of zero."""

    def __init__(self, model: nn.Module, **_):
        super().__init__()
        self.model = model
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_halve)

    def forward(self, *inputs):
        return self.model(*inputs)

    def no_sync(self):
        return nullcontext()


def test_gradients_of_ranks_are_added(monkeypatch):
    alone = take_step(**{"SOLVER.CLIP_GRADIENTS": 0.0})
    monkeypatch.setattr(train_step, "ranks", lambda: 2)
    monkeypatch.setattr(train_step, "DistributedDataParallel", MeanOverTwoRanks)
    shared = take_step(**{"SOLVER.CLIP_GRADIENTS": 0.0})
    torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-3)


def test_the_teacher_stays_in_eval_mode_and_unchanged():
    torch.manual_seed(3)
    cfg = load_cfg(None, pairs(SMALL))
    student, teacher = build_net(cfg, num_pids=3), build_net(cfg, num_pids=3)
    before = copy.deepcopy(teacher.state_dict())
    model = build_distiller(cfg, student, teacher, cfg).train()
    assert student.training and not any(module.training for module in teacher.modules())
    losses = model(IMAGES, TARGETS).losses
    sum(losses.values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_the_teacher_can_have_a_precision_of_its_own():
    cfg, seen = load_cfg(None, pairs(SMALL)), {}
    student, teacher = build_net(cfg, num_pids=3), build_net(cfg, num_pids=3)
    model = build_distiller(cfg, student, teacher, cfg, torch.bfloat16).train()
    for name, net in (("student", model.student), ("teacher", model.teacher)):
        net.backbone.register_forward_hook(
            lambda module, images, maps, name=name: seen.update({name: maps["0"].dtype})
        )
    losses = model(IMAGES, TARGETS).losses
    assert seen == {"student": torch.float32, "teacher": torch.bfloat16}
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def distill(cuts: int = 1, **settings) -> tuple[Tensor, int]:
    """Return the gradient of one distillation step on all weights, and how many are the student's.

    Args:
        cuts: number of parts into which the batch is divided.
    """
    torch.manual_seed(3)
    values = {"SOLVER.CLIP_GRADIENTS": 0.0, "BACKBONE.FROZEN_BN": True} | settings
    cfg = load_cfg(None, pairs(SMALL | values))
    student, teacher = build_net(cfg, num_pids=3), build_net(cfg, num_pids=3)
    model = build_distiller(cfg, student, teacher, cfg).train()
    step = TrainStep(cfg, model, student, CPU)
    before = flat(step.parameters)
    torch.manual_seed(5)
    size = len(IMAGES) // cuts
    parts = [Part(IMAGES[i : i + size], TARGETS[i : i + size]) for i in range(0, 2, size)]
    step.step(parts, RATE, "a test")
    count = sum(p.numel() for p in student.parameters() if p.requires_grad)
    return (before - flat(step.parameters)) / RATE, count


LD = {"DISTILLER.TERMS": "[ld]"}


@pytest.mark.parametrize("term, cuts", [("ld", 1), ("ld", 2), ("hint", 1)])
def test_gradient_of_terms_is_limited_to_its_share(term, cuts):
    """With share 1/2, the gradient of the terms on the student is at most as long as that of its
    own losses. That on the weights of the terms is not limited."""
    values, weight = {"DISTILLER.TERMS": f"[{term}]"}, f"DISTILLER.{term.upper()}.WEIGHT"
    own, count = distill(cuts, **values, **{weight: 0.0})
    strong = values | {weight: 1000.0}
    terms = distill(cuts, **strong)[0] - own
    assert terms[:count].norm() > own.norm()
    limited = distill(cuts, **strong, **{"DISTILLER.GRADIENT_SHARE": 0.5})[0] - own
    torch.testing.assert_close(limited[count:], terms[count:], atol=1e-4, rtol=1e-3)
    limited, terms = limited[:count], terms[:count]
    assert limited.norm() == pytest.approx(own.norm().item(), rel=1e-3)
    torch.testing.assert_close(limited / limited.norm(), terms / terms.norm(), atol=1e-3, rtol=0)


def test_the_limit_starts_anew_with_each_batch():
    step = distilling(**LD, **{"DISTILLER.GRADIENT_SHARE": 0.5})
    step.net.oim.momentum, gradients = 1.0, []  # the table does not change
    for _ in range(2):
        torch.manual_seed(5)
        step.step([Part(IMAGES, TARGETS)], 0.0, "a test")
        gradients.append(torch.cat([p.grad.flatten() for p in step.parameters]))
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_a_share_that_is_not_exceeded_changes_nothing():
    weak = {"DISTILLER.TERMS": "[dfd, ld]", "DISTILLER.LD.WEIGHT": 0.01}
    free, student = distill(**weak)
    limited, _ = distill(**weak, **{"DISTILLER.GRADIENT_SHARE": 0.99})
    assert len(free) > student  # DFD has weights of its own
    torch.testing.assert_close(limited, free, atol=1e-5, rtol=1e-3)


def test_weights_of_terms_stop_and_fall():
    values = {"SOLVER.MAX_EPOCHS": 4, "DISTILLER.TERMS": "[ld, pkd]", "DISTILLER.DECAY": "[pkd]"}
    cfg = load_cfg(None, pairs(values | {"DISTILLER.STOP_EPOCH": 3}))
    weights = [loss_weights(cfg, epoch) for epoch in range(4)]
    assert [one["pkd"] for one in weights] == [6.0, 4.5, 3.0, 0.0]
    assert [one["ld"] for one in weights] == [1.0, 1.0, 1.0, 0.0]
    assert {one["oim"] for one in weights} == {1.0}


def distilling(**settings) -> TrainStep:
    """Return the step of a student with a teacher."""
    torch.manual_seed(3)
    cfg = load_cfg(None, pairs(SMALL | settings))
    student, teacher = build_net(cfg, num_pids=3), build_net(cfg, num_pids=3)
    return TrainStep(cfg, build_distiller(cfg, student, teacher, cfg).train(), student, CPU)


def refuse(*_):
    raise AssertionError("computed")


def test_terms_of_weight_zero_are_not_computed(monkeypatch):
    """An infinite value of such a term does not end the run; without terms no teacher runs."""
    step = distilling(**{"DISTILLER.TERMS": "[dfd, ld]", "DISTILLER.LD.WEIGHT": 0.0})
    monkeypatch.setattr(step.model.terms["ld"], "forward", refuse)
    monkeypatch.setattr(step.model.terms["ld"], "rows", refuse)
    assert "ld" not in step.step([Part(IMAGES, TARGETS)], RATE, "a test")
    step.weights["dfd"] = 0.0
    monkeypatch.setattr(step.model.teacher, "forward_teacher", refuse)
    for parts in ([Part(IMAGES, TARGETS)], [Part(IMAGES[:1], TARGETS[:1])] * 2):
        losses = step.step(parts, RATE, "a test")
        assert losses.keys().isdisjoint(("dfd", "ld")) and "oim" in losses
    # the optimizer goes on with the same weights
    assert all(p.grad is not None and not p.grad.any() for p in step.terms.parameters())
    step.weights["dfd"] = 1.0
    with pytest.raises(AssertionError, match="computed"):
        step.step([Part(IMAGES, TARGETS)], RATE, "a test")


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("parts", [1, 2])
def test_own_losses_of_weight_zero_do_not_count(monkeypatch, share, parts):
    """Infinite ones change neither the total nor a gradient, and have gradients of zero."""
    torch.set_num_threads(1)  # several add in any order
    cuts, gradients = [Part(IMAGES[i::parts], TARGETS[i::parts]) for i in range(parts)], []
    settings = {"DISTILLER.TERMS": "[ld]", "DISTILLER.GRADIENT_SHARE": share}
    for factor in (1.0, torch.inf):
        step = distilling(**settings | {"SOLVER.LOSS_WEIGHTS.OIM": 0.0})
        monkeypatch.setattr(step.net.oim, "forward", lambda x, labels: factor * x.sum())  # noqa: B023
        torch.manual_seed(5)
        losses = step.step(cuts, 0.0, "a test")
        assert losses["total"] > 0 and math.isfinite(losses["oim"]) == (factor == 1)
        gradients.append([p.grad for p in step.parameters])
        assert not any(p.grad.any() for p in step.net.roi_heads.reid_head.parameters())
        assert step.gradient_norms(IMAGES, TARGETS)["oim"] == 0
    assert all(map(torch.equal, *gradients)) and any(g.any() for g in gradients[0])
    step.weights |= dict.fromkeys(step.weights, 0.0)
    assert step.step(cuts, 0.0, "a test")["total"] == 0
    step.weights["oim"] = 0.1
    with pytest.raises(UserError, match="loss not finite: oim"):
        step.step(cuts, 0.0, "a test")


def test_a_skipped_step_leaves_the_oim_tables():
    """fp16's scaler skips a step whose gradient is not finite."""
    step = distilling(**{"DISTILLER.TERMS": "[]"})
    step.scaler = torch.amp.GradScaler("cpu")
    weight, oim = step.weights["oim"], copy.deepcopy(step.net.oim.state_dict())
    for factor, skipped in ((1e38, True), (1.0, False)):
        step.weights["oim"], scale = weight * factor, step.scaler.get_scale()
        step.step([Part(IMAGES, TARGETS)], 1e-4, "a test")
        assert (step.scaler.get_scale() < scale) == skipped
        assert torch.equal(step.net.oim.lut, oim["lut"]) == skipped


def test_a_skipped_first_step_leaves_no_momentum(monkeypatch):
    """Not even that of memory which was never written."""
    monkeypatch.setattr(torch, "empty_like", lambda values: torch.full_like(values, torch.nan))
    cfg, weight = load_cfg(None, pairs({"SOLVER.AMP": "fp16"})), nn.Parameter(torch.zeros(2))
    optimizer, scaler = make_optimizer(cfg, [weight]), torch.amp.GradScaler("cpu")
    for factor in (torch.inf, 0.0):
        optimizer.zero_grad()
        scaler.scale((factor * weight).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert weight.tolist() == optimizer.state[weight]["momentum_buffer"].tolist() == [0, 0]


def test_a_term_to_decay_must_be_one_of_the_run():
    cfg = load_cfg(None, pairs(SMALL | {"DISTILLER.TERMS": "[ld]", "DISTILLER.DECAY": "[dfd]"}))
    net = build_net(cfg, num_pids=3)
    with pytest.raises(UserError, match=r"DISTILLER\.DECAY: .*found dfd"):
        TrainStep(cfg, net, net, CPU)


def test_learning_rate_by_hand():
    """An epoch has four steps. The rate rises linearly in the first epoch, and is a tenth from
    epoch 2 on."""
    rates = [learning_rate(step, 4, 0.3, 0.1, [2], 0.1) for step in range(10)]
    assert rates == pytest.approx([0.03, 0.12, 0.21, 0.3, 0.3, 0.3, 0.3, 0.3, 0.03, 0.03])


def test_detection_losses_by_hand():
    """Both losses are means over all regions. Only deltas of people count, by smooth L1 with beta
    1."""
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    deltas = torch.zeros(2, 8)
    deltas[0, 4:] = torch.tensor([0.5, 3.0, 0.0, 0.0])
    losses = detection_losses(logits, deltas, torch.tensor([7, 0]), torch.zeros(2, 4))
    assert losses["proposal_cls"].item() == pytest.approx(0.6931, abs=1e-4)
    assert losses["proposal_reg"].item() == pytest.approx((0.125 + 2.5) / 2)


def test_detections_are_filtered_by_score_overlap_and_count():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [40, 0, 40, 9.0]])
    scores = torch.tensor([0.6, 0.9, 0.5, 0.8])
    limits = DetectionLimits(0.4, 0.5, 5)
    assert filter_detections(boxes, scores, limits).tolist() == [1, 2]
    assert filter_detections(boxes, scores, limits._replace(score=0.5)).tolist() == [1]
    assert filter_detections(boxes, scores, limits._replace(overlap=0.95)).tolist() == [1, 0, 2]
    assert filter_detections(boxes, scores, limits._replace(count=1)).tolist() == [1]


def test_embeddings_are_weighted_by_the_score():
    found = Detections(torch.zeros(2, 4), torch.tensor([0.5, 1.0]), torch.ones(2, 3))
    assert found.weighted_embeddings.tolist() == [[0.5] * 3, [1.0] * 3]


def test_anchors_are_ordered_by_ratio(net: SearchNet):
    """Checkpoints of the release require the order height / width = 0.5, 1, 2."""
    for anchors in net.rpn.anchor_generator.cell_anchors:
        width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(dim=1)
        assert (height / width).tolist() == pytest.approx([0.5, 1, 2], rel=0.15)


def test_matching_thresholds_are_the_published(net: SearchNet):
    """The IoU of regions with people is 0.5. Anchors are positive from 0.7 on, and negative below
    0.3."""
    regions, anchors = net.roi_heads.proposal_matcher, net.rpn.proposal_matcher
    assert (regions.high_threshold, regions.low_threshold) == (0.5, 0.5)
    assert (anchors.high_threshold, anchors.low_threshold) == (0.7, 0.3)
