"""Figures of people, seen from any side.

A figure is a small skeleton in three dimensions (body height 1, x to the body's left, y up, z
forward), which is rotated about its vertical axis and drawn limb by limb, the farthest first.
"""

import numpy as np
from PIL import Image

from datasets.synthetic.looks import BAG, CLOTH, HAIR, LEGWEAR, SHOE, SKIN, Look, Pose
from datasets.synthetic.sketch import Sketch


def _cloth(look: Look, x: np.ndarray, y: np.ndarray, facing: float) -> np.ndarray:
    """Return the colours [h, w, 3] of the upper garment at x, y, [h, w] in body heights."""
    front = np.cos(facing)
    centre = 0.06 * np.sin(facing)
    accent = {
        "plain": lambda: np.zeros_like(x, bool),
        "hoops": lambda: (y / 0.078) % 1 < 0.45,
        "pinstripe": lambda: (x / 0.056 + 0.2) % 1 < 0.4,
        "checks": lambda: ((x / 0.096) % 1 < 0.5) ^ ((y / 0.096) % 1 < 0.5),
        "dots": lambda: np.hypot((x / 0.066) % 1 - 0.5, (y / 0.066) % 1 - 0.5) < 0.32,
        "band": lambda: np.abs(y - 0.69) < 0.036,
        "yoke": lambda: y > 0.725,
        "logo": lambda: (
            (front > 0.15) & (((x - centre) / max(front, 0.15)) ** 2 + (y - 0.71) ** 2 < 0.045**2)
        ),
        "open": lambda: (front > 0.15) & (np.abs(x - centre) < 0.042 * front + (0.8 - y) * 0.04),
    }[look.texture]()
    top, other = (np.array(CLOTH[name], np.float32) for name in (look.top, look.accent))
    return np.where(accent[..., None], other, top)


def _skeleton(look: Look, pose: Pose) -> dict[str, np.ndarray]:
    """Return the chains of joints, [3, 3] x y z, of both legs and arms, and "drop", the height by
    which the body was lowered to put the lower foot on the ground."""
    chains = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        phase = pose.phase + (0 if sign > 0 else np.pi)
        swing = pose.stride * np.sin(phase)
        shin = swing - pose.stride * 1.2 * max(0.0, np.cos(phase))
        hip = np.array([0.056 * look.build * sign, 0.5, 0])
        knee = hip + 0.235 * np.array([0, -np.cos(swing), np.sin(swing)])
        ankle = knee + 0.225 * np.array([0, -np.cos(shin), np.sin(shin)])
        chains[f"leg {side}"] = np.stack([hip, knee, ankle])
        upper, bend, out = -0.8 * swing, 0.25 + 0.5 * pose.stride, 0.14
        if sign < 0 and pose.arms == "phone":
            upper, bend = 0.35, 2.2
        elif sign < 0 and pose.arms == "wave":
            upper, bend, out = 0.2, 0.3, 2.3
        elif pose.arms == "pockets":
            upper, bend, out = -0.35, 0.75, 0.32
        shoulder = np.array([0.122 * look.build * sign, 0.8, 0])
        elbow = shoulder + 0.165 * np.array(
            [sign * np.sin(out), -np.cos(upper) * np.cos(out), np.sin(upper)]
        )
        fore = upper + bend
        tilt = 0.0 if pose.arms != "wave" or sign > 0 else 2.9
        wrist = elbow + 0.15 * np.array([sign * 0.12, -np.cos(fore) * np.cos(tilt), np.sin(fore)])
        chains[f"arm {side}"] = np.stack([shoulder, elbow, wrist])
    lowest = min(chains["leg left"][2, 1], chains["leg right"][2, 1]) - 0.035
    return {name: chain - (0, lowest, 0) for name, chain in chains.items()} | {
        "drop": np.array(lowest)
    }


