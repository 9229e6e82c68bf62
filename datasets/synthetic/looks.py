"""Appearance and pose of the people in synthetic scenes."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

CLOTH = {
    "white": (232, 230, 222),
    "black": (38, 38, 44),
    "grey": (132, 134, 140),
    "red": (188, 42, 46),
    "navy": (38, 52, 108),
    "sky": (98, 160, 214),
    "green": (48, 122, 74),
    "yellow": (226, 186, 62),
    "pink": (222, 138, 160),
    "brown": (118, 80, 54),
}
LEGWEAR = {
    "jeans": (66, 92, 140),
    "dark": (36, 44, 68),
    "black": (34, 34, 38),
    "grey": (120, 120, 124),
    "beige": (192, 168, 128),
    "olive": (88, 92, 58),
}
HAIR = {
    "black": (30, 26, 26),
    "brown": (92, 60, 36),
    "blond": (214, 178, 104),
    "red": (158, 74, 36),
    "grey": (168, 166, 164),
}
SKIN = {
    "pale": (240, 206, 182),
    "tan": (218, 172, 134),
    "brown": (168, 116, 80),
    "dark": (104, 70, 50),
}
BAG = {"black": (40, 40, 44), "red": (176, 48, 50), "blue": (58, 92, 168), "tan": (178, 132, 84)}
SHOE = {
    "black": (30, 30, 32),
    "white": (226, 226, 222),
    "brown": (98, 66, 42),
    "red": (170, 50, 46),
}
CHOICES = {  # attribute -> its values; repeated values are drawn more often
    "top": tuple(CLOTH),
    "accent": tuple(CLOTH),
    "texture": (
        "plain",
        "plain",
        "hoops",
        "pinstripe",
        "checks",
        "dots",
        "band",
        "yoke",
        "logo",
        "open",
    ),
    "cut": ("shirt", "shirt", "jumper", "jumper", "coat"),
    "legs": tuple(LEGWEAR),
    "bottom": ("trousers", "trousers", "trousers", "shorts", "skirt"),
    "hair": tuple(HAIR),
    "style": ("short", "short", "long", "bun", "bald"),
    "skin": tuple(SKIN),
    "build": (0.86, 1.0, 1.18),
    "bag": ("none", "none", "backpack", "shoulder", "hand"),
    "bag_colour": tuple(BAG),
    "hat": ("none", "none", "none", "cap", "beanie"),
    "hat_colour": tuple(CLOTH),
    "shoes": tuple(SHOE),
}
# The attributes in which look-alikes differ.
TELLING = ("top", "texture", "cut", "legs", "bottom", "style", "bag", "hat")


@dataclass(frozen=True)
class Look:
    """The appearance of a person, equal in all scenes. The names refer to the tables above."""

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
    """A person's pose in one scene. Angles are in radians; `facing` is 0 towards the viewer."""

    facing: float
    phase: float
    stride: float
    arms: str  # swing | phone | pockets | wave
    light: float  # -1 from the left .. 1 from the right


def _pick(rng: np.random.Generator, name: str):
    """Draw a value of the attribute `name`."""
    values = CHOICES[name]
    return values[int(rng.integers(len(values)))]


def random_look(rng: np.random.Generator) -> Look:
    """Draw the look of a person, whose accent colour differs from the main one."""
    look = Look(
        **{f.name: _pick(rng, f.name) for f in fields(Look) if f.name != "height"},
        height=float(rng.uniform(0.93, 1.06)),
    )
    others = [colour for colour in CLOTH if colour != look.top]
    return replace(look, accent=others[int(rng.integers(len(others)))])


def look_alike(look: Look, rng: np.random.Generator) -> Look:
    """Return the look with two visible attributes changed."""
    for name in rng.choice(TELLING, 2, replace=False):
        values = [v for v in dict.fromkeys(CHOICES[name]) if v != getattr(look, name)]
        if name == "top":  # the new colour of a garment still differs from its accent
            values = [v for v in values if v != look.accent]
        chosen: dict[str, Any] = {str(name): values[int(rng.integers(len(values)))]}
        look = replace(look, **chosen)
    return replace(look, height=float(rng.uniform(0.93, 1.06)))


def make_looks(count: int, rng: np.random.Generator, alike: float) -> list[Look]:
    """Draw `count` different looks. A share `alike` of them resemble earlier ones."""
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
    """Draw a pose.

    Args:
        light: direction of the light in the scene, -1 (left) to 1 (right).
    """
    side = rng.choice([0.0, 0.5, 1.0, 1.5], p=[0.3, 0.22, 0.26, 0.22]) * np.pi
    arms = str(rng.choice(["swing", "phone", "pockets", "wave"], p=[0.66, 0.14, 0.14, 0.06]))
    return Pose(
        float(side + rng.normal(0, 0.3)),
        float(rng.uniform(0, 2 * np.pi)),
        float(rng.choice([0.06, 0.3, 0.48])),
        arms,
        light,
    )
