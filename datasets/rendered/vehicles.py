"""Cars, bicycles, motorcycles, seats: things of metal and wood around people. They look along -y."""

import math

import numpy as np

from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Plain, hsv
from datasets.rendered.meshes import Mesh, ball, box, disc, joined, moved, prism, ring, tube

RUBBER = Plain((0.012, 0.012, 0.012), 0.3, 8.0)
STEEL = Plain((0.35, 0.35, 0.36), 0.2, 6.0, 0.15)
GLASS = Plain((0.015, 0.02, 0.022), 0.0, 1.0, 0.25)
WOODS = (0.07, 0.09, 0.055)


def paint(rng: np.random.Generator, gloss: float = 0.12) -> Plain:
    """Paint of vehicles: much white, grey and black."""
    if rng.random() < 0.6:
        return Plain(hsv(0.6, 0.05, rng.choice([0.08, 0.2, 0.45, 0.7, 0.9])), 0.05, 1.0, gloss)
    return Plain(
        hsv(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.25, 0.8)), 0.05, 1.0, gloss
    )


def wood(rng: np.random.Generator) -> Plain:
    return Plain(
        hsv(rng.choice(WOODS), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.75)), 0.4, 5.0, 0.02
    )


def _facing(mesh: Mesh) -> Mesh:
    """A mesh drawn along x, turned so that its front looks along -y."""
    return moved(mesh, (0, 0, 0), -math.pi / 2)


def _wheel(radius: float, width: float, x: float, y: float) -> list[Mesh]:
    tyre = ring(radius - width / 2, width / 2, RUBBER)
    hub = disc(radius * 0.62, STEEL, width * 0.8, 16)
    return [moved(part, (x, y, radius)) for part in (tyre, hub)]


def car(rng: np.random.Generator) -> list[Mesh]:
    """A car, a van or a bus shuttle; 3.6 to 5.5 m long."""
    van = rng.random() < 0.25
    length, width = rng.uniform(3.7, 4.8), rng.uniform(1.65, 1.85)
    belt, roof = rng.uniform(0.8, 0.98), rng.uniform(1.42, 1.6)
    if van:
        length, width, belt, roof = length + 0.5, width + 0.15, 1.1, rng.uniform(1.9, 2.4)
    half, nose = length / 2, rng.uniform(0.55, 0.75)
    hood, rear = (0.25 if van else rng.uniform(0.7, 1.1)), rng.uniform(0.0, 0.75) * (not van)
    body = np.array(
        [
            (half, 0.3),
            (half, nose),
            (half - hood, belt),
            (-half + rear * 0.6, belt),
            (-half, belt * 0.95),
            (-half, 0.3),
        ]
    )
    slope = 0.25 if van else rng.uniform(0.5, 0.8)
    cabin = np.array(
        [
            (half - hood, belt),
            (half - hood - slope, roof),
            (-half + rear + 0.35, roof),
            (-half + rear * 0.5 + 0.04, belt),
        ]
    )
    own = paint(rng)
    windows = cabin * (1.002, 1) + (0, 0)
    windows = windows + (windows.mean(0) - windows) * (0.12, 0.16)
    parts = [
        prism(body, width, own),
        prism(cabin, width * 0.9, own),
        prism(windows, width * 0.91, GLASS),
        moved(
            box((0.06, width * 0.72, (roof - belt) * 0.75), GLASS),
            (half - hood - slope * 0.42, 0, belt + 0.05),
        ),
        moved(
            box((0.04, width * 0.7, (roof - belt) * 0.6), GLASS),
            (-half + rear * 0.7 + 0.12, 0, belt + 0.1),
        ),
    ]
    lamp = Plain((0.8, 0.78, 0.7), 0.0, 1.0, 0.2)
    back = Plain((0.4, 0.01, 0.01), 0.0, 1.0, 0.1)
    for sign in (1, -1):
        parts.append(box((0.08, 0.3, 0.13), lamp, (half - 0.02, sign * width * 0.36, nose - 0.14)))
        parts.append(box((0.06, 0.26, 0.14), back, (-half + 0.01, sign * width * 0.38, nose)))
        for x in (half * 0.62, -half * 0.6):
            parts += _wheel(0.32, 0.2, x, sign * (width / 2 - 0.09))
    parts.append(box((0.03, 0.5, 0.11), Plain((0.7, 0.7, 0.65), 0.1), (half + 0.01, 0, 0.42)))
    return [_facing(part) for part in parts]


def bicycle(
    rng: np.random.Generator, saddle: float = 0.95, reach: float = 0.65, bar: float = 1.05
) -> list[Mesh]:
    """A bicycle with its saddle over the origin. saddle, bar: heights; reach: to the handlebar."""
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
    """A motorcycle or a scooter."""
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
    """A chair, a stool or a bench under somebody in the origin."""
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
