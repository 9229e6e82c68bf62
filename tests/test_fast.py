"""Fast paths compared with the plain formulas: losses to 1e-6, gradients to 1e-5, relative."""

import copy
import ctypes
import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from engine.device import choose_device
from models import reference
from models.backbones import LeanFPN, make_backbone
from models.distill.dfd import LevelLoss
from models.fast import map_sums
from models.fast.inference import fold_norms, optimize_for_inference
from models.fast.roi_align import GatheredRoIAlign
from models.fast.rpn_head import SparseRPNHead
from tests.golden_net import (
    BOX,
    finds_and_embeds_as_the_release_does,
    golden_image,
    golden_net,
    load_named_weights,
)
from tests.tiny import PUBLIC
from tests.training import FORKS
from utils.memory import keep_freed_memory


def same_loss_and_gradients(fast: tuple, plain: tuple) -> None:
    """Compare two pairs of a loss and the tensors for which it has gradients."""
    (loss, leaves), (expected, others) = fast, plain
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    found, wanted = torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, others)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert b.any() and (a - b).norm() <= 1e-5 * b.norm(), (number, a.shape)


# --- the RPN head ------------------------------------------------------------------------------


def rpn_losses(head: RPNHead, levels: list[Tensor], sampled: list[tuple]) -> Tensor:
    """Return a loss of some anchors' objectness and other anchors' deltas, as in an RPN.

    Args:
        sampled: (level, image, y, x) of each anchor.
    """
    objectness, deltas = head(levels)
    loss = sum(objectness[i][n, y % 3, y, x].sigmoid() for i, n, y, x in sampled)
    loss = loss + sum(0 * level.sum() for level in objectness)
    return loss + sum(deltas[i][n, 4:8, y, x].abs().sum() for i, n, y, x in sampled[::2])


SAMPLED = [(0, 0, 0, 0), (0, 1, 5, 8), (0, 1, 5, 7), (0, 0, 2, 8), (1, 1, 2, 3), (1, 1, 2, 3)]


@pytest.mark.parametrize("autocast", [False, True])
def test_rpn_head(autocast):
    """Positions are in corners, adjacent, or duplicates; one level has none; mixed precision is
    included."""
    torch.manual_seed(0)
    fast, plain = SparseRPNHead(8, 3), RPNHead(8, 3)
    for weight in fast.parameters():
        nn.init.normal_(weight, std=0.3)
    plain.load_state_dict(fast.state_dict())
    sides = [(2, 8, 6, 9), (2, 8, 3, 4), (2, 8, 1, 1)]
    results = []
    for head in (fast, plain):
        levels = [torch.randn(side, generator=torch.manual_seed(1)) for side in sides]
        leaves = [level.requires_grad_() for level in levels]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = rpn_losses(head, levels, SAMPLED)
        gradients = torch.autograd.grad(loss, [*leaves, *head.parameters()])
        results.append([loss.detach(), *gradients])
    assert not results[1][3].any()  # no sample on the last level
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() <= (1e-2 if autocast else 1e-6) * b.norm()


def test_cache_optimizations_are_used_on_the_cpu_only():
    """On other devices maps are processed in one chunk, and the RPN head's backward pass is
    torchvision's."""
    maps = torch.rand(1, 4, 64, 80)
    for device, chunks, sparse in (("cpu", 2, True), ("meta", 1, False)):
        level = maps.to(device).requires_grad_()
        assert len(list(map_sums.chunks(level.flatten(2)))) == chunks
        objectness, _ = SparseRPNHead(4, 3).to(device)([level])
        assert ("Sparse" in objectness[0].grad_fn.name()) == sparse


def test_rpn_head_without_graph_is_torchvisions():
    fast, level = SparseRPNHead(8, 3), torch.randn(1, 8, 6, 9)
    with torch.no_grad():
        found, expected = fast([level]), RPNHead.forward(fast, [level])
    assert torch.equal(found[0][0], expected[0][0]) and torch.equal(found[1][0], expected[1][0])


# --- DFD ---------------------------------------------------------------------------------------


PARTS = ("fg", "bg", "attention", "relation")


def plain_level(level: LevelLoss, student_channels: int) -> reference.DFDLevel:
    """Return the level as plain formulas with the same parameters."""
    plain = reference.DFDLevel(student_channels, level.student_context.mask.in_channels)
    plain.load_state_dict(level.state_dict())
    return plain


def plain_loss(plain: reference.DFDLevel, weights: dict[str, float], *maps: Tensor) -> Tensor:
    parts = zip(PARTS, plain.parts(*maps))
    return sum(weights[name] * part for name, part in parts) / len(maps[0])


