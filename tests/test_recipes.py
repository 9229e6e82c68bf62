"""The table of recipes in docs/training.md agrees with the configs and the measured step."""

from pathlib import Path

import pytest

from configs.defaults import load_cfg
from engine.training.batching import Batching

ROOT = Path(__file__).parent.parent
IMAGES, SECONDS, GIB = 11206, 0.19, 7.1  # of CUHK-SYSU; of a step of 5 images on an H200
MEMORY_PER_IMAGE = 1.27  # GiB


def recipes() -> list[list[str]]:
    text = (ROOT / "docs/training.md").read_text().split("| GPUs |")[1]
    lines = [line for line in text.splitlines()[2:] if line.startswith("|")][:4]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("number", range(4))
def test_recipe(number: int):
    gpus, batch, rate, sync, hours, gib, published = recipes()[number]
    cfg = load_cfg(ROOT / "configs/cuhk_sysu/resnet18_ddps.yaml")
    size = cfg.INPUT.BATCH_SIZE_TRAIN
    assert float(rate) == pytest.approx(cfg.SOLVER.BASE_LR * int(batch) / size)
    batching = Batching(int(batch), 1, 0, int(gpus))
    assert not batching.norm_warning(sync == "True")
    most = -(-int(batch) // int(gpus))
    seconds = batching.steps(IMAGES) * cfg.SOLVER.MAX_EPOCHS * SECONDS * most / size
    assert float(hours) == pytest.approx(seconds / 3600, abs=0.051)
    assert float(gib) == pytest.approx(GIB - MEMORY_PER_IMAGE * (size - most), abs=0.051)
    assert bool(published) == (int(batch) == size)
