"""The light of a moment: sun, overcast sky, evening, night with lamps, or indoors."""

import math

import numpy as np

from datasets.rendered.light import Light
from datasets.rendered.materials import Color, hsv
from datasets.rendered.site import Site

OUTDOORS = {"sun": 0.44, "overcast": 0.34, "evening": 0.1, "night": 0.12}


def draw_light(site: Site, rng: np.random.Generator) -> Light:
    if site.indoors:
        return _room(site, rng)
    kind = str(rng.choice(list(OUTDOORS), p=list(OUTDOORS.values())))
    draw = {"sun": _sunny, "overcast": _overcast, "evening": _evening, "night": _night}[kind]
    return draw(site, rng)


def _towards(azimuth: float, elevation: float) -> tuple[float, float, float]:
    flat = math.cos(elevation)
    return flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)


def _sunny(site: Site, rng: np.random.Generator) -> Light:
    strong, warm = rng.uniform(1.2, 3.2), rng.uniform(0, 0.25)
    return Light(
        (0.3, 0.42, 0.72),
        (0.75, 0.82, 0.92),
        (0.18, 0.17, 0.15),
        (strong, strong * (0.95 - 0.3 * warm), strong * (0.86 - 0.7 * warm)),
        _towards(rng.uniform(0, 2 * math.pi), rng.uniform(0.35, 1.15)),
        float(rng.uniform(0.006, 0.03)),
        float(rng.uniform(0, 0.7)),
    )


def _overcast(site: Site, rng: np.random.Generator) -> Light:
    white = rng.uniform(0.75, 0.95)
    sky = (white, white * 1.01, white * rng.uniform(0.98, 1.12))
    return Light(sky, (white * 0.95,) * 3, (0.2, 0.2, 0.19), clouds=float(rng.uniform(0.5, 1)))


def _evening(site: Site, rng: np.random.Generator) -> Light:
    strong = rng.uniform(0.3, 1.2)
    return Light(
        (0.2, 0.25, 0.45),
        (0.8, 0.5, 0.35),
        (0.12, 0.1, 0.09),
        (strong, strong * 0.65, strong * 0.35),
        _towards(rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.3)),
        0.02,
        float(rng.uniform(0.2, 0.8)),
    )


def _night(site: Site, rng: np.random.Generator) -> Light:
    dark = rng.uniform(0.02, 0.08)
    x1, x2, y1, y2 = site.area
    count = int(rng.integers(3, 7))
    lamps = [
        (float(rng.uniform(x1, x2)), float(rng.uniform(y1, y2)), float(rng.uniform(3.6, 6.5)))
        for _ in range(count)
    ]
    strong = rng.uniform(3, 9)
    color = hsv(rng.choice([0.08, 0.1, 0.55]), rng.uniform(0.1, 0.55), 1.0)
    return Light(
        (dark * 0.7, dark * 0.8, dark * 1.3),
        (dark, dark, dark),
        (dark * 0.5, dark * 0.5, dark * 0.5),
        lamps=tuple(lamps),
        lamp_color=scaled(color, strong),
        lamp_size=0.25,
    )


def _room(site: Site, rng: np.random.Generator) -> Light:
    fill = rng.uniform(0.12, 0.4)
    color = hsv(rng.choice([0.09, 0.1, 0.55]), rng.uniform(0.02, 0.4), 1.0)
    strong = rng.uniform(0.5, 1.2) * (site.ceiling - 1.0) ** 2
    some = list(site.lamps)
    rng.shuffle(some)
    lamps = tuple(some[: int(rng.integers(2, 6))])
    sky = scaled(color, fill)
    return Light(
        sky,
        sky,
        scaled(sky, 0.7),
        lamps=lamps,
        lamp_color=scaled(color, strong),
        lamp_size=float(rng.uniform(0.2, 0.7)),
        filled=0.35,
    )


def scaled(color: Color, by: float) -> Color:
    r, g, b = color
    return by * r, by * g, by * b
