"""The appearance of a person: body, skin, hair, clothes and accessories. A seed determines it."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered.materials import Color, Plain, hsv
from datasets.rendered.materials_people import PATTERNS, Cloth, Eye, Hair, Shoe, Skin

LOOKS = 71  # stream of random numbers
TOPS = {"tee": 0.26, "shirt": 0.2, "jacket": 0.2, "hoodie": 0.13, "coat": 0.12, "tank": 0.09}
BAGS = {"": 0.5, "rucksack": 0.18, "shoulder": 0.15, "hand": 0.11, "trolley": 0.06}
LONG_SLEEVE = 4.4  # decimetres from the middle, along the arms at rest


@dataclass(frozen=True)
class Top:
    kind: str  # a key of TOPS
    sleeve: float  # decimetres from the middle to the sleeve's end
    hem: float  # height of the lower edge; template decimetres
    neck: float
    loose: float  # metres off the body
    smooth: int  # times that folds of the body are smoothed away
    coat: float | None  # height of a coat's lower edge
    hood: bool
    material: Cloth
    under: Cloth  # visible where a jacket is open
    open: float  # decimetres of an open front, 0: closed
    scarf: bool


@dataclass(frozen=True)
class Bottom:
    kind: str  # trousers, shorts or skirt
    hem: float
    loose: float
    flare: float
    tights: bool
    material: Cloth


@dataclass(frozen=True)
class Head:
    hair: Hair
    thick: float  # metres of hair; 0: bald
    nape: float  # height of the hair's lower edge behind
    long: float | None  # height of long hair's lower edge
    knot: str  # "", "bun" or "tail"
    hat: str  # "", "cap", "beanie", "scarf"
    cloth: Cloth  # of the hat
    glasses: bool


@dataclass(frozen=True)
class Look:
    phenotype: tuple[tuple[str, float], ...]  # anny's, by name
    skin: Skin
    eye: Eye
    head: Head
    top: Top
    bottom: Bottom
    shoe: Shoe
    tights: Plain
    bag: str  # a key of BAGS
    bag_material: Plain
    bag_size: float


def cloth_color(rng: np.random.Generator) -> Color:
    """Draw a colour of clothes: mostly dark, grey or blue, sometimes bright."""
    kind = rng.random()
    if kind < 0.45:
        value = rng.choice([0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 0.8, 0.92])
        return hsv(rng.random(), rng.uniform(0, 0.12), value)
    if kind < 0.62:
        return hsv(rng.uniform(0.57, 0.67), rng.uniform(0.3, 0.75), rng.uniform(0.12, 0.55))
    if kind < 0.74:
        return hsv(rng.uniform(0.05, 0.12), rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.75))
    return hsv(rng.random(), rng.uniform(0.25, 0.85), rng.uniform(0.2, 0.85))


def cloth(
    rng: np.random.Generator, plain: float = 0.0, color: Color | None = None, front: str = ""
) -> Cloth:
    """Draw a cloth. plain: probability of no pattern, in addition to that in PATTERNS."""
    names = list(PATTERNS)
    pattern = "plain" if rng.random() < plain else rng.choice(names, p=list(PATTERNS.values()))
    own = cloth_color(rng)
    return Cloth(
        own if color is None else color,
        cloth_color(rng),
        str(pattern),
        tuple(rng.random(6).tolist()),
        float(rng.uniform(0.35, 0.95)),
        float(rng.uniform(0, 60)),
        front,
        float(rng.uniform(0, 0.5)),
    )


def _phenotype(rng: np.random.Generator, woman: bool, child: bool) -> dict[str, float]:
    races = rng.dirichlet([0.6, 0.6, 0.6])
    return {
        "gender": float(np.clip(rng.normal(0.92 if woman else 0.08, 0.07), 0, 1)),
        "age": float(rng.uniform(0.25, 0.42) if child else rng.uniform(0.55, 0.95)),
        "muscle": float(rng.uniform(0.3, 0.7)),
        "weight": float(np.clip(rng.normal(0.52, 0.17), 0.2, 0.95)),
        "height": float(np.clip(rng.normal(0.4 - 0.04 * (not woman), 0.07), 0.24, 0.58)),
        "proportions": float(rng.uniform(0.4, 0.85)),
        "cupsize": float(rng.uniform(0.3, 0.7)),
        "african": float(races[0]),
        "asian": float(races[1]),
        "caucasian": float(races[2]),
    }


def _top(rng: np.random.Generator, skirt: bool) -> Top:
    kind = str(rng.choice(list(TOPS), p=list(TOPS.values())))
    sleeve = {"tee": rng.uniform(2.2, 2.9), "tank": 1.72}.get(kind, LONG_SLEEVE)
    if kind == "shirt" and rng.random() < 0.35:
        sleeve = rng.uniform(2.6, 3.4)
    loose = {"tee": 0.010, "tank": 0.004, "shirt": 0.012}.get(kind, 0.024) * rng.uniform(0.7, 1.5)
    outer = kind in ("jacket", "hoodie", "coat")
    front = {"shirt": "buttons", "jacket": "zip", "coat": "buttons"}.get(kind, "")
    tucked = not outer and rng.random() < (0.8 if skirt else 0.2)
    return Top(
        kind,
        float(sleeve),
        1.0 if tucked else float(rng.uniform(-0.7, 0.25)),
        5.6 if kind == "tank" else float(rng.uniform(5.8, 6.15)),
        float(loose),
        7 if outer else 3,
        float(rng.uniform(-4.8, -1.8)) if kind == "coat" else None,
        kind == "hoodie" or (outer and rng.random() < 0.15),
        cloth(rng, 0.5 if outer else 0.0, None, front),
        cloth(rng, 0.5),
        float(rng.uniform(0.2, 0.6)) if outer and rng.random() < 0.5 else 0.0,
        bool(outer and rng.random() < 0.2),
    )


def _bottom(rng: np.random.Generator, woman: bool) -> Bottom:
    kind = "trousers"
    if woman and rng.random() < 0.33:
        kind = "skirt"
    elif rng.random() < 0.2:
        kind = "shorts"
    hem = {
        "trousers": -7.75 if rng.random() < 0.8 else rng.uniform(-7.4, -6.2),
        "shorts": rng.uniform(-4.4, -2.4),
        "skirt": rng.uniform(-6.6, -2.6),
    }[kind]
    jeans = hsv(rng.uniform(0.56, 0.65), rng.uniform(0.2, 0.65), rng.uniform(0.08, 0.55))
    return Bottom(
        kind,
        float(hem),
        float(rng.uniform(0.003, 0.018)),
        float(rng.choice([0.0, 0.01, 0.03, 0.05])),
        bool(rng.random() < 0.4),
        cloth(rng, 0.35 if kind == "skirt" else 0.93, jeans if rng.random() < 0.45 else None),
    )


def _head(rng: np.random.Generator, woman: bool, hair: Color) -> Head:
    bald = not woman and rng.random() < 0.12
    long = rng.uniform(3.4, 6.4) if rng.random() < (0.6 if woman else 0.06) else None
    knot = str(rng.choice(["", "bun", "tail"], p=[0.4, 0.25, 0.35])) if woman and not long else ""
    hat = ""
    if rng.random() < 0.17:
        hat = str(rng.choice(["cap", "beanie", "scarf"], p=[0.5, 0.35, 0.15]))
    return Head(
        Hair(hair, float(rng.choice([0.0, 0.2, 0.9], p=[0.5, 0.3, 0.2]))),
        0.0 if bald else float(rng.uniform(0.008, 0.034)),
        float(rng.uniform(6.5, 7.05)),
        None if bald or long is None else float(long),
        knot,
        hat,
        cloth(rng, 0.7),
        bool(rng.random() < 0.14),
    )


def draw_look(rng: np.random.Generator) -> Look:
    woman, child = bool(rng.random() < 0.5), bool(rng.random() < 0.06)
    phenotype = _phenotype(rng, woman, child)
    dark = phenotype["african"] + 0.25 * phenotype["asian"]
    value = np.clip(0.88 - 0.55 * dark + rng.normal(0, 0.06), 0.22, 0.95)
    skin = hsv(rng.uniform(0.035, 0.075), np.clip(0.36 + 0.22 * dark, 0.25, 0.7), float(value))
    grey = phenotype["age"] > 0.82 and rng.random() < 0.7
    tone = rng.choice([0.05, 0.09, 0.16, 0.3, 0.5, 0.7], p=[0.3, 0.25, 0.18, 0.13, 0.09, 0.05])
    hair = hsv(
        rng.uniform(0.03, 0.12),
        0.06 if grey else rng.uniform(0.25, 0.7),
        rng.uniform(0.45, 0.85) if grey else float(tone),
    )
    brow = (hair[0] * 0.6, hair[1] * 0.6, hair[2] * 0.6)
    beard = 0.0 if woman or child or rng.random() < 0.6 else float(rng.uniform(0.3, 1.0))
    iris = hsv(rng.choice([0.07, 0.09, 0.3, 0.58], p=[0.45, 0.3, 0.1, 0.15]), 0.5, 0.3)
    shoe = cloth_color(rng) if rng.random() < 0.4 else hsv(0.07, 0.3, rng.uniform(0.05, 0.25))
    bottom = _bottom(rng, woman)
    bag = str(rng.choice(list(BAGS), p=list(BAGS.values())))
    return Look(
        tuple(phenotype.items()),
        Skin(skin, brow, beard, float(rng.random() * (1.0 if woman else 0.4))),
        Eye(iris, (0.31, 7.285)),
        _head(rng, woman, hair),
        _top(rng, bottom.kind == "skirt"),
        bottom,
        Shoe(shoe, hsv(0.1, 0.1, float(rng.choice([0.1, 0.3, 0.85])))),
        Plain(hsv(0.1, 0.2, float(rng.choice([0.05, 0.1, 0.5]))), 0.2, 2.0),
        bag,
        Plain(cloth_color(rng), 0.35, 6.0, 0.02),
        float(rng.uniform(0.8, 1.25)),
    )


def look_of(identity: int, seed: int) -> Look:
    """Return the look of an identity (from 1), or of an unlabelled person (a negative number)."""
    return draw_look(np.random.default_rng([seed, LOOKS, abs(identity), int(identity < 0)]))
