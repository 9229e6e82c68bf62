"""Cars, bicycles, motorcycles and seats. They face -y."""

import math

import numpy as np

from datasets.rendered.finishes import GLASS, RUBBER, STEEL, paint, wood
from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Plain
from datasets.rendered.meshes import (
    Mesh,
    ball,
    box,
    disc,
    flat,
    joined,
    moved,
    prism,
    ring,
    tube,
)


def _facing(mesh: Mesh) -> Mesh:
    """Rotate a mesh that was drawn along x so that its front faces -y."""
    return moved(mesh, (0, 0, 0), -math.pi / 2)


def _wheel(radius: float, width: float, x: float, y: float) -> list[Mesh]:
    tyre = ring(radius - width / 2, width / 2, RUBBER)
    hub = disc(radius * 0.62, STEEL, width * 0.8, 16)
    return [moved(part, (x, y, radius)) for part in (tyre, hub)]


def _rounded(outline: np.ndarray) -> np.ndarray:
    """Return an outline [n, 2] with its corners cut off. Source: Chaikin 1974."""
    for _ in range(2):
        after = np.roll(outline, -1, 0)
        outline = np.stack([0.8 * outline + 0.2 * after, 0.2 * outline + 0.8 * after], 1)
        outline = outline.reshape(-1, 2)
    return outline


def _pane(low: np.ndarray, high: np.ndarray, width: float, out: float) -> Mesh:
    """Return a window between two points (x, z) of a cabin's outline, `out` metres outside it."""
    low, high = low + (high - low) * 0.1, high + (low - high) * 0.12
    across = np.array([high[1] - low[1], low[0] - high[0]])
    across = across / np.hypot(*across) * out
    (x1, z1), (x2, z2) = low + across, high + across
    a, b = width * 0.43, width * 0.38
    corners = [(x1, -a, z1), (x1, a, z1), (x2, b, z2), (x2, -b, z2)]
    return flat(np.array(corners), np.array([[0, 1, 2, 3]]), GLASS)


def car(rng: np.random.Generator) -> list[Mesh]:
    """Return a car or a van, 3.7 to 5.3 m long."""
    van = rng.random() < 0.25
    length, width = rng.uniform(3.7, 4.8), rng.uniform(1.65, 1.85)
    belt, roof = rng.uniform(0.82, 0.98), rng.uniform(1.42, 1.6)
    if van:
        length, width, belt, roof = length + 0.5, width + 0.15, 1.1, rng.uniform(1.9, 2.4)
    half, nose = length / 2, rng.uniform(0.6, 0.78)
    hood, rear = (0.3 if van else rng.uniform(0.7, 1.1)), rng.uniform(0.0, 0.75) * (not van)
    slope = 0.3 if van else rng.uniform(0.55, 0.85)
    back = [(-half + rear * 0.6, belt), (-half, belt * 0.95), (-half, 0.25)]
    body = np.array([(half, 0.25), (half, nose), (half - hood, belt), *back])
    cabin = np.array(
        [
            (half - hood, belt - 0.03),
            (half - hood - slope, roof),
            (-half + rear + 0.3, roof),
            (-half + rear * 0.5 + 0.06, belt - 0.03),
        ]
    )
    own = paint(rng)
    taper = np.interp(_rounded(cabin)[:, 1], [belt, roof], [1.0, 0.84])
    parts = [
        prism(_rounded(body), width, own),
        prism(_rounded(cabin), width * 0.97, own, taper),
        _pane(cabin[0], cabin[1], width, 0.02),
        _pane(cabin[2], cabin[3], width, 0.02),
    ]
    middle = cabin[:, 0].mean() + rng.uniform(-0.2, 0.2)
    for ahead in (True, False):
        window = cabin + (cabin.mean(0) - cabin) * (0.1, 0.2)
        window = window.clip(
            *([(middle + 0.05, 0), (9, 9)] if ahead else [(-9, 0), (middle - 0.05, 9)])
        )
        taper = np.interp(window[:, 1], [belt, roof], [1.0, 0.84])
        parts.append(prism(window, width * 0.985, GLASS, taper))
    return [_facing(part) for part in [*parts, *_car_details(half, width, nose)]]


def _car_details(half: float, width: float, nose: float) -> list[Mesh]:
    """Return lamps, plates, grille, bumpers and wheels of a car that faces along x."""
    white, red = Plain((0.8, 0.78, 0.7), 0.0, 1.0, 0.2), Plain((0.4, 0.01, 0.01), 0.0, 1.0, 0.1)
    plate = Plain((0.7, 0.7, 0.62), 0.1)
    parts = [box((2 * half - 0.06, width * 0.985, 0.16), RUBBER, (0, 0, 0.2))]
    parts.append(box((0.03, width * 0.45, 0.16), RUBBER, (half, 0, nose - 0.2)))
    parts += [box((0.03, 0.5, 0.11), plate, (x, 0, 0.42)) for x in (half + 0.01, -half - 0.01)]
    for sign in (1, -1):
        parts.append(box((0.1, 0.32, 0.12), white, (half - 0.04, sign * width * 0.36, nose - 0.16)))
        parts.append(box((0.06, 0.22, 0.2), red, (-half + 0.01, sign * width * 0.4, nose)))
        parts.append(box((0.12, 0.12, 0.1), RUBBER, (half * 0.42, sign * width * 0.53, 0.95)))
        for x in (half * 0.62, -half * 0.6):
            arch = disc(0.39, RUBBER, 0.1)
            parts.append(moved(arch, (x, sign * (width / 2 - 0.04), 0.34)))
            parts += _wheel(0.32, 0.2, x, sign * (width / 2 - 0.07))
    return parts


