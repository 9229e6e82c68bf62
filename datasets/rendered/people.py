"""Clothed people in a pose, with what they hold, sit or ride on, as meshes."""

import functools
import math
from dataclasses import dataclass

import numpy as np

from datasets.rendered.body import SKIN_VERTICES, load_body
from datasets.rendered.clothes import cut, drape
from datasets.rendered.looks import Look, look_of
from datasets.rendered.materials import Plain
from datasets.rendered.meshes import Mesh, ball, box, mesh_of, moved, tube
from datasets.rendered.poses import CYCLING, SEATED, Pose, draw_pose
from datasets.rendered.vehicles import bicycle, seat

PHONE = Plain((0.01, 0.01, 0.012), 0.0, 1.0, 0.1)
PEDAL = 0.17  # metres: how high the lower foot of a cyclist stands


@dataclass(frozen=True)
class Person:
    """Meshes in a person's own frame: they stand on z = 0 in the origin and look along -y."""

    own: list[Mesh]  # body, clothes, bag: what a box has to enclose
    other: list[Mesh]  # seat or bicycle


def make_person(identity: int, kind: str, seed: int, rng: np.random.Generator) -> Person:
    """An identity in a pose of a kind (poses.KINDS, SEATED or CYCLING)."""
    body = load_body()
    look, pieces = _outfit(identity, seed)
    pose = draw_pose(kind, rng)
    vertices = body.posed(dict(look.phenotype), pose.rotations)
    skin = vertices[:SKIN_VERTICES]
    up = PEDAL if kind == CYCLING else 0.0
    middle = _pelvis(vertices) * (1.0, 1.0, 0.0) + (0.0, 0.0, skin[:, 2].min() - up)
    vertices = vertices - middle
    own = [*drape(body, pieces, vertices), *_knot(vertices, look), *_carried(vertices, look, pose)]
    other = _support(vertices, kind, rng)
    return Person(own, other)


@functools.lru_cache(maxsize=64)
def _outfit(identity: int, seed: int):
    look = look_of(identity, seed)
    return look, cut(load_body(), look)


def _where(vertices: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """The place of a point of the template's skin (decimetres), in metres."""
    return vertices[_near(x, y, z)].mean(0)


@functools.cache
def _near(x: float, y: float, z: float) -> np.ndarray:
    template = load_body().template[:SKIN_VERTICES]
    return np.argsort(((template - (x, y, z)) ** 2).sum(1))[:12]


def _pelvis(vertices: np.ndarray) -> np.ndarray:
    return (_where(vertices, 1.1, 0.5, 0.9) + _where(vertices, -1.1, 0.5, 0.9)) / 2


def _knot(vertices: np.ndarray, look: Look) -> list[Mesh]:
    """Hair tied behind the head."""
    if not look.head.knot or look.head.hat:
        return []
    back = _where(vertices, 0, 7.7, -0.4)
    out = back - _where(vertices, 0, 7.7, 1.4)
    out = out / np.linalg.norm(out)
    if look.head.knot == "bun":
        return [moved(ball(0.055, look.head.hair, 12), back + 0.04 * out)]
    fall = back + np.outer([0, 0.05, 0.08, 0.085, 0.07], out)
    fall[:, 2] -= [0, 0.01, 0.08, 0.18, 0.28]
    return [tube(fall, [0.02, 0.035, 0.04, 0.034, 0.012], look.head.hair)]


def _carried(vertices: np.ndarray, look: Look, pose: Pose) -> list[Mesh]:
    meshes = []
    for side in pose.hands:
        sign = 1 if side == "L" else -1
        hand = _where(vertices, sign * 4.55, 2.1, 2.2)
        if pose.kind in ("phone", "call"):
            meshes.append(box((0.075, 0.012, 0.15), PHONE, hand - (0, 0.02, 0.05)))
        elif look.bag in ("", "hand"):
            size = np.array([0.13, 0.34, 0.3]) * look.bag_size
            meshes += _soft_bag(hand - (0, 0, 0.12 + size[2] / 2), size, look)
            meshes.append(tube(_loop(hand, 0.12), 0.008, look.bag_material, 6))
    if look.bag == "rucksack":
        back, front = _where(vertices, 0, 3.9, -0.5), _where(vertices, 0, 3.9, 1.3)
        out = (back - front) / np.linalg.norm(back - front)
        angle = math.atan2(out[0], -out[1]) if abs(out[2]) < 0.9 else 0.0
        size = np.array([0.3, 0.19, 0.44]) * look.bag_size
        meshes += _soft_bag(back + out * (0.07 + look.top.loose), size, look, angle)
        for sign in (1, -1):
            strap = [
                _where(vertices, sign * 0.9, y, z)
                for y, z in ((4.9, -0.5), (5.5, 0.2), (4.6, 1.2), (3.2, 1.3))
            ]
            middle = np.mean(strap, 0)
            path = [
                point + 0.035 * (point - middle) / np.linalg.norm(point - middle) for point in strap
            ]
            meshes.append(tube(np.array(path), 0.018, look.bag_material, 6))
    elif look.bag == "shoulder":
        hip = _where(vertices, 1.75, 0.9, 0.3)
        out = hip - _where(vertices, 0, 0.9, 0.3)
        out = out / np.linalg.norm(out)
        meshes += _soft_bag(hip + 0.08 * out, np.array([0.11, 0.33, 0.25]) * look.bag_size, look)
        strap = [hip + 0.06 * out] + [
            _where(vertices, x, y, z) + (0, -0.035, 0.02)
            for x, y, z in ((0.9, 2.6, 1.5), (0, 4.2, 1.5), (-0.9, 5.6, 0.4))
        ]
        meshes.append(tube(np.array(strap), 0.016, look.bag_material, 6))
    return meshes


def _loop(top: np.ndarray, depth: float) -> np.ndarray:
    return top + np.array(
        [[0, -0.1, -depth - 0.03], [0, -0.04, 0], [0, 0.04, 0], [0, 0.1, -depth - 0.03]]
    )


def _soft_bag(middle: np.ndarray, size: np.ndarray, look: Look, angle: float = 0.0) -> list[Mesh]:
    """A bag like a pillow: a ball pressed towards a box."""
    shape = ball(1.0, look.bag_material, 18)
    pressed = np.sign(shape.vertices) * np.abs(shape.vertices) ** 0.45
    scaled = pressed * (size / 2).astype(np.float32)
    return [moved(mesh_of(scaled, shape.triangles, look.bag_material), middle, angle)]


def _support(vertices: np.ndarray, kind: str, rng: np.random.Generator) -> list[Mesh]:
    """What carries somebody: a chair, a bench, a stool, or a bicycle."""
    if kind == SEATED:
        under = min(_where(vertices, s * 0.9, 0.0, -0.9)[2] for s in (1, -1))
        return seat(max(under - 0.03, 0.2), rng)
    if kind == CYCLING:
        hips = _where(vertices, 0, -0.3, 0)
        hands = (_where(vertices, 4.5, 2.1, 2.2) + _where(vertices, -4.5, 2.1, 2.2)) / 2
        return bicycle(
            rng, saddle=hips[2] - 0.03, reach=float(hips[1] - hands[1]), bar=hands[2] - 0.03
        )
    return []
