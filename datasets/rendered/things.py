"""Things in streets other than people: poles, signs, animals. They are placed at the origin."""

import numpy as np

from datasets.rendered.finishes import STEEL, STONE, metal, paint, signal_color
from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Plain, hsv
from datasets.rendered.materials_places import Patchwork, Print
from datasets.rendered.meshes import Mesh, ball, box, disc, flat, joined, lathe, moved, tube


def lamp_post(rng: np.random.Generator) -> list[Mesh]:
    own, tall = metal(rng), rng.uniform(3.4, 7.0)
    parts = [tube(np.array([(0, 0, 0), (0, 0, tall)]), [0.09, 0.05], own)]
    head = Plain((0.8, 0.78, 0.7), 0.0)
    if tall > 5:
        parts.append(
            tube(np.array([(0, 0, tall), (0.5, 0, tall + 0.25), (1.1, 0, tall + 0.25)]), 0.04, own)
        )
        parts.append(box((0.6, 0.2, 0.1), head, (1.1, 0, tall + 0.18)))
    else:
        parts.append(moved(ball(0.2, head, 10), (0, 0, tall + 0.15)))
    return parts


def sign(rng: np.random.Generator) -> list[Mesh]:
    """Return a pole with a road sign, a board or an advertisement."""
    tall = rng.uniform(1.9, 3.0)
    parts = [tube(np.array([(0, 0, 0), (0, 0, tall)]), 0.035, STEEL, 6)]
    if rng.random() < 0.5:
        plate = disc(
            rng.uniform(0.25, 0.4),
            Patchwork(signal_color(rng), (0.7, 0.7, 0.7), 0.2, rng.uniform(0, 50), vivid=0.3),
        )
        parts.append(moved(plate, (0, -0.05, tall - 0.3)))
    else:
        size = (rng.uniform(0.4, 1.0), 0.03, rng.uniform(0.3, 0.9))
        parts.append(moved(poster(size, rng), (0, -0.05, tall - size[2])))
    return parts


def poster(size, rng: np.random.Generator, glow: float = 0.0) -> Mesh:
    """Return a printed board of size (x, y, z)."""
    first = signal_color(rng) if rng.random() < 0.4 else cloth_color(rng)
    light = sum(first) / 3 < 0.25
    text = hsv(rng.random(), 0.1, rng.uniform(0.8, 0.95) if light else rng.uniform(0.05, 0.2))
    share = rng.uniform(0.2, 0.9) * rng.choice([-1, 1])
    offset = float(rng.uniform(0, 50))
    second = cloth_color(rng)
    return box(size, Print(first, second, text, float(size[2]), float(share), offset, glow))


def bollard(rng: np.random.Generator) -> list[Mesh]:
    high = rng.uniform(0.6, 1.1)
    profile = [(0.1, 0), (0.08, high * 0.8), (0.1, high * 0.82), (0.09, high), (0.005, high + 0.04)]
    return [lathe(np.array(profile), metal(rng) if rng.random() < 0.7 else STONE)]


def hydrant(rng: np.random.Generator) -> list[Mesh]:
    own = paint(rng)
    profile = [
        (0.16, 0),
        (0.16, 0.06),
        (0.11, 0.08),
        (0.11, 0.55),
        (0.15, 0.58),
        (0.12, 0.72),
        (0.01, 0.8),
    ]
    return [lathe(np.array(profile), own), box((0.4, 0.1, 0.1), own, (0, 0, 0.42))]


def litter_bin(rng: np.random.Generator) -> list[Mesh]:
    wide, high = rng.uniform(0.22, 0.35), rng.uniform(0.7, 1.15)
    profile = [
        (wide * 0.85, 0),
        (wide, high * 0.9),
        (wide * 1.05, high * 0.92),
        (wide * 0.8, high),
        (0.01, high),
    ]
    return [lathe(np.array(profile), metal(rng))]


def column(rng: np.random.Generator, high: float) -> list[Mesh]:
    wide = rng.uniform(0.2, 0.45)
    if rng.random() < 0.5:
        return [box((wide * 1.6, wide * 1.6, high), STONE)]
    return [lathe(np.array([(wide * 1.2, 0), (wide, 0.15), (wide, high)]), STONE, 18)]


