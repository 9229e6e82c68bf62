"""Kinds of places, built at random: what does not move between the moments of a place."""

import math

import numpy as np

from datasets.rendered import things, vehicles
from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Ground, Patchwork, Plain, Wall, hsv
from datasets.rendered.meshes import box, moved
from datasets.rendered.site import Site
from datasets.rendered.things import facing_wall


def _wall(rng: np.random.Generator, shops: float = 0.5) -> Wall:
    color = hsv(
        rng.choice([0.03, 0.08, 0.11, 0.6]), rng.uniform(0.02, 0.45), rng.uniform(0.35, 0.9)
    )
    apart, storey = rng.uniform(1.6, 3.4), rng.uniform(2.9, 3.8)
    shop = cloth_color(rng) if rng.random() < shops else None
    return Wall(
        color,
        float(rng.uniform(0.4, 1.0)) if rng.random() < 0.45 else 0.0,
        0.0 if rng.random() < 0.7 else float(rng.uniform(1, 3)),
        (float(apart), float(storey), float(rng.uniform(0.3, 0.75))),
        0.0,
        0.0,
        shop,
        float(rng.uniform(0, 90)),
    )


def _paving(rng: np.random.Generator, **more) -> Ground:
    color = hsv(rng.uniform(0.05, 0.6), rng.uniform(0, 0.16), rng.uniform(0.35, 0.75))
    tile = float(rng.uniform(0.2, 1.4)) if rng.random() < 0.7 else 0.0
    return Ground(
        color,
        tile,
        float(rng.uniform(0.45, 0.85)),
        float(rng.uniform(0.05, 0.35)),
        float(rng.uniform(0.15, 0.5)),
        offset=float(rng.uniform(0, 60)),
        **more,
    )


def _buildings(site: Site, x: float, y: float, width: float, angle: float) -> None:
    """A row of houses of `width` whose fronts stand on (x, y) and look along `angle` from -y."""
    rng, along = site.rng, -width / 2
    c, s = math.cos(angle), math.sin(angle)
    while along < width / 2:
        wide, high = rng.uniform(6, 18), rng.uniform(5, 20)
        middle, deep = along + wide / 2, 6 + rng.uniform(-0.8, 0.8)
        at = (x + c * middle - s * deep, y + s * middle + c * deep)
        site.put([box((wide, 12, high), _wall(rng))], *at, angle)
        along += wide + float(rng.choice([0, 0, 2.5]))


def _trees_between(site: Site, area, count: int) -> None:
    site.scatter(things.tree, count, 0.6, area)


def _street_things(site: Site, area, count: int) -> None:
    makers = (
        (things.sign, 0.3), (things.bin_, 0.4), (things.bollard, 0.2), (things.lamp_post, 0.3),
        (things.hydrant, 0.3), (things.planter, 0.5), (vehicles.bicycle, 0.7),
        (vehicles.motorcycle, 0.8), (things.traffic_light, 0.3), (things.dog, 0.5),
        (things.bench, 1.0),
    )  # fmt: skip
    for _ in range(count):
        maker, radius = makers[int(site.rng.integers(len(makers)))]
        site.scatter(maker, 1, radius, area)


