"""Things that are no people: trees, poles, signs, furniture, goods. They stand in the origin."""

import numpy as np

from datasets.rendered.looks import cloth, cloth_color
from datasets.rendered.materials import Leaves, Patchwork, Plain, hsv
from datasets.rendered.meshes import (
    Mesh,
    ball,
    box,
    disc,
    flat,
    joined,
    lathe,
    mesh_of,
    moved,
    tube,
)
from datasets.rendered.vehicles import STEEL, paint, wood

STONE = Plain((0.3, 0.29, 0.27), 0.4, 3.0)


def metal(rng: np.random.Generator) -> Plain:
    return Plain(hsv(rng.random(), rng.uniform(0, 0.4), rng.uniform(0.1, 0.6)), 0.25, 3.0, 0.04)


def leaves(rng: np.random.Generator) -> Leaves:
    hue = rng.uniform(0.2, 0.34) if rng.random() < 0.85 else rng.uniform(0.06, 0.14)
    return Leaves(hsv(hue, rng.uniform(0.35, 0.75), rng.uniform(0.3, 0.6)), rng.uniform(0, 40))


def foliage(middle, radii, count: int, size: float, material: Leaves, rng) -> Mesh:
    """`count` leaves, as quadrilaterals that lie every way, within an ellipsoid."""
    way = rng.normal(size=(count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    at = np.asarray(middle) + way * np.asarray(radii) * rng.random((count, 1)) ** 0.4
    u = rng.normal(size=(count, 3))
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(u, rng.normal(size=(count, 3)))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    size = size * rng.uniform(0.6, 1.4, (count, 1, 1))
    corners = np.stack([-u - v, u - v, u + v, v - u], 1) * size + at[:, None]
    vertices = corners.reshape(-1, 3)
    mesh = mesh_of(vertices, np.arange(len(vertices)).reshape(-1, 4), material)
    outward = np.repeat(way, 4, 0) + 0.4 * mesh.normals
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    return Mesh(mesh.vertices, mesh.triangles, outward.astype("f4"), mesh.rest, material)


def tree(rng: np.random.Generator) -> list[Mesh]:
    tall, trunk = rng.uniform(4.5, 9.0), rng.uniform(1.8, 2.8)
    bark = Plain(hsv(0.08, rng.uniform(0.1, 0.45), rng.uniform(0.15, 0.4)), 0.6, 6.0)
    lean = rng.uniform(-0.25, 0.25, 2)
    path = [(0, 0, 0), (*lean * 0.4, trunk), (*lean, tall * 0.75)]
    thick = rng.uniform(0.1, 0.22)
    parts = [tube(np.array(path), [thick * 1.3, thick, thick * 0.3], bark)]
    green = leaves(rng)
    for _ in range(rng.integers(4, 8)):
        spread = rng.uniform(0.7, 1.3)
        at = (*rng.uniform(-spread, spread, 2), rng.uniform(trunk + 0.5, tall - 0.8))
        radius = rng.uniform(0.7, 1.5)
        parts.append(foliage(at, (radius, radius, radius * 0.8), 420, 0.09, green, rng))
    return parts


def bush(rng: np.random.Generator) -> list[Mesh]:
    wide, high = rng.uniform(0.5, 2.0), rng.uniform(0.5, 1.3)
    radii = (wide / 2, 0.4, high / 2)
    return [foliage((0, 0, high / 2), radii, 700, 0.05, leaves(rng), rng)]


def planter(rng: np.random.Generator) -> list[Mesh]:
    """A pot with a plant, a vase."""
    wide, high = rng.uniform(0.12, 0.35), rng.uniform(0.3, 0.8)
    pot = Plain(cloth_color(rng), 0.3, 4.0, 0.04)
    belly = rng.uniform(0.6, 1.3)
    profile = [
        (wide * 0.6, 0),
        (wide * belly, high * 0.5),
        (wide * 0.7, high * 0.9),
        (wide, high),
        (0.01, high),
    ]
    parts = [lathe(np.array(profile), pot)]
    if rng.random() < 0.75:
        tall = rng.uniform(0.4, 1.2)
        parts.append(
            foliage((0, 0, high + tall / 2), (0.35, 0.35, tall / 2), 260, 0.05, leaves(rng), rng)
        )
    return parts


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
    """A pole with a road sign, a board or an advertisement."""
    tall = rng.uniform(1.9, 3.0)
    parts = [tube(np.array([(0, 0, 0), (0, 0, tall)]), 0.035, STEEL, 6)]
    if rng.random() < 0.5:
        plate = disc(
            rng.uniform(0.25, 0.4),
            Patchwork(_bright(rng), (0.7, 0.7, 0.7), 0.2, rng.uniform(0, 50)),
        )
        parts.append(moved(plate, (0, -0.05, tall - 0.3)))
    else:
        size = (rng.uniform(0.4, 1.0), 0.03, rng.uniform(0.3, 0.9))
        parts.append(moved(poster(size, rng), (0, -0.05, tall - size[2])))
    return parts


def _bright(rng: np.random.Generator):
    return hsv(
        rng.choice([0.0, 0.6, 0.33, 0.14, rng.random()]),
        rng.uniform(0.5, 0.95),
        rng.uniform(0.4, 0.9),
    )


def poster(size, rng: np.random.Generator, glow: float = 0.0) -> Mesh:
    """A printed board of size (x, y, z)."""
    material = Patchwork(
        _bright(rng), cloth_color(rng), rng.uniform(0.05, 0.25), rng.uniform(0, 50), glow
    )
    return box(size, material)


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


def bin_(rng: np.random.Generator) -> list[Mesh]:
    wide, high = rng.uniform(0.22, 0.35), rng.uniform(0.7, 1.15)
    profile = [
        (wide * 0.85, 0),
        (wide, high * 0.9),
        (wide * 1.05, high * 0.92),
        (wide * 0.8, high),
        (0.01, high),
    ]
    return [lathe(np.array(profile), metal(rng))]


def column(rng: np.random.Generator, high: float = 4.0) -> list[Mesh]:
    wide = rng.uniform(0.2, 0.45)
    if rng.random() < 0.5:
        return [box((wide * 1.6, wide * 1.6, high), STONE)]
    return [lathe(np.array([(wide * 1.2, 0), (wide, 0.15), (wide, high)]), STONE, 18)]


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
    """Goods in rows."""
    wide, high, deep = rng.uniform(1.2, 3.0), rng.uniform(1.3, 2.3), 0.45
    goods = Patchwork(
        cloth_color(rng), cloth_color(rng), rng.uniform(0.1, 0.3), rng.uniform(0, 50), 0.0, 0.42
    )
    parts = [box((wide, deep, high), goods)]
    parts += [
        box((wide + 0.04, deep + 0.06, 0.04), metal(rng), (0, 0, z))
        for z in np.arange(0.05, high, 0.42)
    ]
    return parts


def garments(rng: np.random.Generator) -> list[Mesh]:
    """Clothes on a rail: cloth that nobody wears."""
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


def parasol(rng: np.random.Generator) -> list[Mesh]:
    high, wide = rng.uniform(2.1, 2.6), rng.uniform(1.1, 1.6)
    roof = lathe(
        np.array([(wide, high), (wide * 0.5, high + 0.28), (0.01, high + 0.45)]),
        Plain(cloth_color(rng), 0.1),
        8,
    )
    return [tube(np.array([(0, 0, 0), (0, 0, high + 0.45)]), 0.025, STEEL, 6), roof]


def dog(rng: np.random.Generator) -> list[Mesh]:
    """An animal on four legs."""
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


def fence(rng: np.random.Generator, wide: float = 4.0) -> list[Mesh]:
    own, high = metal(rng), rng.uniform(0.8, 1.2)
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
    """A wall along x that looks along -y; rest coordinates are its own."""
    corners = np.array(
        [(-width / 2, 0, 0), (width / 2, 0, 0), (width / 2, 0, height), (-width / 2, 0, height)]
    )
    return flat(corners, np.array([[0, 1, 2, 3]]), material)