def bicycle(
    rng: np.random.Generator, saddle: float = 0.95, reach: float = 0.65, bar: float = 1.05
) -> list[Mesh]:
    """Return a bicycle with its saddle above the origin.

    Args:
        saddle, bar: heights of saddle and handlebar.
        reach: distance to the handlebar.
    """
    own, radius = paint(rng, 0.08), 0.34
    back, front = np.array([-0.42, 0, radius]), np.array([reach + 0.02, 0, radius])
    crank, seat_top = np.array([0.02, 0, 0.29]), np.array([-0.1, 0, saddle])
    head = np.array([reach - 0.18, 0, min(bar - 0.12, saddle)])
    lines = [(back, crank), (crank, seat_top), (back, seat_top * (1, 1, 0.85)), (crank, head)]
    lines += [
        (seat_top * (1, 1, 0.85), head),
        (head, front),
        (head, np.array([reach - 0.14, 0, bar])),
    ]
    parts = [joined([tube(np.array(line), 0.016, own, 6) for line in lines])]
    for wheel in (back, front):
        parts.append(moved(ring(radius - 0.02, 0.02, RUBBER), wheel))
        parts.append(_spokes(wheel, radius))
    handle = [(reach - 0.05, y, bar) for y in (-0.27, 0.27)]
    parts.append(tube(np.array([handle[0], (reach - 0.14, 0, bar), handle[1]]), 0.014, RUBBER, 6))
    parts.append(moved(ball((0.14, 0.08, 0.035), RUBBER, 10), seat_top))
    if rng.random() < 0.35:
        basket = paint(rng, 0.0)
        parts.append(box((0.26, 0.32, 0.22), basket, (reach + 0.12, 0, bar - 0.3)))
    return [_facing(part) for part in parts]


def _spokes(middle: np.ndarray, radius: float) -> Mesh:
    lines = []
    for angle in np.linspace(0, np.pi, 7, endpoint=False):
        way = np.array([math.cos(angle), 0, math.sin(angle)]) * (radius - 0.03)
        lines.append(tube(np.array([middle - way, middle + way]), 0.003, STEEL, 3))
    return joined(lines)


def motorcycle(rng: np.random.Generator) -> list[Mesh]:
    """Return a motorcycle or a scooter."""
    own = paint(rng)
    parts = []
    for x in (-0.62, 0.68):
        parts += [
            moved(ring(0.26, 0.06, RUBBER), (x, 0, 0.31)),
            moved(disc(0.2, STEEL, 0.05), (x, 0, 0.31)),
        ]
    tank = moved(ball((0.3, 0.14, 0.14), own, 14), (0.12, 0, 0.82))
    engine = moved(box((0.5, 0.26, 0.3), Plain((0.04, 0.04, 0.045), 0.5, 8.0, 0.1)), (0, 0, 0.35))
    saddle = moved(ball((0.36, 0.13, 0.07), RUBBER, 12), (-0.4, 0, 0.8))
    shield = moved(box((0.1, 0.36, 0.4), own if rng.random() < 0.5 else GLASS), (0.5, 0, 0.75))
    fork = tube(np.array([(0.68, 0, 0.31), (0.45, 0, 1.02)]), 0.035, STEEL)
    bars = tube(np.array([(0.38, -0.36, 1.04), (0.46, 0, 1.02), (0.38, 0.36, 1.04)]), 0.016, RUBBER)
    rear = moved(ball((0.25, 0.1, 0.09), own, 12), (-0.72, 0, 0.72))
    parts += [tank, engine, saddle, shield, fork, bars, rear]
    return [_facing(part) for part in parts]


def seat(height: float, rng: np.random.Generator) -> list[Mesh]:
    """Return a chair, a stool or a bench under a person at the origin."""
    kind = rng.random()
    own = wood(rng) if rng.random() < 0.5 else Plain(cloth_color(rng), 0.2, 4.0)
    wide = rng.uniform(1.3, 1.9) if kind < 0.4 else rng.uniform(0.42, 0.55)
    parts = [box((wide, 0.44, 0.05), own, (0, 0.08, height - 0.05))]
    for x in (-wide / 2 + 0.05, wide / 2 - 0.05):
        for y in (-0.1, 0.27):
            parts.append(box((0.04, 0.04, height - 0.05), STEEL if kind > 0.5 else own, (x, y, 0)))
    if kind < 0.85:
        parts.append(box((wide, 0.05, 0.42), own, (0, 0.3, height + 0.05)))
    return parts


def bus(rng: np.random.Generator) -> list[Mesh]:
    """Return a bus or a lorry, 7 to 11 m long."""
    length, width, high = rng.uniform(7, 11), 2.4, rng.uniform(2.7, 3.2)
    half, own = length / 2, paint(rng)
    outline = np.array([(half, 0.4), (half, high - 0.2), (half - 0.2, high), (-half, high)])
    parts = [prism(_rounded(np.array([*outline, (-half, 0.4)])), width, own)]
    if rng.random() < 0.7:
        for x in np.arange(-half + 0.8, half - 0.6, 1.4):
            parts.append(box((1.2, width + 0.02, 0.95), GLASS, (x, 0, 1.35)))
    else:
        sides = Plain(cloth_color(rng), 0.2, 1.0)
        parts.append(box((length - 2.2, width + 0.04, high - 0.9), sides, (-0.9, 0, 0.85)))
    parts.append(box((0.04, width * 0.85, 1.1), GLASS, (half, 0, 1.2)))
    for y in (-width / 2 + 0.15, width / 2 - 0.15):
        for x in (half * 0.65, -half * 0.55):
            parts += _wheel(0.48, 0.28, x, y)
    return [_facing(part) for part in parts]
