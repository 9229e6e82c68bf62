"""Trees, bushes and potted plants, placed at the origin."""

import numpy as np

from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Plain, hsv
from datasets.rendered.materials_places import Leaves
from datasets.rendered.meshes import Mesh, lathe, mesh_of, tube


def leaves(rng: np.random.Generator) -> Leaves:
    hue = rng.uniform(0.2, 0.34) if rng.random() < 0.85 else rng.uniform(0.06, 0.14)
    return Leaves(hsv(hue, rng.uniform(0.35, 0.75), rng.uniform(0.3, 0.6)), rng.uniform(0, 40))


def foliage(middle, radii, count: int, size: float, material: Leaves, rng) -> Mesh:
    """Return `count` leaves: quadrilaterals in random directions within an ellipsoid."""
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
    """Return a pot with a plant, or a vase."""
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