def parasol(rng: np.random.Generator) -> list[Mesh]:
    high, wide = rng.uniform(2.1, 2.6), rng.uniform(1.1, 1.6)
    roof = lathe(
        np.array([(wide, high), (wide * 0.5, high + 0.28), (0.01, high + 0.45)]),
        Plain(cloth_color(rng), 0.1),
        8,
    )
    return [tube(np.array([(0, 0, 0), (0, 0, high + 0.45)]), 0.025, STEEL, 6), roof]


def dog(rng: np.random.Generator) -> list[Mesh]:
    """Return an animal on four legs."""
    coat = Plain(
        hsv(rng.uniform(0.04, 0.12), rng.uniform(0.1, 0.6), rng.uniform(0.08, 0.9)), 0.5, 8.0
    )
    s = rng.uniform(0.6, 1.15)
    parts = [moved(ball((0.14 * s, 0.36 * s, 0.15 * s), coat), (0, 0, 0.5 * s))]
    parts.append(moved(ball((0.09 * s, 0.15 * s, 0.09 * s), coat, 12), (0, -0.45 * s, 0.72 * s)))
    parts.append(tube(np.array([(0, -0.25, 0.55), (0, -0.42, 0.7)]) * s, 0.08 * s, coat))
    parts.append(
        tube(np.array([(0, 0.33, 0.55), (0, 0.5, 0.72), (0, 0.56, 0.85)]) * s, 0.025 * s, coat, 6)
    )
    for x in (-0.08, 0.08):
        for y in (-0.24, 0.25):
            parts.append(
                tube(np.array([(x, y, 0.5), (x, y + 0.02, 0)]) * s, [0.06 * s, 0.03 * s], coat, 6)
            )
    return parts


def traffic_light(rng: np.random.Generator) -> list[Mesh]:
    own = metal(rng)
    parts = [
        tube(np.array([(0, 0, 0), (0, 0, 2.9)]), 0.06, own),
        box((0.3, 0.25, 0.85), own, (0, -0.05, 2.2)),
    ]
    lit = int(rng.integers(3))
    for k, hue in enumerate((0.36, 0.13, 0.0)):
        lens = Plain(hsv(hue, 0.95, 0.9 if k == lit else 0.15), 0.0, 1.0, 0.05, 2.0 * (k == lit))
        parts.append(moved(disc(0.1, lens, 0.03, 14), (0, -0.19, 2.36 + 0.26 * k)))
    return parts


def fence(rng: np.random.Generator) -> list[Mesh]:
    own, high, wide = metal(rng), rng.uniform(0.8, 1.2), 4.0
    bars = [
        tube(np.array([(x, 0, 0), (x, 0, high)]), 0.014, own, 5)
        for x in np.arange(-wide / 2, wide / 2, 0.16)
    ]
    rails = [
        tube(np.array([(-wide / 2, 0, z), (wide / 2, 0, z)]), 0.022, own, 6) for z in (0.15, high)
    ]
    return [joined(bars + rails)]


def fountain(rng: np.random.Generator) -> list[Mesh]:
    wide = rng.uniform(1.0, 2.2)
    base = lathe(
        np.array([(wide, 0), (wide, 0.5), (wide * 0.85, 0.5), (wide * 0.85, 0.3), (0.01, 0.3)]),
        STONE,
        20,
    )
    return [
        base,
        lathe(
            np.array([(0.35, 0.3), (0.2, 1.2), (0.6, 1.5), (0.1, 1.6), (0.05, 2.2), (0.01, 2.3)]),
            STONE,
        ),
    ]


def stairs(rng: np.random.Generator) -> list[Mesh]:
    wide = rng.uniform(2, 5)
    return [
        box((wide, 0.32, 0.16 * (k + 1)), STONE, (0, 0.32 * k, 0))
        for k in range(rng.integers(3, 9))
    ]


def facing_wall(width: float, height: float, material) -> Mesh:
    """Return a wall along x that faces -y. Its rest coordinates are its own coordinates."""
    corners = np.array(
        [(-width / 2, 0, 0), (width / 2, 0, 0), (width / 2, 0, height), (-width / 2, 0, height)]
    )
    return flat(corners, np.array([[0, 1, 2, 3]]), material)
