"""The losses and gradients of a batch do not depend on its division into parts and ranks."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from configs.defaults import get_cfg, load_cfg
from engine.training.batching import Batching, Part
from engine.training.train_step import TrainStep
from models.build import build_net, term_options
from models.distill import known_terms, make_term
from models.distiller import Distiller
from tests.tiny import TINY, pairs
from tests.training import FORKS, fix_regions, rank_environments

SETTINGS = TINY | {
    "INPUT.BATCH_SIZE_TRAIN": 4,
    "INPUT.MIN_SIZE": 48,
    "INPUT.MAX_SIZE": 96,
    "MODEL.ANCHOR_SIZES": [8, 16, 24, 32, 48],
    "MODEL.RPN.POST_NMS_TOP_N": [20, 20],
    "MODEL.ROI.BATCH_SIZE": 8,
    "SOLVER.CLIP_GRADIENTS": 0.0,
}
VARIANTS = {
    "contrastive": ("cd", {"form": "contrastive"}),
    "standardized_kd": ("kd", {"logits": "standardized"}),
    "standardized_ld": ("ld", {"logits": "standardized"}),
}
CASES = {name: (name, {}) for name in known_terms()} | VARIANTS
CASES["rpn"] = ("rpn", {"temperature": 0.02})  # the loss of equal logits is only rounding
SIZES = [(48, 80), (48, 64), (60, 48), (40, 80)]  # padded to different sizes in different parts
IDENTITIES = 3


def make_step(parts: int) -> TrainStep:
    """Return a step with all terms."""
    torch.manual_seed(3)
    cfg = load_cfg(None, pairs(SETTINGS | {"SOLVER.ACCUMULATE": parts}))
    teacher_cfg = load_cfg(None, pairs(SETTINGS | {"MODEL.FPN_CHANNELS": 20}))
    student, teacher = build_net(cfg, IDENTITIES), build_net(teacher_cfg, IDENTITIES)
    terms = {}
    for case, (name, changed) in CASES.items():
        options = term_options(get_cfg(), name) | changed
        options |= {"lengths": (16, 16)} if name == "cd" else {}
        terms[case] = make_term(name, 16, 20, options)
    for net in (student, teacher):
        net.oim.lut.copy_(torch.nn.functional.normalize(torch.randn(IDENTITIES, 16)))
        net.oim.momentum = 1.0  # the table does not change from case to case
        net.oim.cq = net.oim.cq[:0]
    model = Distiller(student, teacher, terms).train()
    return TrainStep(cfg, model, student, torch.device("cpu"))


def make_batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return four images. Nearly all anchors of the last one are on an ignore region."""
    torch.manual_seed(4)
    boxes = torch.tensor([[4.0, 4, 20, 38], [22, 6, 34, 36], [30, 2, 46, 38]])
    images = [torch.rand(3, *size) for size in SIZES]
    labels = torch.tensor([[1, 2, 9], [9, 3, 1], [2, 9, 9], [1, 9, 3]])
    targets = [{"boxes": boxes, "labels": some} for some in labels]
    crowd = torch.tensor([[-99.0, -99, 199, 199], *boxes[1:].tolist()])
    targets[3] |= {"boxes": crowd, "scores": torch.tensor([0.0, 1, 1])}
    return images, targets


def measure(weights: dict[str, float], batching: Batching) -> tuple[dict, Tensor]:
    """Return the losses of the batch and the gradient of all weights, as one rank of `batching`
    gets them."""
    step, (images, targets) = make_step(batching.accumulate), make_batch()
    step.weights = weights
    numbers = batching.own(list(range(len(images))))
    share = [images[i] for i in numbers], [targets[i] for i in numbers]
    losses = step.step(batching.parts(*share, len(images)), 0.0, "a test")
    return losses, torch.cat([p.grad.flatten() for p in step.parameters])


def stopped(weights: dict[str, float]) -> dict[str, float]:
    """Return these weights with the weights of the terms set to 0."""
    return weights | dict.fromkeys(CASES, 0.0)


def of_rank(environment: dict[str, str], weights: dict[str, float], folder: Path) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    fix_regions()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = [measure(some, Batching(4, 1, rank, 2)) for some in (weights, stopped(weights))]
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def weights():
    """Return weights with which all losses have gradients of equal length.

    An error in any of them then changes their sum.
    """
    with pytest.MonkeyPatch.context() as patch:
        fix_regions(patch.setattr)
        step = make_step(1)
        step.weights |= dict.fromkeys(CASES, 1.0)
        norms = step.gradient_norms(*make_batch())
        norms = {n: norm / step.weights[n] for n, norm in norms.items() if n != "total"}
        yield {name: 1 / norm for name, norm in norms.items()}


@pytest.fixture(scope="module")
def whole(weights):
    found = measure(weights, Batching(4))
    assert found[0].keys() > CASES.keys()
    return found


def is_the_whole_batchs(found: tuple[dict, Tensor], whole: tuple[dict, Tensor]) -> None:
    # abs: the rounding of tiny losses, of nearly equal logits
    assert found[0] == pytest.approx(whole[0], rel=1e-5, abs=2e-7)
    assert (found[1] - whole[1]).norm() <= 1e-5 * whole[1].norm()


@pytest.mark.parametrize("parts", [2, 4])
def test_parts(weights, whole, parts):
    is_the_whole_batchs(measure(weights, Batching(4, parts)), whole)


def test_ranks(weights, whole, tmp_path):
    ranks = [
        FORKS.Process(target=of_rank, args=(e, weights, tmp_path)) for e in rank_environments(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
    assert [process.exitcode for process in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for one, other in zip(first, second):
        assert one[0] == other[0] and torch.equal(one[1], other[1])
    is_the_whole_batchs(first[0], whole)
    is_the_whole_batchs(first[1], measure(stopped(weights), Batching(4)))


def test_a_part_that_fills_a_place_adds_nothing(weights, whole):
    step, (images, targets) = make_step(2), make_batch()
    step.weights = weights
    parts = [Part(images, targets), Part(images[:1], targets[:1], live=False)]
    losses = step.step(parts, 0.0, "a test")
    is_the_whole_batchs((losses, torch.cat([p.grad.flatten() for p in step.parameters])), whole)
