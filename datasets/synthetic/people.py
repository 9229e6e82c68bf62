"""People of the synthetic scenes: who they are, and how they look from any side.

A figure is a small skeleton in three dimensions (body height 1, x to the body's left, y up, z forward),
turned about its vertical axis and drawn limb by limb from the farthest to the nearest.
"""
from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLOTH = {"white": (232, 230, 222), "black": (38, 38, 44), "grey": (132, 134, 140), "red": (188, 42, 46),
         "navy": (38, 52, 108), "sky": (98, 160, 214), "green": (48, 122, 74), "yellow": (226, 186, 62),
         "pink": (222, 138, 160), "brown": (118, 80, 54)}
LEGWEAR = {"jeans": (66, 92, 140), "dark": (36, 44, 68), "black": (34, 34, 38), "grey": (120, 120, 124),
           "beige": (192, 168, 128), "olive": (88, 92, 58)}
HAIR = {"black": (30, 26, 26), "brown": (92, 60, 36), "blond": (214, 178, 104), "red": (158, 74, 36),
        "grey": (168, 166, 164)}
SKIN = {"pale": (240, 206, 182), "tan": (218, 172, 134), "brown": (168, 116, 80), "dark": (104, 70, 50)}
BAG = {"black": (40, 40, 44), "red": (176, 48, 50), "blue": (58, 92, 168), "tan": (178, 132, 84)}
SHOE = {"black": (30, 30, 32), "white": (226, 226, 222), "brown": (98, 66, 42), "red": (170, 50, 46)}
CHOICES = {  # attribute -> its values; repeated values are drawn more often
    "top": tuple(CLOTH), "accent": tuple(CLOTH),
    "texture": ("plain", "plain", "hoops", "pinstripe", "checks", "dots", "band", "yoke", "logo", "open"),
    "cut": ("shirt", "shirt", "jumper", "jumper", "coat"),
    "legs": tuple(LEGWEAR), "bottom": ("trousers", "trousers", "trousers", "shorts", "skirt"),
    "hair": tuple(HAIR), "style": ("short", "short", "long", "bun", "bald"), "skin": tuple(SKIN),
    "build": (0.86, 1.0, 1.18), "bag": ("none", "none", "backpack", "shoulder", "hand"),
    "bag_colour": tuple(BAG), "hat": ("none", "none", "none", "cap", "beanie"),
    "hat_colour": tuple(CLOTH), "shoes": tuple(SHOE)}
TELLING = ("top", "texture", "cut", "legs", "bottom", "style", "bag", "hat")  # what sets look-alikes apart


@dataclass(frozen=True)
class Look:
    """What stays with a person through all scenes; names refer to the tables above."""
    top: str
    accent: str
    texture: str
    cut: str
    legs: str
    bottom: str
    hair: str
    style: str
    skin: str
    build: float
    bag: str
    bag_colour: str
    hat: str
    hat_colour: str
    shoes: str
    height: float = 1.0


@dataclass(frozen=True)
class Pose:
    """How a person stands in one scene: angles in radians, `facing` 0 towards the viewer."""
    facing: float
    phase: float
    stride: float
    arms: str      # swing | phone | pockets | wave
    light: float   # -1 from the left .. 1 from the right


def _pick(rng: np.random.Generator, name: str):
    values = CHOICES[name]
    return values[int(rng.integers(len(values)))]


def random_look(rng: np.random.Generator) -> Look:
    """One person; the accent always differs from the main colour."""
    look = Look(**{f.name: _pick(rng, f.name) for f in fields(Look) if f.name != "height"},
                height=float(rng.uniform(0.93, 1.06)))
    others = [colour for colour in CLOTH if colour != look.top]
    return replace(look, accent=others[int(rng.integers(len(others)))])


def look_alike(look: Look, rng: np.random.Generator) -> Look:
    """The same person but for two attributes that can be seen."""
    for name in rng.choice(TELLING, 2, replace=False):
        values = [v for v in dict.fromkeys(CHOICES[name]) if v != getattr(look, name)]
        if name == "top":  # a plain garment changes its colour, a patterned one must keep its contrast
            values = [v for v in values if v != look.accent]
        look = replace(look, **{str(name): values[int(rng.integers(len(values)))]})
    return replace(look, height=float(rng.uniform(0.93, 1.06)))


