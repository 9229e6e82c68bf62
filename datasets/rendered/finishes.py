"""Materials of things: paint, wood, metal and others, some fixed and some drawn at random."""

import numpy as np

from datasets.rendered.materials import Color, Plain, hsv
from datasets.rendered.materials_places import Ground

RUBBER = Plain((0.012, 0.012, 0.012), 0.3, 8.0)
STEEL = Plain((0.35, 0.35, 0.36), 0.2, 6.0, 0.15)
GLASS = Plain((0.015, 0.02, 0.022), 0.0, 1.0, 0.25)
STONE = Plain((0.3, 0.29, 0.27), 0.4, 3.0)
WOODS = (0.07, 0.09, 0.055)  # hues


def paint(rng: np.random.Generator, gloss: float = 0.12) -> Plain:
    """Return the paint of a vehicle, often white, grey or black."""
    if rng.random() < 0.6:
        return Plain(hsv(0.6, 0.05, rng.choice([0.08, 0.2, 0.45, 0.7, 0.9])), 0.05, 1.0, gloss)
    color = hsv(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.8))
    return Plain(color, 0.05, 1.0, gloss)


def wood(rng: np.random.Generator) -> Plain:
    color = hsv(rng.choice(WOODS), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.75))
    return Plain(color, 0.4, 5.0, 0.02)


def metal(rng: np.random.Generator) -> Plain:
    color = hsv(rng.random(), rng.uniform(0, 0.4), rng.uniform(0.1, 0.6))
    return Plain(color, 0.25, 3.0, 0.04)


def signal_color(rng: np.random.Generator) -> Color:
    """Return a bright colour for signs and advertisements."""
    hue = rng.choice([0.0, 0.6, 0.33, 0.14, rng.random()])
    return hsv(hue, rng.uniform(0.5, 0.95), rng.uniform(0.4, 0.9))


def paving(rng: np.random.Generator, gloss: float = 0.0) -> Ground:
    """Return slabs or an even surface, for outdoors or indoors."""
    color = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.16), rng.uniform(0.35, 0.75))
    return Ground(
        color,
        tile=float(rng.uniform(0.2, 1.4)) if rng.random() < 0.7 else 0.0,
        joint=float(rng.uniform(0.45, 0.85)),
        spread=float(rng.uniform(0.05, 0.35)),
        grain=float(rng.uniform(0.15, 0.5)),
        offset=float(rng.uniform(0, 60)),
        gloss=gloss,
    )
