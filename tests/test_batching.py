"""The division of a batch over ranks and parts."""

import pytest
import torch

from configs.defaults import load_cfg
from engine.distributed import own_device
from engine.training.batching import Batching
from engine.training.schedule import scaled_lr
from utils.errors import UserError


def divided(count: int, ranks: int, accumulate: int) -> list[list[tuple[list[str], bool]]]:
    """Return for each rank its parts of a batch of `count` images, which are numbered."""
    ranks_of_batch = [Batching(8, accumulate, rank, ranks) for rank in range(ranks)]
    read = [[str(i) for i in batching.own(list(range(count)))] for batching in ranks_of_batch]
    return [
        [(part.images, part.live) for part in batching.parts(images, images, count)]
        for batching, images in zip(ranks_of_batch, read)
    ]


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_live_parts_are_the_batch(count, ranks, accumulate):
    """Each image is in one live part, in order. All ranks have equally many parts, none of which is
    empty."""
    parts = divided(count, ranks, accumulate)
    live = [image for rank in parts for images, alive in rank if alive for image in images]
    assert live == [str(i) for i in range(count)]
    assert all(images for rank in parts for images, _ in rank)
    assert len({len(rank) for rank in parts}) == 1
    if ranks > 1:
        assert {len(rank) for rank in parts} == {accumulate}
    else:
        assert all(alive for _, alive in parts[0])


def test_shares_differ_by_one_image_at_most():
    sizes = [sum(len(i) for i, alive in rank if alive) for rank in divided(8, 3, 1)]
    assert sizes == [2, 3, 3]


def test_a_small_last_batch():
    assert divided(1, 2, 2) == [[(["0"], False)] * 2, [(["0"], False), (["0"], True)]]
    batching = Batching(3)
    assert batching.steps(7) == 3
    assert [batching.count(step, 7) for step in range(3)] == [3, 3, 1]


def test_a_part_without_an_image_is_refused():
    settings = ["INPUT.BATCH_SIZE_TRAIN", "3", "SOLVER.ACCUMULATE", "4"]
    with pytest.raises(UserError, match=r"INPUT\.BATCH_SIZE_TRAIN: .* SOLVER\.ACCUMULATE 4.* 3$"):
        Batching.of(load_cfg(None, settings))


@pytest.mark.parametrize(
    "size, accumulate, ranks, sync, images",
    [
        (5, 1, 1, False, 5),
        (5, 1, 4, False, 1),
        (5, 1, 4, True, 5),
        (8, 1, 4, False, 2),
        (8, 4, 1, False, 2),
        (8, 5, 1, False, 1),
        (8, 2, 4, True, 4),
        (1, 1, 1, False, 1),
    ],
)
def test_a_norm_of_single_images_is_warned_of(size, accumulate, ranks, sync, images):
    batching = Batching(size, accumulate, 0, ranks)
    assert batching.images_of_norm(sync) == images
    warning = batching.norm_warning(sync)
    assert bool(warning) == (images < 2)
    assert bool(batching.norm_note(sync)) == (images < size)
    assert ("SOLVER.SYNC_BN" in warning) == (images < 2 and ranks > 1 and not sync)
    assert ("smaller SOLVER.ACCUMULATE" in warning) == (images < 2 and accumulate > 1)


def test_the_learning_rate_is_scaled_by_the_batch(capsys):
    assert scaled_lr(0.003, 0, 20) == 0.003 and capsys.readouterr().out == ""
    assert scaled_lr(0.003, 5, 20) == pytest.approx(0.012)
    assert "learning rate 0.012: SOLVER.BASE_LR 0.003 x batch 20" in capsys.readouterr().out


def test_one_rank_uses_the_current_gpu():
    assert own_device(torch.device("cuda")) == torch.device("cuda")