def make_looks(count: int, rng: np.random.Generator, alike: float) -> list[Look]:
    """`count` different people; a share `alike` of them are look-alikes of somebody before them."""
    looks: list[Look] = []
    seen = set()
    while len(looks) < count:
        if looks and rng.random() < alike:
            look = look_alike(looks[int(rng.integers(len(looks)))], rng)
        else:
            look = random_look(rng)
        key = replace(look, height=1.0)
        if key not in seen:
            seen.add(key)
            looks.append(look)
    return looks


def random_pose(rng: np.random.Generator, light: float) -> Pose:
    side = rng.choice([0.0, 0.5, 1.0, 1.5], p=[0.3, 0.22, 0.26, 0.22]) * np.pi
    arms = str(rng.choice(["swing", "phone", "pockets", "wave"], p=[0.66, 0.14, 0.14, 0.06]))
    return Pose(float(side + rng.normal(0, 0.3)), float(rng.uniform(0, 2 * np.pi)),
                float(rng.choice([0.06, 0.3, 0.48])), arms, light)


def _cloth(look: Look, x: np.ndarray, y: np.ndarray, facing: float) -> np.ndarray:
    """Colours [h, w, 3] of the upper garment at body coordinates x, y ([h, w], body heights)."""
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
        "logo": lambda: (front > 0.15) & (((x - centre) / max(front, 0.15)) ** 2 + (y - 0.71) ** 2 < 0.045**2),
        "open": lambda: (front > 0.15) & (np.abs(x - centre) < 0.042 * front + (0.8 - y) * 0.04),
    }[look.texture]()
    return np.where(accent[..., None], np.float32(CLOTH[look.accent]), np.float32(CLOTH[look.top]))


class Sketch:
    """A small canvas in body coordinates; parts are painted over one another with soft shading."""

    def __init__(self, pixels: float, light: float):
        self.s, self.light = pixels, light
        self.w, self.h = int(pixels * 0.92) + 4, int(pixels * 1.14) + 4
        self.x0, self.y0 = self.w / 2, self.h - 2 - 0.03 * pixels  # where body (0, 0) lies
        self.rgb = np.zeros((self.h, self.w, 3), np.float32)
        self.alpha = np.zeros((self.h, self.w), np.float32)

    def at(self, points) -> np.ndarray:
        """Body coordinates [n, 2] -> canvas pixels."""
        return np.asarray(points, np.float32) * (self.s, -self.s) + (self.x0, self.y0)

    def paint(self, draw, points, radius: float, fill, dark: float = 1.0, soft: float = 0.045) -> None:
        """Paint what `draw(ImageDraw, canvas points - offset)` leaves; `fill` is RGB or a function of x, y."""
        points = self.at(points)
        pad = radius * self.s + 2
        left, top = np.maximum(np.floor(points.min(0) - pad), 0).astype(int)
        right, low = np.minimum(np.ceil(points.max(0) + pad), (self.w, self.h)).astype(int)
        if right <= left or low <= top:
            return
        mask = Image.new("L", (int(right - left), int(low - top)))
        draw(ImageDraw.Draw(mask), points - (left, top))
        glow = mask.filter(ImageFilter.GaussianBlur(soft * self.s))
        shift = int(round(self.light * soft * self.s * 0.8))
        glow = np.roll(np.asarray(glow, np.float32) / 255, shift, 1)[..., None]
        area = np.s_[top:low, left:right]
        if callable(fill):
            ys, xs = np.mgrid[top:low, left:right].astype(np.float32)
            fill = fill((xs - self.x0) / self.s, (self.y0 - ys) / self.s)
        colour = np.float32(fill) * dark * (0.58 + 0.5 * glow)
        m = np.asarray(mask, np.float32) / 255
        self.rgb[area] += (colour - self.rgb[area]) * m[..., None]
        self.alpha[area] = np.maximum(self.alpha[area], m)

    def limb(self, points, radii, fill, dark: float = 1.0) -> None:
        """A chain of joints [n, 2] with a radius at each."""
        def draw(d, p):
            for (a, b, ra, rb) in zip(p[:-1], p[1:], radii[:-1], radii[1:]):
                ra, rb = ra * self.s, rb * self.s
                side = np.array([-(b - a)[1], (b - a)[0]]) / max(np.hypot(*(b - a)), 1e-3)
                d.polygon([tuple(q) for q in (a + side * ra, b + side * rb, b - side * rb, a - side * ra)], 255)
                for centre, r in ((a, ra), (b, rb)):
                    d.ellipse([*(centre - r), *(centre + r)], 255)
        self.paint(draw, points, max(radii), fill, dark)

    def shape(self, points, fill, dark: float = 1.0) -> None:
        self.paint(lambda d, p: d.polygon([tuple(q) for q in p], 255), points, 0.02, fill, dark, 0.06)

    def oval(self, x: float, y: float, rx: float, ry: float, fill, dark: float = 1.0) -> None:
        corners = [(x - rx, y + ry), (x + rx, y - ry)]
        self.paint(lambda d, p: d.ellipse([*p[0], *p[1]], 255), corners, 0.01, fill, dark)

    def image(self) -> Image.Image:
        rgba = np.dstack([self.rgb, self.alpha * 255])
        return Image.fromarray(np.clip(rgba, 0, 255).astype(np.uint8), "RGBA")


