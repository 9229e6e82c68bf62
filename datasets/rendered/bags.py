"""Objects that people carry: bags with straps, phones."""

import math

import numpy as np

from datasets.rendered.body import place_of
from datasets.rendered.looks import Look
from datasets.rendered.materials import Plain
from datasets.rendered.meshes import Mesh, ball, box, lathe, mesh_of, moved, tube
from datasets.rendered.poses import UMBRELLA, Pose

PHONE = Plain((0.01, 0.01, 0.012), 0.0, 1.0, 0.1)
HANDLES = np.array([[0, -0.1, -0.15], [0, -0.04, 0], [0, 0.04, 0], [0, 0.1, -0.15]])  # of a bag


def carried(vertices: np.ndarray, look: Look, pose: Pose) -> list[Mesh]:
    """Return the objects that a person carries, on the posed vertices [V, 3]."""
    meshes = []
    for side in pose.hands:
        hand = place_of(vertices, 4.55 if side == "L" else -4.55, 2.1, 2.2)
        if pose.kind in ("phone", "call"):
            meshes.append(box((0.075, 0.012, 0.15), PHONE, hand - (0, 0.02, 0.05)))
        elif pose.kind != UMBRELLA and look.bag in ("", "hand"):
            meshes += _handbag(hand, look)
    if look.bag == "rucksack":
        meshes += _rucksack(vertices, look)
    elif look.bag == "shoulder":
        meshes += _shoulder_bag(vertices, look)
    elif look.bag == "trolley" and pose.kind in ("walk", "stand", "phone", "call"):
        meshes += _trolley(vertices, look)
    return meshes


def umbrella(vertices: np.ndarray, look: Look, side: str) -> list[Mesh]:
    """Return an open umbrella above the left or right hand; side: "L" or "R"."""
    hand = place_of(vertices, 4.55 if side == "L" else -4.55, 2.1, 2.2)
    top = np.array([hand[0] * 0.6, hand[1] + 0.1, max(hand[2] + 0.75, 2.0)])
    roof = lathe(
        np.array([(0.52, -0.2), (0.4, -0.07), (0.2, 0.0), (0.01, 0.03)]), look.bag_material
    )
    return [tube(np.array([hand, top]), 0.01, PHONE, 6), moved(roof, top)]


def _trolley(vertices: np.ndarray, look: Look) -> list[Mesh]:
    """Return a suitcase on wheels beside or behind a person."""
    hand = place_of(vertices, -4.55, 2.1, 2.2)
    size = np.array([0.36, 0.22, 0.55]) * look.bag_size
    foot = np.array([hand[0] - 0.1, hand[1] + 0.25, 0.05])
    case = _soft_bag(foot + np.array([0, 0, size[2] / 2]), size, look)
    grip = foot + np.array([0, -0.05, size[2]])
    return [case, tube(np.array([grip, hand]), 0.012, PHONE, 6)]


def _handbag(hand: np.ndarray, look: Look) -> list[Mesh]:
    size = np.array([0.13, 0.34, 0.3]) * look.bag_size
    bag = _soft_bag(hand - (0, 0, 0.12 + size[2] / 2), size, look)
    return [bag, tube(hand + HANDLES, 0.008, look.bag_material, 6)]


def _rucksack(vertices: np.ndarray, look: Look) -> list[Mesh]:
    back, front = place_of(vertices, 0, 3.9, -0.5), place_of(vertices, 0, 3.9, 1.3)
    out = (back - front) / np.linalg.norm(back - front)
    angle = math.atan2(out[0], -out[1]) if abs(out[2]) < 0.9 else 0.0
    size = np.array([0.3, 0.19, 0.44]) * look.bag_size
    meshes = [_soft_bag(back + out * (0.07 + look.top.loose), size, look, angle)]
    for x in (0.9, -0.9):
        along = ((4.9, -0.5), (5.5, 0.2), (4.6, 1.2), (3.2, 1.3))  # over the shoulder
        strap = np.array([place_of(vertices, x, y, z) for y, z in along])
        outward = strap - strap.mean(0)
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        meshes.append(tube(strap + 0.035 * outward, 0.018, look.bag_material, 6))
    return meshes


def _shoulder_bag(vertices: np.ndarray, look: Look) -> list[Mesh]:
    hip = place_of(vertices, 1.75, 0.9, 0.3)
    out = hip - place_of(vertices, 0, 0.9, 0.3)
    out = out / np.linalg.norm(out)
    size = np.array([0.11, 0.33, 0.25]) * look.bag_size
    across = ((0.9, 2.6, 1.5), (0, 4.2, 1.5), (-0.9, 5.6, 0.4))  # the chest
    chest = [place_of(vertices, *at) + np.array([0, -0.035, 0.02]) for at in across]
    strap = tube(np.array([hip + 0.06 * out, *chest]), 0.016, look.bag_material, 6)
    return [_soft_bag(hip + 0.08 * out, size, look), strap]


def _soft_bag(middle: np.ndarray, size: np.ndarray, look: Look, angle: float = 0.0) -> Mesh:
    """Return a bag in the shape of a pillow: a ball deformed towards a box."""
    shape = ball(1.0, look.bag_material, 18)
    pressed = np.sign(shape.vertices) * np.abs(shape.vertices) ** 0.45
    scaled = pressed * (size / 2).astype(np.float32)
    return moved(mesh_of(scaled, shape.triangles, look.bag_material), middle, angle)
