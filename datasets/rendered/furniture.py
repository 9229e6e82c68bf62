"""Furniture and goods. They stand in the origin and look along -y."""

import numpy as np

from datasets.rendered.finishes import STEEL, metal, wood
from datasets.rendered.looks import cloth, cloth_color
from datasets.rendered.materials import Plain
from datasets.rendered.materials_places import Patchwork
from datasets.rendered.meshes import Mesh, box, moved, tube


def bench(rng: np.random.Generator) -> list[Mesh]:
    own, wide = wood(rng), rng.uniform(1.4, 2.2)
    parts = [box((wide, 0.09, 0.04), own, (0, y, 0.43)) for y in (-0.15, -0.03, 0.09)]
    parts += [box((wide, 0.03, 0.1), own, (0, 0.2, z)) for z in (0.56, 0.74)]
    parts += [box((0.06, 0.4, 0.43), STEEL, (x, 0, 0)) for x in (-wide / 2.4, wide / 2.4)]
    return parts


def chair(rng: np.random.Generator) -> list[Mesh]:
    own = wood(rng) if rng.random() < 0.5 else Plain(cloth_color(rng), 0.2, 4.0, 0.02)
    parts = [
        box((0.44, 0.44, 0.05), own, (0, 0, 0.43)),
        box((0.44, 0.04, 0.42), own, (0, 0.2, 0.5)),
    ]
    legs = [(x, y) for x in (-0.19, 0.19) for y in (-0.19, 0.19)]
    return parts + [box((0.035, 0.035, 0.43), STEEL, (x, y, 0)) for x, y in legs]


def table(rng: np.random.Generator) -> list[Mesh]:
    own, high = wood(rng), rng.uniform(0.68, 1.05)
    wide, deep = rng.uniform(0.6, 1.6), rng.uniform(0.6, 0.9)
    parts = [box((wide, deep, 0.04), own, (0, 0, high - 0.04))]
    parts += [
        box((0.05, 0.05, high - 0.04), own, (x * wide / 2.2, y * deep / 2.3, 0))
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    for _ in range(rng.integers(0, 5)):
        at = (rng.uniform(-wide, wide) / 2.6, rng.uniform(-deep, deep) / 2.8, high)
        parts.append(box(rng.uniform(0.06, 0.24, 3), Plain(cloth_color(rng), 0.2, 6.0), at))
    return parts


def sofa(rng: np.random.Generator) -> list[Mesh]:
    own, wide = cloth(rng, 0.7), rng.uniform(0.9, 2.2)
    parts = [box((wide, 0.85, 0.42), own), box((wide, 0.22, 0.85), own, (0, 0.33, 0))]
    return parts + [box((0.2, 0.85, 0.62), own, (x, 0, 0)) for x in (-wide / 2, wide / 2)]


def counter(rng: np.random.Generator) -> list[Mesh]:
    size = (rng.uniform(1.5, 3.5), rng.uniform(0.6, 0.9), rng.uniform(0.9, 1.15))
    parts = [
        box(size, metal(rng)),
        box((size[0] + 0.1, size[1] + 0.1, 0.04), wood(rng), (0, 0, size[2])),
    ]
    parts.append(
        moved(
            box((0.4, 0.05, 0.3), Plain((0.02, 0.02, 0.02), 0.0, 1.0, 0.1)), (0.3, 0, size[2] + 0.1)
        )
    )
    return parts


def shelf(rng: np.random.Generator) -> list[Mesh]:
    """Return a shelf with rows of goods."""
    wide, high, deep = rng.uniform(1.2, 3.0), rng.uniform(1.3, 2.3), 0.45
    goods = Patchwork(
        cloth_color(rng),
        cloth_color(rng),
        cell=float(rng.uniform(0.08, 0.25)),
        offset=float(rng.uniform(0, 50)),
        row=0.42,
        vivid=float(rng.uniform(0.3, 0.9)),
    )
    parts = [box((wide, deep, high), goods)]
    parts += [
        box((wide + 0.04, deep + 0.06, 0.04), metal(rng), (0, 0, z))
        for z in np.arange(0.05, high, 0.42)
    ]
    return parts


def garments(rng: np.random.Generator) -> list[Mesh]:
    """Return a rail with clothes."""
    wide, high = rng.uniform(0.8, 1.8), rng.uniform(1.35, 1.7)
    rail = [(-wide / 2, 0, 0), (-wide / 2, 0, high), (wide / 2, 0, high), (wide / 2, 0, 0)]
    parts: list[Mesh] = [tube(np.array(rail), 0.02, STEEL, 6)]
    x = -wide / 2 + 0.1
    while x < wide / 2 - 0.05:
        long = rng.uniform(0.6, 1.1)
        garment = box((0.06, 0.42, long), cloth(rng), (x, 0, high - long - 0.04))
        parts.append(garment)
        x += rng.uniform(0.07, 0.16)
    return parts