def _skeleton(look: Look, pose: Pose) -> dict[str, np.ndarray]:
    """Joint chains [3, 3] (x, y, z) of both legs and arms, feet on the ground."""
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
        elbow = shoulder + 0.165 * np.array([sign * np.sin(out), -np.cos(upper) * np.cos(out), np.sin(upper)])
        fore = upper + bend
        tilt = 0.0 if pose.arms != "wave" or sign > 0 else 2.9
        wrist = elbow + 0.15 * np.array([sign * 0.12, -np.cos(fore) * np.cos(tilt), np.sin(fore)])
        chains[f"arm {side}"] = np.stack([shoulder, elbow, wrist])
    lowest = min(chains["leg left"][2, 1], chains["leg right"][2, 1]) - 0.035
    return {name: chain - (0, lowest, 0) for name, chain in chains.items()} | {"drop": np.array(lowest)}


def _turn(points: np.ndarray, facing: float) -> tuple[np.ndarray, np.ndarray]:
    """Joints [n, 3] -> screen [n, 2] and nearness [n]."""
    points = np.atleast_2d(points)
    c, s = np.cos(facing), np.sin(facing)
    return np.stack([points[:, 0] * c + points[:, 2] * s, points[:, 1]], 1), points[:, 2] * c - points[:, 0] * s


def _leg(sketch: Sketch, look: Look, chain: np.ndarray, facing: float, dark: float) -> None:
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
    flat, _ = _turn(chain, facing)
    b = look.build
    sketch.oval(*flat[2] - (0, 0.012), 0.021, 0.025, SKIN[look.skin], dark)
    if look.cut == "shirt":
        sketch.limb(flat, (0.03 * b, 0.025 * b, 0.018 * b), SKIN[look.skin], dark)
        sketch.limb(np.stack([flat[0], flat[0] * 0.25 + flat[1] * 0.75]), (0.042 * b, 0.038 * b), cloth, dark)
    else:
        sketch.limb(flat, (0.042 * b, 0.036 * b, 0.027 * b), cloth, dark)


def _trunk(sketch: Sketch, look: Look, facing: float, drop: float, cloth) -> None:
    """Torso with hem, and a skirt under it."""
    def outline(rows):  # (height, half width across, half depth) -> polygon
        half = [np.hypot(a * look.build * np.cos(facing), c * look.build * np.sin(facing)) for _, a, c in rows]
        right = [(w, y - drop) for (y, _, _), w in zip(rows, half)]
        return right + [(-x, y) for x, y in reversed(right)]

    if look.bottom == "skirt":
        rows = [(0.56, 0.1, 0.08), (0.48, 0.12, 0.1), (0.31, 0.15, 0.125), (0.3, 0.14, 0.12)]
        sketch.shape(outline(rows), LEGWEAR[look.legs])
    else:
        sketch.shape(outline([(0.56, 0.1, 0.075), (0.47, 0.112, 0.085), (0.45, 0.08, 0.07)]), LEGWEAR[look.legs])
    rows = [(0.85, 0.045, 0.045), (0.835, 0.105, 0.06), (0.805, 0.145, 0.078), (0.7, 0.132, 0.092),
            (0.6, 0.112, 0.082), (0.5, 0.124, 0.094)]
    if look.cut == "coat":
        rows += [(0.34, 0.142, 0.11), (0.33, 0.13, 0.1)]
    sketch.shape(outline(rows), cloth)


