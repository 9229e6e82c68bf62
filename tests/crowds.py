"""A tiny network with detections in every image, and pictures and videos for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from configs.defaults import load_cfg
from models.build import build_net
from tests.tiny import TINY, pairs

SMALL = TINY | {
    "BACKBONE.NAME": "resnet18_x05",  # some programs run in processes of their own
    "INPUT.MAX_SIZE": 96,
    "INPUT.BATCH_SIZE_TEST": 2,
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 5,
}


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def save_net(path: Path, person: float, seed: int = 0) -> None:
    """Write a checkpoint with detections in every image (person > 0) or in none."""
    torch.manual_seed(seed)
    cfg = load_cfg(None, pairs(SMALL))
    net = build_net(cfg, num_pids=3)
    net.roi_heads.box_predictor.cls_score.bias.data = torch.tensor([-person, person])
    torch.save({"model": net.state_dict(), "config": cfg.dump()}, path)


def make_world(folder: Path) -> Path:
    """Write cfg.yaml, everyone.pth, nobody.pth, other.pth, gallery/ (three pictures), query.jpg."""
    (folder / "gallery").mkdir()
    for i, size in enumerate([(96, 64), (60, 90), (96, 64)]):
        noise(size, i).save(folder / "gallery" / f"s{i}.{'png' if i else 'jpg'}")
    noise((96, 64), 0).save(folder / "query.jpg")
    (folder / "cfg.yaml").write_text(load_cfg(None, pairs(SMALL)).dump())
    save_net(folder / "everyone.pth", 5.0)
    save_net(folder / "nobody.pth", -5.0)
    save_net(folder / "other.pth", 5.0, seed=1)
    return folder


def moving(count: int, step: int = 4) -> list[np.ndarray]:
    """Return the frames of a video in which one picture moves to the right."""
    pixels = np.asarray(noise((96, 64), 7))
    return [np.roll(pixels, step * i, 1) for i in range(count)]
