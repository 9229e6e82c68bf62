"""Options that save memory do not change the training, or change it slightly."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection.image_list import ImageList

from configs.defaults import load_cfg
from engine.training.batching import Batching, Part
from engine.training.generators import generator_states, restore_generators, seed_everything
from engine.training.train_step import TrainStep
from models.backbones import make_backbone
from models.build import build_distiller, build_net
from tests.tiny import PUBLIC
from tests.training import CONFIG, same
from utils.errors import UserError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BOXES = torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50]])


@pytest.fixture
def learn(tmp_path):
    """Return a function that trains two steps with the given options."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)

    def steps(
        *options: str, distill: bool = True, rate: float = 0.01, scale: float = 2.0**16
    ) -> tuple[list[dict], nn.Module, TrainStep]:
        cfg = load_cfg(tmp_path / "tiny.yaml", ["DISTILLER.TERMS", "['dfd','ld','cd']", *options])
        seed_everything(1)
        net = build_net(cfg, num_pids=5)
        model = build_distiller(cfg, net, build_net(cfg, num_pids=5), cfg) if distill else net
        train_step = TrainStep(cfg, model.train(), net, CPU)
        state = train_step.scaler.state_dict()  # empty without fp16
        train_step.scaler.load_state_dict(state and state | {"scale": scale})
        images = [torch.rand(3, 64, 112) for _ in range(3)]
        targets = [{"boxes": BOXES, "labels": torch.tensor([1 + i, 2 + i])} for i in range(3)]
        parts = Batching.of(cfg).parts(images, targets, 3)
        return (
            [train_step.step(parts, rate, "a test") for _ in range(2)],
            net,
            train_step,
        )

    return steps


