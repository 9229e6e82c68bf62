"""Triangle meshes: simple solids, normals and transformations. Lengths are in metres; z points
up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datasets.rendered.materials import Material

Point = Sequence[float] | np.ndarray  # x y z


@dataclass(frozen=True)
class Mesh:
    """A surface of one material."""

    vertices: np.ndarray  # [V, 3] float32
    triangles: np.ndarray  # [T, 3] int32
    normals: np.ndarray  # [V, 3] float32, unit length
    rest: np.ndarray  # [V, 3] float32: what the material reads; does not move with the mesh
    material: Material


def mesh_of(
    vertices: np.ndarray, faces: np.ndarray, material: Material, rest: np.ndarray | None = None
) -> Mesh:
    """Return a smooth surface. faces: [F, 3] triangles or [F, 4] quadrilaterals; rest: by default
    the vertices."""
    triangles = split_quads(faces)
    rest = vertices if rest is None else rest
    return Mesh(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        smooth_normals(vertices, triangles),
        rest.astype(np.float32),
        material,
    )


def flat(vertices: np.ndarray, faces: np.ndarray, material: Material) -> Mesh:
    """Return a surface with sharp edges between all its faces."""
    corners = faces.shape[1]
    apart = np.arange(faces.size).reshape(-1, corners)
    return mesh_of(vertices[faces.ravel()], apart, material)


def split_quads(faces: np.ndarray) -> np.ndarray:
    if faces.shape[1] == 3:
        return faces
    return np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]])


def smooth_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return unit normals [V, 3] float32: the mean over the adjacent triangles, weighted by
    area."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    across = cross(b - a, c - a)
    total = np.empty((len(vertices), 3))
    where = triangles.T.ravel()
    for axis in range(3):
        total[:, axis] = np.bincount(where, np.tile(across[:, axis], 3), len(vertices))
    return unit(total).astype(np.float32)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return inner products [n] of vectors [n, 3], much faster than a sum over the last axis."""
    return np.einsum("ij,ij->i", a, b)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return cross products [n, 3] of vectors [n, 3], faster than np.cross."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Normalise vectors [n, 3] to length 1."""
    return vectors / np.sqrt(np.maximum(dot(vectors, vectors), 1e-18))[:, None]


def turn(angle: float) -> np.ndarray:
    """Return the rotation [3, 3] by `angle` radians about z, anticlockwise when seen from above."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def moved(mesh: Mesh, place: Point, angle: float = 0.0) -> Mesh:
    """Rotate the mesh about the z axis, then move it to `place` (x, y, z)."""
    matrix = turn(angle).T.astype(np.float32)
    return replace(
        mesh,
        vertices=mesh.vertices @ matrix + np.asarray(place, np.float32),
        normals=mesh.normals @ matrix,
    )


_CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)], float)
_SIDES = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)


def box(size: Point, material: Material, place: Point = (0, 0, 0)) -> Mesh:
    """Return a box of `size` (x, y, z). `place` is the middle of its bottom."""
    return flat(_CUBE * np.asarray(size, float) + np.asarray(place, float), _SIDES, material)


def prism(
    profile: np.ndarray, width: float, material: Material, taper: np.ndarray | float = 1.0
) -> Mesh:
    """Extrude a convex or star-shaped outline [n, 2] (x, z) along y to `width`. taper: the share of
    the width at each point of the outline, [n]."""
    n = len(profile)
    half = np.broadcast_to(np.asarray(taper) * width / 2, n)
    sides = [np.column_stack([profile[:, 0], y * half, profile[:, 1]]) for y in (-1, 1)]
    vertices = np.concatenate(sides)
    k = np.arange(n)
    walls = np.stack([k, (k + 1) % n, (k + 1) % n + n, k + n], 1)
    lids = [
        mesh_of(
            np.concatenate([side, side.mean(0, keepdims=True)]),
            np.stack([k, (k + 1) % n, np.full(n, n)], 1)[:, ::way],
            material,
        )
        for side, way in zip(sides, (1, -1))
    ]
    return joined([flat(vertices, walls, material), *lids])


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Join meshes of one material to one mesh."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.triangles + start for mesh, start in zip(meshes, starts)]).astype(
            np.int32
        ),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.rest for mesh in meshes]),
        meshes[0].material,
    )


def tube(path: np.ndarray, radii: Sequence[float] | float, material: Material, sides: int = 8):
    """Return a round tube along the points `path` [n, 3]. radii: one for all points, or one for
    each."""
    path = np.asarray(path, float)
    radius = np.broadcast_to(np.asarray(radii, float), len(path))
    ahead = unit(np.gradient(path, axis=0))
    helper = np.where(np.abs(ahead[:, 2:]) > 0.9, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]])
    u = unit(np.cross(ahead, helper))
    v = np.cross(ahead, u)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    ring = np.cos(angle) * u[:, None] + np.sin(angle) * v[:, None]
    vertices = (path[:, None] + ring * radius[:, None, None]).reshape(-1, 3)
    return mesh_of(vertices, _grid(len(path), sides), material)


def _grid(rows: int, columns: int) -> np.ndarray:
    """Return the quadrilaterals between neighbouring rows of points, each of which is a closed
    ring."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    after = (c + 1) % columns
    faces = [r * columns + c, r * columns + after, (r + 1) * columns + after, (r + 1) * columns + c]
    return np.stack(faces, -1).reshape(-1, 4)


def ring(radius: float, thick: float, material: Material) -> Mesh:
    """Return a torus in the plane y = 0, centred at the origin."""
    angle = np.linspace(0, 2 * np.pi, 29)
    path = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], 1) * radius
    return tube(path, thick, material, 7)


def disc(radius: float, material: Material, width: float = 0.02, sides: int = 28) -> Mesh:
    """Return a round plate in the plane y = 0, centred at the origin."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    return prism(np.stack([np.cos(angle), np.sin(angle)], 1) * radius, width, material)


def ball(radii: Sequence[float] | float, material: Material, around: int = 16) -> Mesh:
    """Return an ellipsoid centred at the origin."""
    up = np.linspace(-np.pi / 2, np.pi / 2, around // 2 + 1)
    way = np.linspace(0, 2 * np.pi, around, endpoint=False)
    circle = np.stack([np.cos(way), np.sin(way), np.zeros_like(way)], 1)
    points = np.cos(up)[:, None, None] * circle + np.sin(up)[:, None, None] * np.array([0, 0, 1.0])
    vertices = points.reshape(-1, 3) * np.broadcast_to(np.asarray(radii, float), 3)
    return mesh_of(vertices, _grid(len(up), around), material)


def lathe(profile: np.ndarray, material: Material, sides: int = 14) -> Mesh:
    """Return the solid that an outline [n, 2] (radius, z) describes when rotated about the z
    axis."""
    way = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    circle = np.stack([np.cos(way), np.sin(way)], 1)
    rows = [np.column_stack([circle * r, np.full(sides, z)]) for r, z in np.asarray(profile)]
    return mesh_of(np.concatenate(rows), _grid(len(rows), sides), material)