@pytest.mark.parametrize("channels", [12, 8])
@pytest.mark.parametrize("part", [*PARTS, "all"])
def test_dfd_level(part, channels):
    """Each part and all parts together are compared, with equal and different numbers of
    channels."""
    torch.manual_seed(0)
    level = LevelLoss(channels, 8, {name: float(part in (name, "all")) for name in PARTS})
    for weight in level.parameters():
        nn.init.normal_(weight, std=0.3)
    plain, results = plain_level(level, channels), []
    teacher = torch.randn(2, 8, 10, 14)
    foreground = torch.zeros(2, 10, 14)
    foreground[0, 2:6, 3:9] = 1 / 24
    for module in (level, plain):
        student = torch.randn(2, channels, 10, 14, generator=torch.manual_seed(1))
        student.requires_grad_()
        if module is plain:
            value = plain_loss(plain, level.weights, student, teacher, foreground)
        else:
            value = level(student, teacher, foreground, 0.5)
        leaves = [student]
        if part in ("relation", "all"):
            # the softmax is invariant to the mask's bias: its gradient is noise
            leaves += [p for n, p in module.named_parameters() if not n.endswith("mask.bias")]
        results.append((value, leaves))
    same_loss_and_gradients(*results)


@pytest.mark.slow
def test_dfd_of_large_maps_is_accurate():
    """On maps of several chunks the loss equals that in double precision."""
    torch.manual_seed(0)
    strengths = {"fg": 5e-3, "bg": 1e-3, "attention": 1e-3, "relation": 5e-6}
    level = LevelLoss(64, 64, strengths)
    maps = [torch.randn(1, 64, 232, 376) for _ in range(2)]
    foreground = torch.zeros(1, 232, 376)
    foreground[0, 50:100, 60:90] = 1 / 1500
    found = level(*maps, foreground, 0.5)
    doubles = [tensor.double() for tensor in (*maps, foreground)]
    expected = plain_loss(plain_level(level, 64).double(), strengths, *doubles)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


