"""Augmentations and training data of several datasets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.augment import AUGMENTATIONS, LEAST_VISIBLE, augment, check_augmentations, crop
from datasets.loaders import SceneDataset, epoch_batches, epoch_length
from datasets.types import UNLABELED
from tests.annotations import write_image
from utils.errors import UserError


def example():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 96, 160), np.uint8))
    boxes = torch.tensor([[10.0, 20, 40, 90], [80, 5, 110, 70], [150, 30, 160, 60]])
    return image, {"boxes": boxes, "labels": torch.tensor([1, UNLABELED, 2])}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_changes_the_image_and_keeps_boxes_inside(name):
    image, target = example()
    before = image.clone(), target["boxes"].clone()
    changed = 0
    for seed in range(10):
        found, boxes = AUGMENTATIONS[name][1](image, target, np.random.default_rng(seed))
        again, _ = AUGMENTATIONS[name][1](image, target, np.random.default_rng(seed))
        assert torch.equal(found, again)
        assert found.dtype == torch.uint8 and found.shape[0] == 3
        changed += found.shape != image.shape or not torch.equal(found, image)
        height, width = found.shape[1:]
        assert (boxes["boxes"] >= 0).all()
        assert (boxes["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert len(boxes["boxes"]) == len(boxes["labels"])
    assert changed >= 5
    assert torch.equal(image, before[0]) and torch.equal(target["boxes"], before[1])


def test_a_crop_keeps_the_people_that_are_visible_enough():
    """The value of each pixel is its position, so the offset of a crop can be read from it."""
    columns = torch.arange(160, dtype=torch.uint8).expand(96, 160)
    rows = torch.arange(96, dtype=torch.uint8)[:, None].expand(96, 160)
    image, (_, target) = torch.stack([columns, rows, rows]), example()
    kept = 0
    for seed in range(30):
        window, found = crop(image, target, np.random.default_rng(seed))
        left, top = window[0, 0, 0].item(), window[1, 0, 0].item()
        height, width = window.shape[1:]
        expected = {}
        for box, label in zip(target["boxes"].tolist(), target["labels"].tolist()):
            x1, y1 = max(box[0], left), max(box[1], top)
            x2, y2 = min(box[2], left + width), min(box[3], top + height)
            visible = max(x2 - x1, 0) * max(y2 - y1, 0)
            if visible >= LEAST_VISIBLE * (box[2] - box[0]) * (box[3] - box[1]):
                expected[label] = [x1 - left, y1 - top, x2 - left, y2 - top]
        assert dict(zip(found["labels"].tolist(), found["boxes"].tolist())) == expected
        kept += len(expected)
    assert 30 < kept < 90


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    image, target = example()
    names = list(AUGMENTATIONS)
    results = [augment(image, target, names, np.random.default_rng([1, e, 0])) for e in (0, 0, 1)]
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][0].shape != results[2][0].shape or not torch.equal(
        results[0][0], results[2][0]
    )
    same, _ = augment(image, target, [], np.random.default_rng(0))
    assert torch.equal(same, image)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"INPUT\.AUGMENT.*found spin"):
        check_augmentations(["crop", "spin"])


def write_coco(root, people, images=2):
    """Write custom data; each image shows `people`, by name, and one unlabelled person."""
    root.mkdir()
    for split in ("train", "test"):
        entries, annotations = [], []
        for i in range(images):
            name = f"{root.name}_{split}_{i}.jpg"
            write_image(root / name, (64, 48))
            entries.append({"id": i, "file_name": name, "width": 64, "height": 48})
            for person in [*people, None]:
                box = [2 + 9 * len(annotations) % 30, 4, 8, 30]
                row = {"id": len(annotations), "image_id": i, "category_id": 1, "bbox": box}
                annotations.append(row | ({"person_id": person} if person else {}))
        content = {
            "images": entries,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        (root / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def roots(tmp_path):
    write_coco(tmp_path / "first", ["a", "b"])
    write_coco(tmp_path / "second", ["b", "c", "d"], images=4)
    return str(tmp_path / "first"), str(tmp_path / "second")


def test_identities_of_another_dataset_are_other_people(roots):
    alone = load_dataset("COCO", roots[0])
    both = load_dataset("COCO", roots[0], [["COCO", roots[1], 0.5]])
    assert both.num_pids == 5 and len(both.train) == 6
    assert [scene.pids.tolist() for scene in both.train[:2]] == [[1, 2, UNLABELED]] * 2
    assert [scene.pids.tolist() for scene in both.train[2:]] == [[3, 4, 5, UNLABELED]] * 4
    assert [scene.name for scene in both.gallery] == [scene.name for scene in alone.gallery]
    assert both.shares == [(2, 1.0), (4, 0.5)]
    assert epoch_length(both.shares) == 4
    assert epoch_length(SceneDataset(alone.train, train=True).shares) == 2


def test_training_on_other_datasets_only(roots):
    """The training data can be without images, if other data are added."""
    (Path(roots[0]) / "train.json").write_text('{"images": [], "annotations": []}')
    data = load_dataset("COCO", roots[0], [["COCO", roots[1], 1.0]])
    assert data.shares == [(4, 1.0)] and len(data.gallery) == 2
    batches = epoch_batches(data.shares, 3, seed=1, epoch=0)
    assert sorted(index for batch in batches for index in batch) == [0, 1, 2, 3]


def test_an_epoch_has_the_share_of_each_dataset():
    shares = [(10, 1.0), (8, 0.5), (3, 2.0), (5, 1.4)]
    seen = set()
    for epoch in range(20):
        batches = epoch_batches(shares, 4, seed=1, epoch=epoch)
        assert batches == epoch_batches(shares, 4, seed=1, epoch=epoch)
        indices = [index for batch in batches for index in batch]
        assert len(indices) == epoch_length(shares) == 10 + 4 + 6 + 7
        counts = np.bincount(indices, minlength=26)
        assert (counts[:10] == 1).all() and (counts[18:21] == 2).all()
        assert counts[10:18].sum() == 4 and counts[10:18].max() == 1
        assert counts[21:].sum() == 7 and set(counts[21:]) == {1, 2}
        seen |= set(np.flatnonzero(counts[10:18]))
    assert seen == set(range(8))  # each epoch has other scenes


@pytest.mark.parametrize(
    "value", ["[[COCO, x]]", "[COCO, x, 1]", "[[COCO, x, 0]]", "[[COCO, x, true]]", "[[1, x, 1]]"]
)
def test_extra_data_of_another_form_is_refused(roots, value):
    cfg = load_cfg(None, ["INPUT.EXTRA_TRAIN", value])
    with pytest.raises(UserError, match=r"INPUT\.EXTRA_TRAIN"):
        load_dataset("COCO", roots[0], cfg.INPUT.EXTRA_TRAIN)


def test_an_unknown_kind_of_extra_data_is_refused(roots):
    with pytest.raises(UserError, match=r"INPUT\.EXTRA_TRAIN: .*found 'VOC'"):
        load_dataset("COCO", roots[0], [["VOC", "x", 1.0]])