def _head(sketch: Sketch, look: Look, facing: float, drop: float) -> None:
    c, s = np.cos(facing), np.sin(facing)
    y, hair, skin = 0.918 - drop, HAIR[look.hair], SKIN[look.skin]
    sketch.limb([(0, 0.83 - drop), (0.008 * s, 0.87 - drop)], (0.032, 0.032), skin, 0.85)
    sketch.oval(0, y, 0.064, 0.078, skin)
    if look.style != "bald":
        if look.style == "bun":
            sketch.oval(-0.06 * s, y + 0.065, 0.034, 0.032, hair)
        if c < -0.35:                      # from behind: hair all over
            sketch.oval(0, y + 0.006, 0.069, 0.08, hair)
        else:                              # a cap of hair, then the face over its front
            sketch.oval(-0.012 * s, y + 0.012, 0.07, 0.077, hair)
            sketch.oval(0.03 * s, y - 0.018, 0.054 - 0.01 * abs(s), 0.06, skin)
    if c > 0.2:
        for eye in (-0.023, 0.023):
            sketch.oval(0.045 * s + eye * c, y - 0.01, 0.008, 0.011, (30, 26, 26))
    if look.hat != "none":
        _hat(sketch, look, c, s, y)


def _hat(sketch: Sketch, look: Look, c: float, s: float, y: float) -> None:
    colour = CLOTH[look.hat_colour]
    angles = np.linspace(0, np.pi, 14)
    low, high = (0.02, 0.072) if look.hat == "cap" else (0.005, 0.09)
    dome = [(0.073 * np.cos(a), y + low + high * np.sin(a)) for a in angles]
    sketch.shape(dome, colour)
    if look.hat == "cap" and c > -0.5:
        sketch.limb([(0.04 * s - 0.03 * c, y + low), (0.085 * s + 0.03 * c, y + low - 0.006)], (0.014, 0.014),
                    colour, 0.75)
    elif look.hat == "beanie":
        sketch.limb([(-0.06, y + low + 0.008), (0.06, y + low + 0.008)], (0.014, 0.014), colour, 0.8)
        sketch.oval(0, y + low + high + 0.012, 0.022, 0.022, colour, 1.15)


def _bag(sketch: Sketch, look: Look, facing: float, drop: float, wrist: np.ndarray, near: bool) -> None:
    """The part of the bag that lies before (`near`) or behind the torso."""
    c, s = np.cos(facing), np.sin(facing)
    colour = BAG[look.bag_colour]
    if look.bag == "backpack":
        if (c < 0) == near:
            half, x = np.hypot(0.1 * c, 0.06 * s), -0.125 * s
            sketch.limb([(x, 0.76 - drop), (x, 0.62 - drop)], (half * 0.85, half), colour)
            sketch.limb([(x - half * 0.5, 0.62 - drop), (x + half * 0.5, 0.62 - drop)], (0.012, 0.012), colour, 0.6)
        if near and c > -0.3:
            for strap in (-0.075, 0.075):
                x = strap * c + 0.05 * s
                sketch.limb([(strap * c, 0.83 - drop), (x, 0.76 - drop), (x - 0.05 * s, 0.64 - drop)], (0.012,) * 3, colour)
    elif look.bag == "shoulder":
        x = 0.15 * c
        if (s <= 0.3) == near:
            sketch.limb([(x - 0.02, 0.5 - drop), (x + 0.02, 0.5 - drop)], (0.05, 0.05), colour)
        if near:
            sketch.limb([(-0.08 * c, 0.83 - drop), (x, 0.54 - drop)], (0.011, 0.011), colour)
    elif look.bag == "hand" and ((s >= -0.3) == near):
        x, y = wrist
        sketch.limb([(x, y - 0.01), (x, y - 0.06)], (0.008, 0.008), colour, 0.7)
        sketch.shape([(x - 0.05, y - 0.06), (x + 0.05, y - 0.06), (x + 0.062, y - 0.15), (x - 0.062, y - 0.15)], colour)


def draw_person(look: Look, pose: Pose, pixels: float) -> tuple[Image.Image, tuple[float, float]]:
    """An RGBA figure about `pixels` tall, and where the point between its feet lies in it (x, y pixels)."""
    sketch, f = Sketch(pixels, pose.light), pose.facing
    joints = _skeleton(look, pose)
    drop = float(joints.pop("drop"))
    def cloth(x, y):
        return _cloth(look, x, y + drop, f)

    order = {name: _turn(chain, f)[1].mean() for name, chain in joints.items()}
    legs, arms = ([n for n in sorted(order, key=order.get) if n.startswith(k)] for k in ("leg", "arm"))
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