# --- RoIAlign ----------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast", [False, True])
def test_gathered_roi_align(autocast):
    """Boxes have all sizes, are outside the image, or have no area; one image has no boxes.

    Half precision and a channels-last map are included.
    """
    torch.manual_seed(0)
    boxes = torch.rand(60, 4) * torch.tensor([96, 64, 60, 50])
    boxes[:, 2:] += boxes[:, :2]
    boxes[0], boxes[1] = torch.tensor([5.0, 5, 5, 5]), torch.tensor([-9.0, -7, 120, 90])
    dtype = torch.bfloat16 if autocast else torch.float32
    maps = {
        str(i): torch.randn(2, 5, 64 // s, 96 // s).to(dtype).requires_grad_()
        for i, s in enumerate((4, 8, 16, 32))
    }
    maps["1"] = maps["1"].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    names = (["0", "1", "2", "3"], 7, 2)
    kinds, sizes = (GatheredRoIAlign(*names), MultiScaleRoIAlign(*names)), [(64, 96), (60, 90)]
    for kind in kinds:
        kind.scales, kind.map_levels = [1 / 4, 1 / 8, 1 / 16, 1 / 32], initLevelMapper(2, 5)
    for cut in (20, 60):  # 60: all boxes in the first image
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            pooled = [kind(maps, [boxes[:cut], boxes[cut:]], sizes) for kind in kinds]
        torch.testing.assert_close(*pooled, rtol=0, atol=3e-2 if autocast else 1e-6)
        into = torch.randn_like(pooled[0])
        grads = [torch.autograd.grad(one, list(maps.values()), into) for one in pooled]
        for a, b in zip(*grads, strict=True):
            assert (a - b).norm() <= (1e-2 if autocast else 1e-6) * b.norm()
    nobody = kinds[0](maps, [boxes[:0]] * 2, sizes)
    assert nobody.shape == (0, 5, 7, 7)
    assert not any(g.any() for g in torch.autograd.grad(nobody.sum(), list(maps.values())))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_boxes_that_are_not_finite(value):
    """Boxes of a diverging network raise no error here. `check_finite` reports the network's
    losses."""
    pool = GatheredRoIAlign(["0", "1"], 7, 2)
    pool.scales, pool.map_levels = [1 / 4, 1 / 8], initLevelMapper(2, 3)
    maps = {"0": torch.rand(1, 3, 20, 30), "1": torch.rand(1, 3, 10, 15)}
    boxes = torch.tensor([[value] * 4, [0, 0, value, value], [8, 8, 40, 60]])
    pooled = pool(maps, [boxes], [(80, 120)])
    assert pooled.isfinite().all() and pooled[0].sum() == 0 and pooled[2].min() > 0


# --- FPN ---------------------------------------------------------------------------------------


def test_lean_fpn_is_torchvisions():
    """Maps and gradients are equal to the bit, even if a side is not twice that of the deeper
    map."""
    torch.manual_seed(0)
    fpn = LeanFPN([4, 6, 8], 5, extra_blocks=LastLevelMaxPool())
    sides = [(2, 4, 11, 14), (2, 6, 6, 7), (2, 8, 3, 3)]
    maps = {name: torch.randn(side).requires_grad_() for name, side in zip("abc", sides)}
    results = []
    for forward in (LeanFPN.forward, FeaturePyramidNetwork.forward):
        levels = forward(fpn, maps)
        total = sum(level.sin().sum() for level in levels.values())
        results.append((levels, torch.autograd.grad(total, [*maps.values(), *fpn.parameters()])))
    (levels, found), (expected, wanted) = results
    assert list(levels) == list(expected) == ["a", "b", "c", "pool"]
    assert all(torch.equal(levels[name], expected[name]) for name in levels)
    assert all(map(torch.equal, found, wanted))


# --- inference ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name, frozen", [*((name, False) for name in PUBLIC), ("resnet50", True)])
def test_folded_norms(name, frozen):
    """No norm remains after a convolution, and the maps are equal."""
    torch.manual_seed(0)
    net = make_backbone(name, "", frozen, freeze=False, fpn_channels=8).eval()
    kinds = (_BatchNorm, FrozenBatchNorm2d)
    for norm in (m for m in net.modules() if isinstance(m, kinds)):
        for value in (norm.weight, norm.running_var):
            nn.init.uniform_(value, 0.5, 1.5)
        for value in (norm.bias, norm.running_mean):
            nn.init.normal_(value)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(image)
        fold_norms(net)
        found = net(image)
    assert not any(isinstance(m, kinds) for m in net.modules())
    for level, value in expected.items():
        assert (found[level] - value).norm() <= 1e-5 * value.norm()


@pytest.mark.slow
def test_fast_inference_finds_and_embeds_as_the_release_does():
    net = golden_net("resnet18", **{"INPUT.MIN_SIZE": "256", "INPUT.MAX_SIZE": "416"})
    load_named_weights(net, "resnet18")
    before = copy.deepcopy(net.state_dict())
    finds_and_embeds_as_the_release_does(optimize_for_inference(net))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_half_precision_of_the_whole_network():
    """The heads compute in bfloat16; the results are float32, and scores and embeddings are nearly
    equal."""
    net = golden_net("resnet18", **{"INPUT.MIN_SIZE": "256", "INPUT.MAX_SIZE": "416"})
    load_named_weights(net, "resnet18")
    image = golden_image()
    (expected,), (own,) = net.eval().detect_and_embed([image], [BOX])
    fast, dtypes = optimize_for_inference(net), []
    fast.roi_heads.reid_head.register_forward_hook(lambda *seen: dtypes.append(seen[2].dtype))
    pixels = (255 * image).round().byte()
    (found,), (embedding,) = fast.detect_and_embed([pixels], [BOX], torch.bfloat16)
    assert dtypes == [torch.bfloat16]
    assert {found.boxes.dtype, found.scores.dtype, found.embeddings.dtype} == {torch.float32}
    torch.testing.assert_close(found.scores, expected.scores, atol=0.01, rtol=0)
    assert float(embedding[0] @ own[0]) > 0.99


# --- memory ------------------------------------------------------------------------------------


def count_faults(device_type: str, path: Path) -> None:
    """Write to `path` the number of page faults for 320 MB that were freed before."""
    choose_device("cpu")
    if device_type:
        keep_freed_memory(device_type)

    def faults() -> int:
        [torch.zeros(2**23) for _ in range(10)]  # at the same time
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    faults()
    path.write_text(str(-faults() + faults()))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_programs_keep_freed_memory_and_libraries_do_not(tmp_path):
    """Page faults are counted after choosing a device, and after `keep_freed_memory` for a GPU and
    for a CPU, in a new process each."""
    faults = []
    for kind in ("", "cuda", "cpu"):
        process = FORKS.Process(target=count_faults, args=(kind, tmp_path / f"{kind}.txt"))
        process.start()
        process.join(60)
        faults.append(int((tmp_path / f"{kind}.txt").read_text()))
    print("page faults:", faults)
    assert faults[2] < 0.5 * min(faults[:2])  # a few of the ten blocks may find no room
