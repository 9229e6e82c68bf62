"""Scores of annotations: soft targets of the classification, and ignore regions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from configs.defaults import load_cfg
from datasets import UNLABELED, load_dataset
from datasets.augment import crop
from datasets.base import digest
from datasets.loaders import SceneDataset
from models.build import build_net
from models.roi_heads import detection_losses
from models.search_net import SearchNet
from models.soft_labels import on_ignored, split_ignored, without_ignored
from tests.annotations import write_own
from tests.tiny import TINY, pairs
from tools import check_dataset
from utils.errors import UserError

SMALL = TINY | {"MODEL.ANCHOR_SIZES": [8, 16, 24, 32, 48], "MODEL.ROI.BATCH_SIZE": 64}
IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
BOXES = torch.tensor([[10.0, 10, 40, 60], [60, 5, 80, 50]])
LABELS = torch.tensor([1, 2])


@pytest.fixture(scope="module")
def small() -> SearchNet:
    torch.manual_seed(3)
    return build_net(load_cfg(None, pairs(SMALL)), num_pids=3).train()


def trained(net: SearchNet, scores: list[float] | None, boxes: Tensor = BOXES):
    """The outputs of a training pass with the same random samples in every call."""
    torch.manual_seed(5)
    target = {"boxes": boxes, "labels": LABELS[: len(boxes)]}
    return net.forward_train(
        [IMAGE], [target if scores is None else target | {"scores": torch.tensor(scores)}]
    )


def test_soft_targets_of_regions_by_hand():
    logits, deltas = torch.tensor([[0.3, 1.0], [0.5, -2.0]]), torch.zeros(2, 8)
    labels, none = torch.tensor([7, 0]), torch.zeros(2, 4)
    soft = detection_losses(logits, deltas, labels, none, torch.tensor([0.7, 0.0]))
    log_p = logits.log_softmax(1)
    expected = -(0.7 * log_p[0, 1] + 0.3 * log_p[0, 0] + log_p[1, 0]) / 2
    torch.testing.assert_close(soft["proposal_cls"], expected)


def test_soft_targets_of_anchors_by_hand(small):
    """A person of score 0.7 is a target of 0.7; an anchor on an ignore region has no gradient."""
    anchors = torch.tensor([[0.0, 0, 10, 20], [50, 50, 60, 70], [30, 0, 40, 20], [30, 0, 50, 20]])
    target = {
        "boxes": anchors[[0, 2]],
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.7, 0.0]),
    }
    labels, _ = small.rpn.assign_targets_to_anchors([anchors], [split_ignored(target)])
    assert labels[0].tolist() == pytest.approx([0.7, 0, -1, -1])
    objectness = torch.tensor([0.4, -0.3, 2.0, 1.0], requires_grad=True)
    zeros = torch.zeros(4, 4)
    (loss, count), _ = small.rpn.compute_loss(objectness, zeros, labels, [zeros])
    assert count == 2
    pairs = objectness[:2], torch.tensor([0.7, 0.0])
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(*pairs))
    [gradient] = torch.autograd.grad(loss, objectness)
    assert gradient[:2].all() and not gradient[2:].any()


def test_scores_of_one_are_the_published_losses(small):
    plain, sure = trained(small, None), trained(small, [1.0, 1.0])
    for name, loss in plain.losses.items():
        torch.testing.assert_close(sure.losses[name], loss)
    assert torch.equal(plain.people.labels[0], sure.people.labels[0])
    doubtful = trained(small, [0.6, 1.0])
    changed = {name for name, loss in plain.losses.items() if loss != doubtful.losses[name]}
    assert changed == {"rpn_cls", "proposal_cls"}


def test_ignore_regions_take_no_part(small):
    """No region lies on one, nor does OIM learn its person."""
    plain, ignored = trained(small, None), trained(small, [0.0, 1.0])

    def backgrounds(outputs) -> Tensor:
        regions = outputs.people.boxes[0][outputs.people.labels[0] == 0]
        return on_ignored(regions, {"ignored": resized}, 0.5)

    resized = plain.targets[0]["boxes"][:1]
    assert backgrounds(plain).any() and not backgrounds(ignored).any()
    assert set(plain.people.labels[0].tolist()) == {0, 1, 2}
    assert set(ignored.people.labels[0].tolist()) == {0, 2}
    assert ignored.targets[0]["boxes"].tolist() == plain.targets[0]["boxes"][1:].tolist()


def test_an_image_that_is_ignored_as_a_whole_trains_nothing(small):
    """The region covers the anchors beyond the edges too."""
    outputs = trained(small, [0.0], torch.tensor([[-99.0, -99, 199, 199]]))
    assert all(loss == 0 for loss in outputs.losses.values())
    assert len(outputs.class_logits) == 0
    small.zero_grad()
    sum(outputs.losses.values()).backward()
    assert not any(p.grad.any() for p in small.parameters() if p.grad is not None)


def test_proposals_on_people_stay():
    """A person in a crowd is one; what lies beside the people of the crowd is ignored."""
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 20]]),
        "ignored": torch.tensor([[0.0, 0, 50, 50]]),
    }
    proposals = torch.tensor(
        [[0.0, 0, 10, 18], [20, 20, 30, 40], [45, 20, 56, 40], [44, 20, 56, 40], [9, 9, 9, 9]]
    )
    [kept] = without_ignored([proposals], [target], 0.5)
    assert kept.tolist() == proposals[[0, 2, 4]].tolist()
    assert without_ignored([proposals], [{"boxes": target["boxes"]}], 0.5)[0] is proposals


BOX = (5, 6, 20, 30)


@pytest.fixture
def own(tmp_path: Path):
    """A function that writes custom data after a change of the annotations of train.json, whose
    scores are 0.4, 0.8 and absent and whose last box is a crowd, and returns its folder."""
    train = {"a.jpg": [("p", *BOX), ("q", 1, 1, 9, 9)], "b.jpg": [("r", *BOX), (4, 1, 1, 40, 40)]}
    write_own(tmp_path, train, {"c.jpg": [("p", *BOX)], "d.jpg": [("p", *BOX)]})

    def write(change=lambda rows: None) -> Path:
        content = json.loads((tmp_path / "train.json").read_text())
        rows = content["annotations"]
        rows[0]["score"], rows[1]["score"], rows[3]["iscrowd"] = 0.4, 0.8, 1
        change(rows)
        (tmp_path / "train.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_scores_of_custom_data(own):
    data = load_dataset("COCO", str(own()))
    assert [s.scores.tolist() for s in data.train] == [pytest.approx([0.4, 0.8]), [1, 0]]
    assert data.train[1].pids[1] == UNLABELED and data.num_pids == 3
    assert data.gallery[0].scores is None
    target = SceneDataset(data.train, min_score=0.5)[0][1]
    assert target["scores"].tolist() == pytest.approx([0, 0.8])
    assert SceneDataset(data.train, min_score=0.4)[0][1]["scores"][0] == pytest.approx(0.4)
    assert SceneDataset(data.train)[1][1]["scores"].tolist() == [1, 0]
    assert "scores" not in SceneDataset(data.gallery)[0][1]


def test_other_scores_are_other_data(own):
    before = digest(load_dataset("COCO", str(own())).train)
    after = digest(load_dataset("COCO", str(own(lambda rows: rows[2].update(score=0.9)))).train)
    assert before != after


def test_crops_keep_ignore_regions():
    """However little of one is visible."""
    target = {"boxes": torch.tensor([[0.0, 0, 200, 200]] * 2), "scores": torch.tensor([0.0, 1])}
    found = [
        crop(torch.zeros(3, 200, 200), target, np.random.default_rng(seed))[1]["scores"].tolist()
        for seed in range(5)
    ]
    assert [0] in found and [0, 1] in found and [1] not in found


@pytest.mark.parametrize("score", [0, 1.5, -0.1, "0.5", True, float("nan")])
def test_a_bad_score_is_one_line(own, score):
    with pytest.raises(UserError, match=r"train.json: annotations\[2\]: score: expected .*found "):
        load_dataset("COCO", str(own(lambda rows: rows[2].update(score=score))))


def test_check_dataset_counts_scores(own, program):
    options = ["INPUT.DATASET", "COCO", "INPUT.DATA_ROOT", own(), "EVAL_GALLERY_SIZE", "-1"]
    code, out, err = program(check_dataset.main, *options, "INPUT.NUM_WORKERS", "0")
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert code == 0, err
    assert {"boxes with a score under 1 3 0", "boxes ignored in training 2 0"} <= lines
