"""Clothes and hair, cut out of the body's helper meshes and pushed outwards.

Heights are the template's, in decimetres: crown 8.5, chin 6.3, shoulders 5.3, hips 0.5, soles -8.2.
A garment's outline is a field over the template's vertices: positive inside, zero on its edge.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from datasets.rendered.body import SKIN_VERTICES, Body
from datasets.rendered.looks import Look
from datasets.rendered.materials import Material, Plain
from datasets.rendered.meshes import Mesh, mesh_of, split_quads

LENSES = Plain((0.015, 0.015, 0.02), 0.0, 1.0, 0.15)
HAIRLINE = (  # depth (z) of the head and the height where hair ends there
    (-0.4, 0.15, 0.3, 0.55, 0.8, 1.1, 1.5),
    (0.0, 0.0, 0.35, 0.75, 0.85, 1.2, 1.42),
)


@dataclass(frozen=True)
class Piece:
    """One surface of an outfit. It is defined on the body's mesh and therefore valid in every pose.

    Its points lie on edges of the mesh, `share` of the way from `start` to `end`.
    """

    start: np.ndarray  # [n] vertices of the body
    end: np.ndarray  # [n]
    share: np.ndarray  # [n, 1]
    triangles: np.ndarray  # [T, 3]
    source: str  # the group whose normals it is pushed along
    off: np.ndarray  # [n, 1] metres
    smooth: int  # times
    material: Material

    def between(self, values: np.ndarray) -> np.ndarray:
        """Interpolate values of the body's vertices [V, C] at the piece's points: [n, C]."""
        return values[self.start] * (1 - self.share) + values[self.end] * self.share


Clipped = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def clip(triangles: np.ndarray, field: np.ndarray) -> Clipped:
    """Return the part of a mesh where `field` [V] is positive. Triangles are cut along the line of
    zeros.

    Returns: start [n], end [n], share [n] of the points, and triangles [T, 3] among them.
    """
    inside = field[triangles] > 0
    count = inside.sum(1)
    whole = triangles[count == 3]
    one = _rolled(triangles[count == 1], inside[count == 1].argmax(1))
    two = _rolled(triangles[count == 2], (~inside[count == 2]).argmax(1))
    a, b, c = one.T
    out, p, q = two.T
    corners = np.concatenate(
        [
            np.stack([whole, whole], 2),
            np.stack([np.stack([a, a], 1), np.stack([a, b], 1), np.stack([a, c], 1)], 1),
            np.stack([np.stack([p, out], 1), np.stack([p, p], 1), np.stack([q, q], 1)], 1),
            np.stack([np.stack([p, out], 1), np.stack([q, q], 1), np.stack([q, out], 1)], 1),
        ]
    )
    pairs, inverse = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    start, end = pairs.T
    share = np.where(start == end, 0.0, field[start] / (field[start] - field[end] + (start == end)))
    return start, end, share, inverse.reshape(-1, 3)


def _rolled(triangles: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Rotate the corners of triangles [T, 3] so that corner `first` [T] comes first; the
    orientation stays the same."""
    return triangles[np.arange(len(triangles))[:, None], (first[:, None] + np.arange(3)) % 3]


def _piece(
    body: Body,
    group: str,
    field: np.ndarray,
    off: np.ndarray | float,
    smooth: int,
    material: Material,
) -> Piece:
    """Return the part of `group` where `field` [V] is positive. off: distance from the body in
    metres, [V] or one number."""
    start, end, share, triangles = clip(split_quads(body.quads[group]), field)
    share = share[:, None]
    metres = np.broadcast_to(np.asarray(off, float), len(field))[:, None]
    metres = metres[start] * (1 - share) + metres[end] * share
    return Piece(start, end, share, triangles, group, metres, smooth, material)


def cut(body: Body, look: Look) -> list[Piece]:
    """Return the pieces of an identity's outfit: skin, clothes, hair."""
    covered = np.zeros(len(body.template), bool)
    pieces = [*_lower(body, look, covered), *_upper(body, look, covered), *_hair(body, look)]
    return [piece for piece in [*_skin(body, look, covered), *pieces] if len(piece.triangles)]


def every(*fields: np.ndarray) -> np.ndarray:
    return np.minimum.reduce(fields)


def either(*fields: np.ndarray) -> np.ndarray:
    return np.maximum.reduce(fields)


def _lower(body: Body, look: Look, covered: np.ndarray) -> Iterator[Piece]:
    height, bottom = body.template[:, 1], look.bottom
    no_arm = -body.arm
    if bottom.kind != "skirt":
        field = every(no_arm, 1.4 - height, height - bottom.hem)
        covered |= field > 0
        off = bottom.flare * np.clip((-height - 1) / 6, 0, 1) + bottom.loose
        if look.top.hem < 0.5:  # what hangs over it presses it down
            off = np.where(height > look.top.hem + 0.1, 0.0, off)
        yield _piece(body, "tights", field, off, 3, bottom.material)
        return
    skirt = every(1.75 - height, height - bottom.hem)
    pressed = (height > look.top.hem + 0.1) & (look.top.hem < 0.5)
    off = np.where(pressed, -0.012, 0.006)
    yield _piece(body, "skirt", skirt, off, 2, bottom.material)
    covered |= every(no_arm, 1.2 - height, height - max(bottom.hem + 0.6, -1.5)) > 0
    if bottom.tights:
        field = every(no_arm, -height, height + 7.8)
        covered |= field > 0
        yield _piece(body, "tights", field, 0.001, 1, look.tights)


