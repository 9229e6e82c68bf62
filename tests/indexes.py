"""People drawn at random, for indexes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.index.gallery_index import GalleryIndex
from engine.index.records import Origin, Sample, Source
from models.outputs import Detections

WIDTH = 16
ORIGIN = Origin("net.pth", "MIN_SIZE 64", np.eye(WIDTH, dtype=np.float32)[0])


def units(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, WIDTH, generator=generator))


def crowd(count: int, seed: int) -> Detections:
    generator = torch.Generator().manual_seed(seed)
    corners = 50 * torch.rand(count, 2, generator=generator)
    scores = 0.5 + torch.rand(count, generator=generator) / 2
    return Detections(torch.cat([corners, corners + 20], 1), scores, units(count, seed))


def fill(index: GalleryIndex, pictures: range, each: int = 10) -> None:
    for i in pictures:
        source = Source(Path(f"/pictures/{i}.jpg"), 1000, i)
        index.people.add(source, [Sample(None, crowd(each, i))])