def _turn(points: np.ndarray, facing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotate joints [n, 3]. Return their positions [n, 2] and how near they are to the viewer,
    [n]."""
    points = np.atleast_2d(points)
    c, s = np.cos(facing), np.sin(facing)
    return np.stack([points[:, 0] * c + points[:, 2] * s, points[:, 1]], 1), points[
        :, 2
    ] * c - points[:, 0] * s


def _leg(sketch: Sketch, look: Look, chain: np.ndarray, facing: float, dark: float) -> None:
    """Draw a leg with its shoe."""
    flat, _ = _turn(chain, facing)
    b, skin, wear = look.build, SKIN[look.skin], LEGWEAR[look.legs]
    toe, _ = _turn(chain[2] + (0, -0.012, 0.062), facing)
    sketch.limb(np.stack([flat[2] - (0, 0.008), toe[0]]), (0.026, 0.02), SHOE[look.shoes], dark)
    if look.bottom == "trousers":
        sketch.limb(flat, (0.058 * b, 0.044 * b, 0.034 * b), wear, dark)
        return
    sketch.limb(flat, (0.054 * b, 0.038 * b, 0.026 * b), skin, dark)
    if look.bottom == "shorts":
        sketch.limb(np.stack([flat[0], flat[1] + (0, 0.025)]), (0.06 * b, 0.054 * b), wear, dark)


def _arm(sketch: Sketch, look: Look, chain: np.ndarray, facing: float, cloth, dark: float) -> None:
    """Draw an arm with its sleeve and hand."""
    flat, _ = _turn(chain, facing)
    b = look.build
    x, y = flat[2] - (0, 0.012)
    sketch.oval(x, y, 0.021, 0.025, SKIN[look.skin], dark)
    if look.cut == "shirt":
        sketch.limb(flat, (0.03 * b, 0.025 * b, 0.018 * b), SKIN[look.skin], dark)
        sketch.limb(
            np.stack([flat[0], flat[0] * 0.25 + flat[1] * 0.75]),
            (0.042 * b, 0.038 * b),
            cloth,
            dark,
        )
    else:
        sketch.limb(flat, (0.042 * b, 0.036 * b, 0.027 * b), cloth, dark)


def _trunk(sketch: Sketch, look: Look, facing: float, drop: float, cloth) -> None:
    """Draw the torso with its hem, or with a skirt."""

    def outline(rows):  # (height, half width across, half depth) -> polygon
        half = [
            np.hypot(a * look.build * np.cos(facing), c * look.build * np.sin(facing))
            for _, a, c in rows
        ]
        right = [(w, y - drop) for (y, _, _), w in zip(rows, half)]
        return right + [(-x, y) for x, y in reversed(right)]

    if look.bottom == "skirt":
        rows = [(0.56, 0.1, 0.08), (0.48, 0.12, 0.1), (0.31, 0.15, 0.125), (0.3, 0.14, 0.12)]
        sketch.shape(outline(rows), LEGWEAR[look.legs])
    else:
        sketch.shape(
            outline([(0.56, 0.1, 0.075), (0.47, 0.112, 0.085), (0.45, 0.08, 0.07)]),
            LEGWEAR[look.legs],
        )
    rows = [
        (0.85, 0.045, 0.045),
        (0.835, 0.105, 0.06),
        (0.805, 0.145, 0.078),
        (0.7, 0.132, 0.092),
        (0.6, 0.112, 0.082),
        (0.5, 0.124, 0.094),
    ]
    if look.cut == "coat":
        rows += [(0.34, 0.142, 0.11), (0.33, 0.13, 0.1)]
    sketch.shape(outline(rows), cloth)


def _head(sketch: Sketch, look: Look, facing: float, drop: float) -> None:
    """Draw the neck, the head and the hair."""
    c, s = np.cos(facing), np.sin(facing)
    y, hair, skin = 0.918 - drop, HAIR[look.hair], SKIN[look.skin]
    sketch.limb([(0, 0.83 - drop), (0.008 * s, 0.87 - drop)], (0.032, 0.032), skin, 0.85)
    sketch.oval(0, y, 0.064, 0.078, skin)
    if look.style != "bald":
        if look.style == "bun":
            sketch.oval(-0.06 * s, y + 0.065, 0.034, 0.032, hair)
        if c < -0.35:  # from behind: hair all over
            sketch.oval(0, y + 0.006, 0.069, 0.08, hair)
        else:  # a cap of hair, then the face over its front
            sketch.oval(-0.012 * s, y + 0.012, 0.07, 0.077, hair)
            sketch.oval(0.03 * s, y - 0.018, 0.054 - 0.01 * abs(s), 0.06, skin)
    if c > 0.2:
        for eye in (-0.023, 0.023):
            sketch.oval(0.045 * s + eye * c, y - 0.012, 0.006, 0.009, (52, 40, 36))
    if look.hat != "none":
        _hat(sketch, look, c, s, y)


def _hat(sketch: Sketch, look: Look, c: float, s: float, y: float) -> None:
    """Draw the cap or beanie; c, s: cosine and sine of the direction; y: height of the head."""
    colour = CLOTH[look.hat_colour]
    angles = np.linspace(0, np.pi, 14)
    low, high = (0.02, 0.072) if look.hat == "cap" else (0.005, 0.09)
    dome = [(0.073 * np.cos(a), y + low + high * np.sin(a)) for a in angles]
    sketch.shape(dome, colour)
    if look.hat == "cap" and c > -0.5:
        sketch.limb(
            [(0.04 * s - 0.03 * c, y + low), (0.085 * s + 0.03 * c, y + low - 0.006)],
            (0.014, 0.014),
            colour,
            0.75,
        )
    elif look.hat == "beanie":
        sketch.limb(
            [(-0.06, y + low + 0.008), (0.06, y + low + 0.008)], (0.014, 0.014), colour, 0.8
        )
        sketch.oval(0, y + low + high + 0.012, 0.022, 0.022, colour, 1.15)


def _bag(
    sketch: Sketch, look: Look, facing: float, drop: float, wrist: np.ndarray, near: bool
) -> None:
    """Draw the part of the bag in front of the torso (`near`) or behind it."""
    c, s = np.cos(facing), np.sin(facing)
    colour = BAG[look.bag_colour]
    if look.bag == "backpack":
        if (c < 0) == near:
            half, x = np.hypot(0.1 * c, 0.06 * s), -0.125 * s
            sketch.limb([(x, 0.76 - drop), (x, 0.62 - drop)], (half * 0.85, half), colour)
            sketch.limb(
                [(x - half * 0.5, 0.62 - drop), (x + half * 0.5, 0.62 - drop)],
                (0.012, 0.012),
                colour,
                0.6,
            )
        if near and c > -0.3:
            for strap in (-0.075, 0.075):
                x = strap * c + 0.05 * s
                sketch.limb(
                    [(strap * c, 0.83 - drop), (x, 0.76 - drop), (x - 0.05 * s, 0.64 - drop)],
                    (0.012,) * 3,
                    colour,
                )
    elif look.bag == "shoulder":
        x = 0.15 * c
        if (s <= 0.3) == near:
            sketch.limb([(x - 0.02, 0.5 - drop), (x + 0.02, 0.5 - drop)], (0.05, 0.05), colour)
        if near:
            sketch.limb([(-0.08 * c, 0.83 - drop), (x, 0.54 - drop)], (0.011, 0.011), colour)
    elif look.bag == "hand" and ((s >= -0.3) == near):
        x, y = wrist
        sketch.limb([(x, y - 0.01), (x, y - 0.06)], (0.008, 0.008), colour, 0.7)
        sketch.shape(
            [
                (x - 0.05, y - 0.06),
                (x + 0.05, y - 0.06),
                (x + 0.062, y - 0.15),
                (x - 0.062, y - 0.15),
            ],
            colour,
        )


def draw_person(look: Look, pose: Pose, pixels: float) -> tuple[Image.Image, tuple[float, float]]:
    """Draw a person of about `pixels` height.

    Returns:
        An RGBA image, and the x, y in it of the point between the feet.
    """
    sketch, f = Sketch(pixels, pose.light), pose.facing
    joints = _skeleton(look, pose)
    drop = float(joints.pop("drop"))

    def cloth(x, y):
        return _cloth(look, x, y + drop, f)

    order = {name: _turn(chain, f)[1].mean() for name, chain in joints.items()}
    far_first = sorted(order, key=lambda name: order[name])
    legs, arms = ([n for n in far_first if n.startswith(k)] for k in ("leg", "arm"))
    wrist = _turn(joints["arm right"][2], f)[0][0]
    behind = [look.style == "long" and np.cos(f) >= -0.35, -0.02 * np.sin(f)]
    mane = [(behind[1], 0.92 - drop), (behind[1] - 0.02 * np.sin(f), 0.79 - drop)]
    _bag(sketch, look, f, drop, wrist, near=False)
    if behind[0]:
        sketch.limb(mane, (0.068, 0.06), HAIR[look.hair], 0.85)
    _arm(sketch, look, joints[arms[0]], f, cloth, 0.82)
    for name, dark in zip(legs, (0.8, 1.0)):
        _leg(sketch, look, joints[name], f, dark)
    _trunk(sketch, look, f, drop, cloth)
    if np.cos(f) >= -0.3:
        _bag(sketch, look, f, drop, wrist, near=True)
    _head(sketch, look, f, drop)
    if look.style == "long" and not behind[0]:
        sketch.limb(mane, (0.066, 0.058), HAIR[look.hair])
    if np.cos(f) < -0.3:
        _bag(sketch, look, f, drop, wrist, near=True)
    _arm(sketch, look, joints[arms[1]], f, cloth, 1.0)
    return sketch.image(), (sketch.x0, sketch.y0)