def street(rng: np.random.Generator) -> Site:
    """A road along y between pavements and houses."""
    road, side = rng.uniform(2.6, 4.5), rng.uniform(2.5, 4.5)
    site = Site(rng, (-road - side + 0.4, road + side - 0.4, -13, 13))
    asphalt = Ground(
        hsv(0.6, 0.04, rng.uniform(0.28, 0.45)),
        grain=0.35,
        line=float(rng.choice([0.0, 0.06, road * 0.9])),
        offset=float(rng.uniform(0, 50)),
    )
    site.put([box((2 * road, 120, 0.1), asphalt, (0, 0, -0.16))], 0, 0)
    paving = _paving(rng)
    for sign in (1, -1):
        site.put(
            [box((side + 3, 120, 0.2), paving, (0, 0, -0.2))], sign * (road + (side + 3) / 2), 0
        )
        _buildings(site, sign * (road + side), 0, 90, -sign * math.pi / 2)
        kerb = sign * (road - 1.0)
        for y in np.arange(-24, 24, 5.6):
            if rng.random() < 0.5:
                site.put(
                    vehicles.car(rng), kerb, y, math.pi * (sign > 0) + rng.uniform(-0.05, 0.05), 2.0
                )
        edge = sign * (road + 0.5)
        _trees_between(site, (edge - 0.2, edge + 0.2, -26, 26), int(rng.integers(0, 6)))
        _street_things(site, (edge - 0.3, edge + 0.5, -14, 14), int(rng.integers(3, 9)))
    _buildings(site, 0, 52, 60, 0)
    _buildings(site, 0, -52, 60, math.pi)
    return site


def square(rng: np.random.Generator) -> Site:
    """Paving between houses, with what stands about on a square."""
    half = rng.uniform(11, 22)
    site = Site(rng, (-half * 0.75, half * 0.75, -half * 0.75, half * 0.75))
    site.put([box((160, 160, 0.2), _paving(rng), (0, 0, -0.2))], 0, 0)
    for k in range(4):
        angle = k * math.pi / 2
        if rng.random() < 0.8:
            _buildings(
                site, -math.sin(angle) * half * 1.2, math.cos(angle) * half * 1.2, 2.6 * half, angle
            )
        else:
            far = half * 1.3
            at = (-math.sin(angle) * far, math.cos(angle) * far)
            _trees_between(site, (at[0] - 8, at[0] + 8, at[1] - 8, at[1] + 8), 10)
    _street_things(site, site.area, int(rng.integers(5, 14)))
    site.scatter(
        vehicles.bicycle,
        int(rng.integers(0, 7)),
        0.5,
        (-half * 0.6, half * 0.6, half * 0.5, half * 0.6),
        0.4,
    )
    site.scatter(vehicles.car, int(rng.integers(0, 4)), 2.3, (-half, half, half * 0.6, half))
    site.scatter(things.parasol, int(rng.integers(0, 4)), 1.2)
    site.scatter(things.table, int(rng.integers(0, 4)), 0.9)
    site.scatter(things.chair, int(rng.integers(0, 7)), 0.5)
    site.scatter(things.stairs, int(rng.integers(0, 2)), 2.5)
    if rng.random() < 0.3:
        site.scatter(things.fountain, 1, 2.2)
    return site


def park(rng: np.random.Generator) -> Site:
    """Grass and paths under trees."""
    site = Site(rng, (-11, 11, -11, 11))
    color = hsv(rng.uniform(0.08, 0.13), rng.uniform(0.1, 0.4), rng.uniform(0.4, 0.7))
    ground = Ground(
        color, grain=0.35, grass=float(rng.uniform(0.45, 0.62)), offset=float(rng.uniform(0, 60))
    )
    site.put([box((160, 160, 0.2), ground, (0, 0, -0.2))], 0, 0)
    _trees_between(site, (-14, 14, -14, 14), int(rng.integers(3, 8)))
    for k in range(14):
        angle = k * 2 * math.pi / 14 + rng.uniform(-0.2, 0.2)
        far = rng.uniform(15, 30)
        site.put(things.tree(rng), math.cos(angle) * far, math.sin(angle) * far, rng.uniform(0, 6))
    site.scatter(things.bush, int(rng.integers(4, 14)), 0.8)
    site.scatter(things.bench, int(rng.integers(1, 5)), 1.0)
    site.scatter(things.fence, int(rng.integers(0, 4)), 1.8)
    _street_things(site, site.area, int(rng.integers(2, 7)))
    if rng.random() < 0.6:
        _buildings(site, 0, 42, 70, 0)
    return site


