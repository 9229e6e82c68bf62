"""Body poses: rotations of the bones, drawn at random.

Axes of the body: x left, y back, z up. Angles are degrees; a forward swing of a limb is positive.
"""

import math
from dataclasses import dataclass, field

import numpy as np

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
SIDES = (("L", 1), ("R", -1))
KINDS = {
    "walk": 0.44,
    "stand": 0.22,
    "phone": 0.07,
    "call": 0.04,
    "arms": 0.05,
    "carry": 0.06,
    "point": 0.02,
    "run": 0.03,
    "bend": 0.03,
    "crouch": 0.04,
}
SEATED, CYCLING = "sit", "cycle"  # these need a seat or a bicycle
UMBRELLA = "umbrella"


@dataclass
class Pose:
    kind: str
    rotations: dict[str, np.ndarray] = field(default_factory=dict)  # bone -> [3, 3]
    hands: tuple[str, ...] = ()  # sides whose hand holds a phone or a bag


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """Return the rotation [3, 3] about a unit axis. Source: Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _leg(pose: Pose, side: str, sign: int, hip: float, knee: float, out: float, foot: float):
    turn = pose.rotations
    turn[f"upperleg01.{side}"] = rotation(X, -hip) @ rotation(Y, sign * (6.5 - out))
    turn[f"lowerleg01.{side}"] = rotation(X, knee)
    turn[f"foot.{side}"] = rotation(X, foot)


def _arm(pose: Pose, side: str, sign: int, swing: float, out: float, elbow: float, inward=0.0):
    """Rotate an arm.

    Args:
        out: degrees away from the body.
        elbow: degrees of bending in addition to the rest position, which has about 35.
    """
    turn = pose.rotations
    turn[f"upperarm01.{side}"] = rotation(X, -swing) @ rotation(Y, sign * (38 - out))
    turn[f"upperarm02.{side}"] = rotation(Z, -sign * inward)
    diagonal = math.sqrt(0.5)
    turn[f"lowerarm01.{side}"] = rotation((-diagonal, 0, -sign * diagonal), elbow)


def _fingers(pose: Pose, rng: np.random.Generator) -> None:
    for side, sign in SIDES:
        curl = rng.uniform(5, 40)
        for finger in range(2, 6):
            for joint in (1, 2, 3):
                bone = f"finger{finger}-{joint}.{side}"
                pose.rotations[bone] = rotation(Y, sign * curl * rng.uniform(0.7, 1.2))
        pose.rotations[f"wrist.{side}"] = rotation(X, rng.uniform(-15, 15))


def _trunk(pose: Pose, rng: np.random.Generator, lean: float, nod: float) -> None:
    turn = pose.rotations
    for bone in ("spine05", "spine03", "spine02"):
        turn[bone] = rotation(X, lean / 3) @ rotation(Z, rng.uniform(-4, 4))
    turn["neck01"] = rotation(X, nod / 2) @ rotation(Z, rng.uniform(-22, 22))
    turn["head"] = rotation(X, nod / 2) @ rotation(Z, rng.uniform(-20, 20))


def _striding(pose: Pose, rng: np.random.Generator, wide: float, knee: float, elbow: float):
    phase = rng.uniform(0, 2 * math.pi)
    for side, sign in SIDES:
        own = phase + (0 if sign > 0 else math.pi)
        hip = wide * math.sin(own)
        bent = max(0.0, knee * math.sin(own + 2.2)) + 4
        _leg(pose, side, sign, hip + 3, bent, rng.uniform(-2, 2), rng.uniform(-8, 8))
        swing = -0.75 * hip + rng.uniform(-4, 4)
        _arm(pose, side, sign, swing, rng.uniform(3, 12), elbow + rng.uniform(-10, 14))


def _standing(pose: Pose, rng: np.random.Generator) -> None:
    for side, sign in SIDES:
        hip = rng.uniform(-5, 9)
        _leg(pose, side, sign, hip, max(0.0, hip * 1.6 + rng.uniform(-2, 4)), rng.uniform(-2, 7), 0)
        _arm(pose, side, sign, rng.uniform(-8, 12), rng.uniform(2, 14), rng.uniform(-28, 12))


def _holding(pose: Pose, rng: np.random.Generator) -> None:
    """Raise one hand or both in front of the chest, as with a phone or a cup."""
    both = rng.random() < 0.35
    chosen = SIDES if both else (SIDES[int(rng.integers(2))],)
    for side, sign in chosen:
        _arm(pose, side, sign, rng.uniform(5, 35), rng.uniform(2, 12), rng.uniform(35, 75), 20)
    pose.hands = (chosen[0][0],)
    pose.rotations["head"] = rotation(X, rng.uniform(5, 22))


def _calling(pose: Pose, rng: np.random.Generator) -> None:
    side, sign = SIDES[int(rng.integers(2))]
    _arm(pose, side, sign, rng.uniform(25, 50), rng.uniform(10, 30), rng.uniform(95, 112), -15)
    pose.hands = (side,)


def _both_arms(pose: Pose, rng: np.random.Generator) -> None:
    """Fold the arms, put the hands on the hips or behind the back, or gesture."""
    kind = int(rng.integers(4))
    for side, sign in SIDES:
        swing, out, elbow, inward = (
            (18, 6, 72, 55),
            (-22, 34, 50, 60),
            (-32, 8, 5, 40),
            (rng.uniform(10, 40), rng.uniform(5, 25), rng.uniform(30, 65), 0.0),
        )[kind]
        _arm(pose, side, sign, swing + rng.uniform(-5, 5), out, elbow + rng.uniform(-8, 8), inward)


def _under_umbrella(pose: Pose, rng: np.random.Generator) -> None:
    side, sign = SIDES[int(rng.integers(2))]
    _arm(pose, side, sign, rng.uniform(8, 25), rng.uniform(2, 10), rng.uniform(55, 75), 15)
    pose.hands = (side,)


def _pointing(pose: Pose, rng: np.random.Generator) -> None:
    side, sign = SIDES[int(rng.integers(2))]
    _arm(pose, side, sign, rng.uniform(50, 130), rng.uniform(5, 40), rng.uniform(-35, 5))


def _seated(pose: Pose, rng: np.random.Generator) -> None:
    for side, sign in SIDES:
        hip = rng.uniform(78, 92)
        _leg(pose, side, sign, hip, hip + rng.uniform(-18, 10), rng.uniform(-2, 12), 0)
        _arm(pose, side, sign, rng.uniform(5, 35), rng.uniform(0, 14), rng.uniform(5, 55), 15)
    _trunk(pose, rng, rng.uniform(-12, 22), rng.uniform(-10, 20))


def _cycling(pose: Pose, rng: np.random.Generator) -> None:
    phase = rng.uniform(0, 2 * math.pi)
    lean = rng.uniform(8, 42)
    for side, sign in SIDES:
        own = phase + (0 if sign > 0 else math.pi)
        hip = 52 + 0.35 * lean + 24 * math.sin(own)
        _leg(pose, side, sign, hip, 62 + 30 * math.sin(own + 0.5), 2, -5)
        _arm(pose, side, sign, 44 + 0.7 * lean, rng.uniform(4, 10), rng.uniform(-30, -15))
    _trunk(pose, rng, lean, -0.6 * lean)


def _low(pose: Pose, rng: np.random.Generator) -> None:
    """Crouch, or kneel on one knee."""
    for side, sign in SIDES:
        hip = rng.uniform(85, 112)
        _leg(pose, side, sign, hip, rng.uniform(112, 135), rng.uniform(0, 14), rng.uniform(10, 25))
        _arm(pose, side, sign, rng.uniform(25, 60), rng.uniform(0, 15), rng.uniform(-10, 40))
    if rng.random() < 0.5:
        _leg(pose, "R", -1, rng.uniform(0, 15), rng.uniform(88, 100), 2, 25)
    _trunk(pose, rng, rng.uniform(0, 30), rng.uniform(-15, 15))


def draw_pose(kind: str, rng: np.random.Generator) -> Pose:
    """Return a pose of a kind: one of KINDS, SEATED or CYCLING."""
    pose = Pose(kind)
    _fingers(pose, rng)
    _trunk(pose, rng, rng.uniform(-2, 8), rng.uniform(-10, 18))
    moving = kind in ("phone", "call", "carry", UMBRELLA) and rng.random() < 0.6
    if kind == "walk" or moving:
        _striding(pose, rng, rng.uniform(14, 30), rng.uniform(35, 55), -12)
    elif kind == "run":
        _striding(pose, rng, rng.uniform(32, 48), rng.uniform(75, 100), 50)
        _trunk(pose, rng, rng.uniform(8, 18), 0)
    else:
        _standing(pose, rng)
    special = {
        "phone": _holding,
        "call": _calling,
        "arms": _both_arms,
        "point": _pointing,
        UMBRELLA: _under_umbrella,
        "crouch": _low,
        SEATED: _seated,
        CYCLING: _cycling,
    }
    if kind in special:
        special[kind](pose, rng)
    elif kind == "carry":
        side, sign = SIDES[int(rng.integers(2))]
        _arm(pose, side, sign, rng.uniform(-5, 8), rng.uniform(4, 9), -32)
        pose.hands = (side,)
    elif kind == "bend":
        _trunk(pose, rng, rng.uniform(35, 75), rng.uniform(0, 20))
    return pose
