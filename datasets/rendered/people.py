"""Clothed people in a pose, with the objects that they hold, sit or ride on, as meshes."""

import functools
from dataclasses import dataclass

import numpy as np

from datasets.rendered.bags import carried, umbrella
from datasets.rendered.body import SKIN_VERTICES, load_body, place_of
from datasets.rendered.clothes import cut, drape
from datasets.rendered.looks import Look, look_of
from datasets.rendered.meshes import Mesh, ball, moved, tube
from datasets.rendered.poses import CYCLING, SEATED, UMBRELLA, draw_pose
from datasets.rendered.vehicles import bicycle, seat

PEDAL = 0.17  # metres: height of a cyclist's lower foot


@dataclass(frozen=True)
class PersonMeshes:
    """The meshes of a person in their own frame: standing on z = 0 at the origin and facing -y."""

    own: list[Mesh]  # body, clothes, bag: what a box has to enclose
    other: list[Mesh]  # seat, bicycle or umbrella


def make_person(identity: int, kind: str, seed: int, rng: np.random.Generator) -> PersonMeshes:
    """Return an identity in a pose of a kind: one of poses.KINDS, SEATED or CYCLING."""
    body = load_body()
    look, pieces = _outfit(identity, seed)
    pose = draw_pose(kind, rng)
    vertices = body.posed(dict(look.phenotype), pose.rotations)
    skin = vertices[:SKIN_VERTICES]
    up = PEDAL if kind == CYCLING else 0.0
    middle = _pelvis(vertices) * (1.0, 1.0, 0.0) + (0.0, 0.0, skin[:, 2].min() - up)
    vertices = vertices - middle
    own = [*drape(body, pieces, vertices), *_knot(vertices, look), *carried(vertices, look, pose)]
    other = _support(vertices, kind, rng)
    if kind == UMBRELLA:
        other = umbrella(vertices, look, pose.hands[0])
    return PersonMeshes(own, other)


@functools.lru_cache(maxsize=64)
def _outfit(identity: int, seed: int):
    look = look_of(identity, seed)
    return look, cut(load_body(), look)


def _pelvis(vertices: np.ndarray) -> np.ndarray:
    return (place_of(vertices, 1.1, 0.5, 0.9) + place_of(vertices, -1.1, 0.5, 0.9)) / 2


def _knot(vertices: np.ndarray, look: Look) -> list[Mesh]:
    """Return hair tied behind the head."""
    if not look.head.knot or look.head.hat:
        return []
    back = place_of(vertices, 0, 7.7, -0.4)
    out = back - place_of(vertices, 0, 7.7, 1.4)
    out = out / np.linalg.norm(out)
    if look.head.knot == "bun":
        return [moved(ball(0.055, look.head.hair, 12), back + 0.04 * out)]
    fall = back + np.outer([0, 0.05, 0.08, 0.085, 0.07], out)
    fall[:, 2] -= [0, 0.01, 0.08, 0.18, 0.28]
    return [tube(fall, [0.02, 0.035, 0.04, 0.034, 0.012], look.head.hair)]


def _support(vertices: np.ndarray, kind: str, rng: np.random.Generator) -> list[Mesh]:
    """Return the object that supports a person: a chair, a bench, a stool, or a bicycle."""
    if kind == SEATED:
        under = min(place_of(vertices, s * 0.9, 0.0, -0.9)[2] for s in (1, -1))
        return seat(max(under - 0.03, 0.2), rng)
    if kind == CYCLING:
        hips = place_of(vertices, 0, -0.3, 0)
        hands = (place_of(vertices, 4.5, 2.1, 2.2) + place_of(vertices, -4.5, 2.1, 2.2)) / 2
        return bicycle(
            rng, saddle=hips[2] - 0.03, reach=float(hips[1] - hands[1]), bar=hands[2] - 0.03
        )
    return []