def _upper(body: Body, look: Look, covered: np.ndarray) -> Iterator[Piece]:
    top, height = look.top, body.template[:, 1]
    across, front = np.abs(body.template[:, 0]), body.template[:, 2]
    neck = top.neck - height
    if top.kind == "tank":  # with straps over the shoulders
        neck = either(neck - 0.25, every(6.2 - height, 0.2 - np.abs(across - 0.95)))
    trunk = every(-body.arm, height - top.hem, neck)
    field = either(trunk, every(body.arm, top.sleeve - across))
    covered |= field > 0
    off = top.loose + 0.012 * np.clip((2 - height) / 3, 0, 1) * (body.arm < 0)
    if top.hem > 0.5:  # tucked into what is worn below
        off = np.where((body.arm < 0) & (height < 2.0), 0.001, off)
    if top.open:
        gap = top.open * (1 + 0.15 * np.clip(5 - height, 0, 6)) - across
        under = every(trunk, gap + 0.35, front - 0.2)
        yield _piece(body, "tights", under, 0.004, 2, top.under)
        field = every(field, -every(gap, front - 0.3, -body.arm))
    yield _piece(body, "tights", field, off, top.smooth, top.material)
    if top.coat is not None:
        tail = every(1.8 - height, height - top.coat)
        yield _piece(body, "skirt", tail, 0.02, 3, top.material)
    if top.kind == "shirt":
        neck = every(height - 5.72, 6.12 - height, 1.0 - across, -body.arm)
        yield _piece(
            body, "skin", every(neck, either(across - 0.12, 0.3 - front)), 0.012, 2, top.material
        )
    if top.scarf:
        neck = every(height - 5.6, 6.4 - height, 1.1 - across, -body.arm)
        yield _piece(body, "skin", neck, 0.04, 6, top.under)
    if top.hood:
        fold = every(height - 5.5, 6.6 - height, -body.arm, 1.2 - across)
        fold = every(fold, either(0.3 - front, 5.95 - height))
        yield _piece(body, "skin", fold, 0.035, 8, top.material)


def _skin(body: Body, look: Look, covered: np.ndarray) -> Iterator[Piece]:
    height, front = body.template[:, 1], body.template[:, 2]
    hidden = np.zeros(len(height), bool)
    hidden[:SKIN_VERTICES] = covered[body.cloth_of] & body.close
    triangles = split_quads(body.quads["skin"])
    seen = triangles[~hidden[triangles].all(1) & ~(height[triangles] < -7.6).all(1)]
    points, inverse = np.unique(seen, return_inverse=True)
    nothing = np.zeros((len(points), 1))
    bare = inverse.reshape(seen.shape)
    yield Piece(points, points, nothing, bare, "skin", nothing, 0, look.skin)
    yield _piece(body, "tights", -7.45 - height, 0.012, 2, look.shoe)
    for eye in ("left eye", "right eye"):
        yield _piece(body, eye, np.ones(len(height)), 0.0, 0, look.eye)
    if look.head.glasses:
        across = np.abs(body.template[:, 0])
        lens = 1 - ((across - 0.32) / 0.27) ** 2 - ((height - 7.27) / 0.17) ** 2
        yield _piece(body, "skin", every(lens, front - 0.98), 0.012, 6, LENSES)


def _hair(body: Body, look: Look) -> Iterator[Piece]:
    head, height = look.head, body.template[:, 1]
    across, front = np.abs(body.template[:, 0]), body.template[:, 2]
    ends = head.nape + np.interp(front, *HAIRLINE)
    ear = every(across - 0.66, 7.5 - height)
    scalp = every(height - ends, -ear)
    if head.hat == "scarf":
        face = every(front - 0.75, 7.95 - height, height - 6.25)
        veil = every(height - 5.1, -body.arm, -face)
        yield _piece(body, "skin", veil, 0.03, 6, head.cloth)
        return
    if head.thick:
        lumps = 0.75 + 0.5 * np.random.default_rng(1).random(len(height))
        thick = head.thick * lumps * np.clip((height - ends) / 0.3, 0.25, 1)
        yield _piece(body, "skin", scalp, thick, 2, head.hair)
    if head.long is not None:
        bangs = every(front - 0.75, 7.95 - height)
        yield _piece(body, "hair", every(height - head.long, -bangs), 0.0, 0, head.hair)
    if head.hat:
        low = 7.7 if head.hat == "cap" else 7.45
        hat = every(height - low - 0.12 * np.clip(front, 0, 2), -ear)
        yield _piece(body, "skin", hat, 0.022 + 0.9 * head.thick, 6, head.cloth)
    if head.hat == "cap":
        visor = every(height - 7.78, 8.02 - height, front - 0.85)
        yield _piece(body, "skin", visor, 0.05, 1, head.cloth)


def drape(body: Body, pieces: list[Piece], vertices: np.ndarray) -> list[Mesh]:
    """Return the pieces as meshes on a posed body with vertices [V, 3] in metres."""
    normals = {group: body.normals(vertices, group) for group in {piece.source for piece in pieces}}
    meshes = []
    for piece in pieces:
        points = piece.between(vertices) + piece.between(normals[piece.source]) * piece.off
        if piece.smooth:
            points = _smoothed(points, piece.triangles, piece.smooth)
        rest = piece.between(body.template)
        meshes.append(mesh_of(points, piece.triangles, piece.material, rest))
    return meshes


def _smoothed(points: np.ndarray, triangles: np.ndarray, times: int) -> np.ndarray:
    """Move every point 0.6 of the way to the mean of its neighbours, `times` times."""
    starts, ends = triangles.ravel(), np.roll(triangles, -1, 1).ravel()
    rows, columns = np.concatenate([starts, ends]), np.concatenate([ends, starts])
    shape = (len(points), len(points))
    near = csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    near.data /= np.repeat(np.asarray(near.sum(1)).ravel(), np.diff(near.indptr))
    for _ in range(times):
        points = 0.4 * points + 0.6 * (near @ points)
    return points