def store_all_activations(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("models.backbones.checkpoint", lambda block, x, **_: block(x))


@pytest.mark.parametrize("everywhere", ["False", "True"])
def test_checkpointed_backbone_is_equal_to_the_bit(learn, everywhere):
    torch.set_num_threads(1)  # several add in any order
    with pytest.MonkeyPatch.context() as patch:
        store_all_activations(patch)
        losses, net, _ = learn()
    others, checkpointed, _ = learn("BACKBONE.CHECKPOINT", everywhere)
    assert losses == others
    assert same(net.state_dict(), checkpointed.state_dict())  # including running statistics


@pytest.mark.parametrize("name", PUBLIC)
def test_checkpointed_backbone_stores_less(name):
    """Fewer bytes, apart from the weights, are stored for the backward pass. Gradients are
    equal."""

    def make(checkpointed):
        torch.manual_seed(0)
        return make_backbone(name, "", False, False, 16, checkpointed).train()

    image = torch.rand(1, 3, 128, 192)

    def bytes_stored(net):
        weights, storages = {p.data_ptr() for p in net.parameters()}, {}
        torch.manual_seed(1)  # ConvNeXt drops blocks at random

        def keep(tensor):
            if tensor.data_ptr() not in weights:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = sum(level.square().mean() for level in net(image).values())
        loss.backward()
        return sum(storages.values())

    plain, first_stage, everywhere = nets = make(False), make(False), make(True)
    with pytest.MonkeyPatch.context() as patch:
        store_all_activations(patch)
        stored = [bytes_stored(plain)]
    stored += [bytes_stored(first_stage), bytes_stored(everywhere)]
    for net in nets[1:]:
        assert same([p.grad for p in plain.parameters()], [p.grad for p in net.parameters()])
        assert same(plain.state_dict(), net.state_dict())
    print(name, [f"{size / 2**20:.1f} MiB" for size in stored])
    assert stored[1] < 0.9 * stored[0] and stored[2] < 0.6 * stored[0]


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_mixed_precision_is_near(learn, kind):
    # Nearly the regions of the ground truth, in both precisions.
    regions = ("MODEL.RPN.POST_NMS_TOP_N", "[1, 20]")
    losses, _, _ = learn(*regions, rate=1e-4)
    # A scale that is too large for the first gradient would skip the first step, and OIM's update.
    others, net, train_step = learn("SOLVER.AMP", kind, *regions, rate=1e-4, scale=256.0)
    for expected, found in zip(losses, others):
        print(kind, {k: (round(v, 4), round(found[k], 4)) for k, v in expected.items()})
        for name in expected:
            # OIM's logit for a cosine near 1 that is off by half of bfloat16's spacing there
            of_logits = 30 * 2**-8 if name in ("oim", "total") else 0
            assert found[name] == pytest.approx(expected[name], rel=0.05, abs=0.03 + of_logits), (
                name
            )
    assert losses != others
    assert all(value.dtype in (torch.float32, torch.int64) for value in net.state_dict().values())
    assert torch.allclose(net.oim.lut.norm(dim=1), net.oim.lut.any(dim=1).float(), atol=1e-6)
    assert bool(train_step.scaler.state_dict()) == (kind == "fp16")


def test_outputs_and_terms_are_float32(learn):
    """Class logits, box deltas, embeddings and the inputs of terms are float32 under mixed
    precision."""
    seen = {}

    class Spy(nn.Module):
        mean_over = "images"

        def forward(self, student, teacher):
            for outputs in (student, teacher):
                seen["features"] = {level.dtype for level in outputs.features.values()}
                seen["others"] = {outputs.class_logits.dtype, outputs.embeddings.dtype}
            seen["autocast"] = torch.is_autocast_enabled("cpu")
            return student.embeddings.sum()

    _, _, train_step = learn("SOLVER.AMP", "bf16")
    train_step.model.terms["ld"] = Spy()
    dtypes = []
    for module in (train_step.net.rpn.head, train_step.net.roi_heads.box_head):
        module.register_forward_hook(
            lambda m, args, out: dtypes.append(
                (out if isinstance(out, torch.Tensor) else out[1][0]).dtype
            )
        )
    images = [torch.rand(3, 64, 112)] * 3
    targets = [{"boxes": BOXES, "labels": torch.tensor([1, 2])}] * 3
    train_step.step([Part(images, targets)], 0.01, "a test")
    assert seen == {"features": {torch.float32}, "others": {torch.float32}, "autocast": False}
    assert dtypes == [torch.float32, torch.bfloat16]  # the branches compute in half precision


def test_anchors_are_exact():
    """At 1500 pixels, neighbouring bfloat16 numbers differ by 8."""
    rpn = build_net(load_cfg(None, ["BACKBONE.WEIGHTS", ""]), 5).rpn
    images = ImageList(torch.zeros(1, 3, 64, 1504), [(64, 1500)])
    levels = [torch.zeros(1, 2, 64 // stride, 1504 // stride) for stride in (4, 8, 16, 32)]
    exact = rpn.anchor_generator(images, [*levels, levels[-1][..., ::2, ::2]])[0]
    half = [level.bfloat16() for level in [*levels, levels[-1][..., ::2, ::2]]]
    assert torch.equal(rpn.anchor_generator(images, half)[0], exact)


def test_half_precision_survives_an_overflow(learn):
    """If a gradient is infinite, the scaler halves its scale and the weights do not change."""
    _, net, train_step = learn("SOLVER.AMP", "fp16", distill=False)
    before, scale = copy.deepcopy(net.state_dict()), train_step.scaler.get_scale()
    train_step.weights["rpn_cls"] = 1e36
    images = [torch.rand(3, 64, 112)] * 3
    targets = [{"boxes": BOXES, "labels": torch.tensor([1, 2])}] * 3
    train_step.step([Part(images, targets)], 0.01, "a test")
    assert train_step.scaler.get_scale() == scale / 2
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name, _ in net.named_parameters())


def test_unknown_precision_is_an_error(learn):
    with pytest.raises(UserError, match="SOLVER.AMP: expected '', bf16 or fp16; found 'half'"):
        learn("SOLVER.AMP", "half")


def test_all_measures_together(learn):
    losses, _, _ = learn(
        "SOLVER.AMP", "bf16", "SOLVER.ACCUMULATE", "3", "BACKBONE.CHECKPOINT", "True"
    )
    assert all(torch.tensor(list(one.values())).isfinite().all() for one in losses)


def test_counting_ahead_leaves_no_trace(learn):
    """Statistics of norms and random numbers are the same as without counting in advance."""
    _, net, train_step = learn()
    before = copy.deepcopy(net.state_dict())
    images, targets = [torch.rand(3, 64, 112)], [{"boxes": BOXES, "labels": torch.tensor([1, 2])}]
    states = generator_states(CPU)
    parts = [Part(images, targets), Part(images, targets, live=False)]
    counts, rows = train_step._run_ahead(parts, (64, 112))
    assert [len(part["cd"][0]) > 0 for part in rows.parts] == [True, False]
    assert same(before, net.state_dict()) and same(states, generator_states(CPU))
    restore_generators(states, CPU, "a test")
    assert counts["images"] == 1 and counts["proposals"] <= 16 and counts["labelled"] >= 2