def _interior(
    rng: np.random.Generator, wide: float, long: float, high: float, gloss: float
) -> Site:
    """Floor, four walls, ceiling and lamps under it."""
    half_x, half_y = wide / 2, long / 2
    site = Site(rng, (-half_x + 0.5, half_x - 0.5, -half_y + 0.5, half_y - 0.5), True, high)
    floor = _paving(rng, gloss=gloss)
    if rng.random() < 0.3:
        floor = Ground(
            hsv(rng.choice([0.06, 0.08, 0.0, 0.6]), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.7)),
            0.16,
            0.75,
            0.4,
            0.3,
            gloss,
        )
    site.put([box((wide, long, 0.2), floor, (0, 0, -0.2))], 0, 0)
    ceiling = Ground(
        hsv(0.1, 0.04, rng.uniform(0.7, 0.95)), float(rng.choice([0.0, 0.6, 1.2])), 0.8, 0.03, 0.1
    )
    site.put([box((wide, long, 0.2), ceiling, (0, 0, high))], 0, 0)
    color = hsv(
        rng.choice([0.08, 0.11, 0.3, 0.58, 0.02]), rng.uniform(0.02, 0.35), rng.uniform(0.45, 0.95)
    )
    for angle, far, width in (
        (0, half_y, wide),
        (math.pi, half_y, wide),
        (math.pi / 2, half_x, long),
        (-math.pi / 2, half_x, long),
    ):
        own = Wall(
            color,
            0.0,
            float(rng.choice([0.0, 1.2, 2.0])),
            (0.0, 3.0, 0.5),
            0.0,
            float(rng.choice([0.0, 0.12, 0.9])),
            None,
            float(rng.uniform(0, 60)),
        )
        site.put(
            [facing_wall(width, high, own)], -math.sin(angle) * far, math.cos(angle) * far, angle
        )
        _on_wall(site, angle, far, width, high)
    shine = Plain((0.9, 0.9, 0.88), 0.0, 1.0, 0.0, 3.0)
    step = max(2.4, math.sqrt(wide * long / 9))
    for x in np.arange(-half_x + step / 2, half_x, step):
        for y in np.arange(-half_y + step / 2, half_y, step):
            site.meshes.append(moved(box((0.9, 0.25, 0.05), shine), (x, y, high - 0.06)))
            site.lamps.append((float(x), float(y), high - 0.25))
    return site


def _on_wall(site: Site, angle: float, far: float, width: float, high: float) -> None:
    """Doors, pictures, windows, screens and shop fronts on a wall."""
    rng, along = site.rng, -width / 2 + 0.6
    while along < width / 2 - 1.2:
        wide = rng.uniform(0.5, 2.4)
        kind = rng.random()
        middle = along + wide / 2
        if kind < 0.3:
            item = box(
                (0.95, 0.06, 2.05), Plain(cloth_color(rng), 0.25, 3.0, 0.03), (middle, -0.03, 0)
            )
        elif kind < 0.55:
            tall = rng.uniform(0.4, 1.3)
            item = moved(
                things.poster((wide * 0.8, 0.04, tall), rng, float(rng.choice([0.0, 0.0, 1.0]))),
                (middle, -0.03, rng.uniform(1.0, max(1.1, high - tall - 0.2))),
            )
        elif kind < 0.75:
            glass = Plain((0.5, 0.6, 0.7), 0.3, 0.8, 0.15, float(rng.choice([0.0, 1.0, 2.0])))
            item = moved(
                box((wide * 0.85, 0.05, min(1.5, high - 1.2)), glass), (middle, -0.03, 0.9)
            )
        elif high > 3.4 and wide > 1.2:
            goods = Patchwork(cloth_color(rng), cloth_color(rng), 0.3, rng.uniform(0, 50), 0.7)
            item = box((wide * 0.95, 0.08, 2.6), goods, (middle, -0.04, 0))
        else:
            along += wide
            continue
        site.put([item], -math.sin(angle) * far, math.cos(angle) * far, angle)
        along += wide + rng.uniform(0.1, 1.2)


