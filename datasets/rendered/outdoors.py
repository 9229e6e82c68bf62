"""Streets, squares and parks, built at random."""

import math

import numpy as np

from datasets.rendered import furniture, plants, things, vehicles
from datasets.rendered.finishes import paving
from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import hsv
from datasets.rendered.materials_places import Ground, Wall
from datasets.rendered.meshes import box
from datasets.rendered.site import Area, Maker, Site

CLUTTER: tuple[tuple[Maker, float], ...] = (  # objects in streets, and the radius that they need
    (things.sign, 0.3),
    (things.litter_bin, 0.4),
    (things.bollard, 0.2),
    (things.lamp_post, 0.3),
    (things.hydrant, 0.3),
    (plants.planter, 0.5),
    (vehicles.bicycle, 0.7),
    (vehicles.motorcycle, 0.8),
    (things.traffic_light, 0.3),
    (things.dog, 0.5),
    (furniture.bench, 1.0),
)


def _front(rng: np.random.Generator) -> Wall:
    """Return the material of a building's front."""
    color = hsv(
        rng.choice([0.03, 0.08, 0.11, 0.6]), rng.uniform(0.02, 0.45), rng.uniform(0.35, 0.9)
    )
    apart, storey = rng.uniform(1.6, 3.4), rng.uniform(2.9, 3.8)
    shop = cloth_color(rng) if rng.random() < 0.5 else None
    return Wall(
        color,
        brick=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.45 else 0.0,
        panel=0.0 if rng.random() < 0.7 else float(rng.uniform(1, 3)),
        window=(float(apart), float(storey), float(rng.uniform(0.3, 0.75))),
        shop=shop,
        offset=float(rng.uniform(0, 90)),
    )


def _buildings(site: Site, x: float, y: float, width: float, angle: float) -> None:
    """Add a row of buildings of `width` whose fronts are at (x, y) and face -y, rotated by
    `angle`."""
    rng, along = site.rng, -width / 2
    c, s = math.cos(angle), math.sin(angle)
    while along < width / 2:
        wide, high = rng.uniform(6, 18), rng.uniform(5, 20)
        middle, deep = along + wide / 2, 6 + rng.uniform(-0.8, 0.8)
        at = (x + c * middle - s * deep, y + s * middle + c * deep)
        site.put([box((wide, 12, high), _front(rng))], *at, angle)
        along += wide + float(rng.choice([0, 0, 2.5]))


def _clutter(site: Site, area: Area, count: int) -> None:
    for _ in range(count):
        maker, radius = CLUTTER[int(site.rng.integers(len(CLUTTER)))]
        site.scatter(maker, 1, radius, area)


def street(rng: np.random.Generator) -> Site:
    """Return a road along y with pavements, buildings and parked cars on both sides."""
    road, side = rng.uniform(2.6, 4.5), rng.uniform(2.5, 4.5)
    site = Site(rng, (-road - side + 0.4, road + side - 0.4, -13, 13))
    asphalt = Ground(
        hsv(0.6, 0.04, rng.uniform(0.28, 0.45)),
        grain=0.35,
        line=float(rng.choice([0.0, 0.06, road * 0.9])),
        offset=float(rng.uniform(0, 50)),
    )
    site.put([box((2 * road, 120, 0.1), asphalt, (0, 0, -0.16))], 0, 0)
    slabs, wide = paving(rng), side + 3
    for sign in (1, -1):
        site.put([box((wide, 120, 0.2), slabs, (0, 0, -0.2))], sign * (road + wide / 2), 0)
        _buildings(site, sign * (road + side), 0, 90, -sign * math.pi / 2)
        for y in np.arange(-24, 24, 5.6):
            if rng.random() < 0.55:
                parked = vehicles.car(rng)
                angle = math.pi * (sign > 0) + rng.uniform(-0.05, 0.05)
                site.put(parked, sign * (road - 1.0), y, angle, 2.0)
        edge = sign * (road + 0.5)
        trees = int(rng.integers(0, 6))
        site.scatter(plants.tree, trees, 0.6, (edge - 0.2, edge + 0.2, -26, 26))
        _clutter(site, (edge - 0.3, edge + 0.5, -14, 14), int(rng.integers(4, 13)))
    if rng.random() < 0.4:
        site.put(vehicles.bus(rng), rng.uniform(-0.5, 0.5), rng.choice([-17, 17]), 0.0, 4.0)
    _buildings(site, 0, 52, 60, 0)
    _buildings(site, 0, -52, 60, math.pi)
    return site


def square(rng: np.random.Generator) -> Site:
    """Return a paved square between buildings or trees, with typical objects."""
    half = rng.uniform(11, 22)
    site = Site(rng, (-half * 0.75, half * 0.75, -half * 0.75, half * 0.75))
    site.put([box((160, 160, 0.2), paving(rng), (0, 0, -0.2))], 0, 0)
    for angle in (0, math.pi / 2, math.pi, 3 * math.pi / 2):
        x, y = -math.sin(angle) * half, math.cos(angle) * half
        if rng.random() < 0.8:
            _buildings(site, 1.2 * x, 1.2 * y, 2.6 * half, angle)
        else:
            x, y = 1.3 * x, 1.3 * y
            site.scatter(plants.tree, 10, 0.6, (x - 8, x + 8, y - 8, y + 8))
    _clutter(site, site.area, int(rng.integers(6, 20)))
    edge = (-half * 0.6, half * 0.6, half * 0.5, half * 0.6)
    site.scatter(vehicles.bicycle, int(rng.integers(0, 7)), 0.5, edge, 0.4)
    site.scatter(vehicles.car, int(rng.integers(0, 4)), 2.3, (-half, half, half * 0.6, half))
    site.scatter(things.parasol, int(rng.integers(0, 4)), 1.2)
    site.scatter(furniture.table, int(rng.integers(0, 4)), 0.9)
    site.scatter(furniture.chair, int(rng.integers(0, 7)), 0.5)
    site.scatter(things.stairs, int(rng.integers(0, 2)), 2.5)
    if rng.random() < 0.3:
        site.scatter(things.fountain, 1, 2.2)
    return site


def park(rng: np.random.Generator) -> Site:
    """Return grass and paths under trees."""
    site = Site(rng, (-11, 11, -11, 11))
    ground = Ground(
        hsv(rng.uniform(0.08, 0.13), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.7)),
        grain=0.35,
        grass=float(rng.uniform(0.45, 0.62)),
        offset=float(rng.uniform(0, 60)),
    )
    site.put([box((160, 160, 0.2), ground, (0, 0, -0.2))], 0, 0)
    site.scatter(plants.tree, int(rng.integers(3, 8)), 0.6, (-14, 14, -14, 14))
    for k in range(14):
        angle, far = k * 2 * math.pi / 14 + rng.uniform(-0.2, 0.2), rng.uniform(15, 30)
        at = (math.cos(angle) * far, math.sin(angle) * far)
        site.put(plants.tree(rng), *at, rng.uniform(0, 6))
    site.scatter(plants.bush, int(rng.integers(4, 14)), 0.8)
    site.scatter(furniture.bench, int(rng.integers(1, 5)), 1.0)
    site.scatter(things.fence, int(rng.integers(0, 4)), 1.8)
    _clutter(site, site.area, int(rng.integers(2, 7)))
    if rng.random() < 0.6:
        _buildings(site, 0, 42, 70, 0)
    return site