def hall(rng: np.random.Generator) -> Site:
    """A station, a mall or a foyer."""
    wide, long, high = rng.uniform(11, 18), rng.uniform(16, 30), rng.uniform(3.8, 7)
    site = _interior(rng, wide, long, high, float(rng.choice([0.0, 0.05, 0.1, 0.14])))
    for x in (-wide / 4, wide / 4):
        for y in np.arange(-long / 2 + 3, long / 2 - 2, rng.uniform(5, 8)):
            if rng.random() < 0.6:
                site.put(things.column(rng, high), x, y, 0, 0.6)
    for maker, most, radius in (
        (things.bench, 5, 1.0), (things.planter, 4, 0.5), (things.counter, 3, 1.6), (things.bin_, 3, 0.4),
        (things.sign, 3, 0.5), (things.table, 3, 0.9), (things.chair, 6, 0.5), (things.fence, 2, 1.9),
    ):  # fmt: skip
        site.scatter(maker, int(rng.integers(0, most + 1)), radius)
    return site


def shop(rng: np.random.Generator) -> Site:
    """Shelves, clothes on rails, counters."""
    wide, long = rng.uniform(7, 12), rng.uniform(8, 14)
    site = _interior(rng, wide, long, rng.uniform(2.7, 3.6), float(rng.choice([0.0, 0.05, 0.08])))
    edge = wide / 2 - 0.35
    for y in np.arange(-long / 2 + 1.6, long / 2 - 1.5, 2.9):
        for sign in (1, -1):
            if rng.random() < 0.75:
                site.put(things.shelf(rng), sign * edge, y, -sign * math.pi / 2, 1.3)
    for maker, most, radius in (
        (things.garments, 3, 1.0), (things.shelf, 3, 1.3), (things.counter, 2, 1.5),
        (things.table, 3, 0.9), (things.planter, 2, 0.5), (things.sign, 1, 0.5),
    ):  # fmt: skip
        site.scatter(maker, int(rng.integers(0, most + 1)), radius)
    return site


def corridor(rng: np.random.Generator) -> Site:
    """A long, narrow interior."""
    wide, long = rng.uniform(2.6, 4.5), rng.uniform(14, 26)
    site = _interior(rng, wide, long, rng.uniform(2.5, 3.2), float(rng.choice([0.0, 0.06, 0.12])))
    edge = (wide / 2 - 0.5, wide / 2 - 0.3, -long / 2 + 2, long / 2 - 2)
    for maker, most, radius in (
        (things.chair, 3, 0.4),
        (things.planter, 3, 0.4),
        (things.bin_, 2, 0.3),
    ):
        site.scatter(maker, int(rng.integers(0, most + 1)), radius, edge)
    return site


def room(rng: np.random.Generator) -> Site:
    """A living room, a kitchen or an office."""
    wide, long = rng.uniform(5, 8), rng.uniform(5.5, 9)
    site = _interior(rng, wide, long, rng.uniform(2.5, 3.1), float(rng.choice([0.0, 0.0, 0.05])))
    for maker, least, most, radius in (
        (things.sofa, 0, 2, 1.0), (things.table, 1, 2, 0.8), (things.chair, 1, 4, 0.45), (things.shelf, 0, 2, 1.1),
        (things.planter, 0, 3, 0.4), (things.counter, 0, 1, 1.4),
    ):  # fmt: skip
        site.scatter(maker, int(rng.integers(least, most + 1)), radius)
    return site


PLACES = {
    "street": street,
    "square": square,
    "park": park,
    "hall": hall,
    "shop": shop,
    "corridor": corridor,
    "room": room,
}
SHARES = (0.26, 0.22, 0.14, 0.14, 0.08, 0.08, 0.08)
