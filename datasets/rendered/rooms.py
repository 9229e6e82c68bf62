"""Halls, shops, corridors and rooms, built at random."""

import math
from collections.abc import Sequence

import numpy as np

from datasets.rendered import furniture, plants, things
from datasets.rendered.finishes import paving
from datasets.rendered.looks import cloth_color
from datasets.rendered.materials import Plain, hsv
from datasets.rendered.materials_places import Ground, Patchwork, Wall
from datasets.rendered.meshes import Mesh, box, moved
from datasets.rendered.site import Maker, Site

SHINE = Plain((0.9, 0.9, 0.88), 0.0, 1.0, 0.0, 3.0)  # of lamps under a ceiling


def _interior(
    rng: np.random.Generator, wide: float, long: float, high: float, gloss: float
) -> Site:
    """Return a floor, four walls, a ceiling and lamps under it. gloss: of the floor."""
    half_x, half_y = wide / 2, long / 2
    site = Site(rng, (-half_x + 0.5, half_x - 0.5, -half_y + 0.5, half_y - 0.5), True, high)
    site.put([box((wide, long, 0.2), _floor(rng, gloss), (0, 0, -0.2))], 0, 0)
    white = hsv(0.1, 0.04, rng.uniform(0.7, 0.95))
    ceiling = Ground(white, float(rng.choice([0.0, 0.6, 1.2])), 0.8, 0.03, 0.1)
    site.put([box((wide, long, 0.2), ceiling, (0, 0, high))], 0, 0)
    color = hsv(
        rng.choice([0.08, 0.11, 0.3, 0.58, 0.02]), rng.uniform(0.02, 0.25), rng.uniform(0.45, 0.95)
    )
    turns = ((0, half_y), (math.pi, half_y), (math.pi / 2, half_x), (-math.pi / 2, half_x))
    for angle, far in turns:
        width = wide if far == half_y else long
        own = Wall(
            color,
            panel=float(rng.choice([0.0, 1.2, 2.0])),
            skirting=float(rng.choice([0.0, 0.12, 0.9])),
            offset=float(rng.uniform(0, 60)),
        )
        meshes = [things.facing_wall(width, high, own), *_on_wall(rng, width, high)]
        site.put(meshes, -math.sin(angle) * far, math.cos(angle) * far, angle)
    step = max(2.4, math.sqrt(wide * long / 9))
    for x in np.arange(-half_x + step / 2, half_x, step):
        for y in np.arange(-half_y + step / 2, half_y, step):
            site.meshes.append(moved(box((0.9, 0.25, 0.05), SHINE), (x, y, high - 0.06)))
            site.lamps.append((float(x), float(y), high - 0.25))
    return site


def _floor(rng: np.random.Generator, gloss: float) -> Ground:
    floor = paving(rng, gloss)
    if rng.random() < 0.3:  # boards or a carpet
        color = hsv(
            rng.choice([0.06, 0.08, 0.0, 0.6]), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.7)
        )
        floor = Ground(color, 0.16, 0.75, 0.4, 0.3, gloss)
    return floor


def _on_wall(rng: np.random.Generator, width: float, high: float) -> list[Mesh]:
    """Put doors, posters, windows, screens and shop windows on a wall that faces -y."""
    meshes, along = [], -width / 2 + 0.6
    while along < width / 2 - 1.2:
        wide = rng.uniform(0.5, 2.4)
        item = _wall_item(rng, along + wide / 2, wide, high)
        if item is not None:
            meshes.append(item)
            along += rng.uniform(0.1, 1.2)
        along += wide
    return meshes


def _wall_item(rng: np.random.Generator, x: float, wide: float, high: float) -> Mesh | None:
    """Return an object at `x` along a wall, at most `wide` metres wide, or a piece of bare wall."""
    kind = rng.random()
    if kind < 0.3:
        return box((0.95, 0.06, 2.05), Plain(cloth_color(rng), 0.25, 3.0, 0.03), (x, -0.03, 0))
    if kind < 0.55:
        tall = rng.uniform(0.4, 1.3)
        size = (wide * 0.8, 0.04, tall)
        printed = things.poster(size, rng, float(rng.choice([0.0, 0.0, 1.0])))
        return moved(printed, (x, -0.03, rng.uniform(1.0, max(1.1, high - tall - 0.2))))
    if kind < 0.75:
        glass = Plain((0.5, 0.6, 0.7), 0.3, 0.8, 0.15, float(rng.choice([0.0, 1.0, 2.0])))
        return moved(box((wide * 0.85, 0.05, min(1.5, high - 1.2)), glass), (x, -0.03, 0.9))
    if high > 3.4 and wide > 1.2:
        return box((wide * 0.95, 0.08, 2.6), _window_display(rng), (x, -0.04, 0))
    return None


def _window_display(rng: np.random.Generator) -> Patchwork:
    return Patchwork(
        cloth_color(rng),
        cloth_color(rng),
        cell=float(rng.uniform(0.12, 0.5)),
        offset=float(rng.uniform(0, 50)),
        glow=float(rng.uniform(0.1, 0.6)),
        row=float(rng.choice([0.0, 0.5, 0.9])),
        vivid=float(rng.uniform(0.1, 0.6)),
    )


def _furnish(
    site: Site, items: Sequence[tuple[Maker, int, int, float]], area: tuple | None = None
) -> None:
    """Scatter things at random; items: (maker, smallest number, largest number, radius)."""
    for maker, low, high, radius in items:
        site.scatter(maker, int(site.rng.integers(low, high + 1)), radius, area)


def hall(rng: np.random.Generator) -> Site:
    """Return a station, a mall or a foyer."""
    wide, long, high = rng.uniform(11, 18), rng.uniform(16, 30), rng.uniform(3.8, 7)
    site = _interior(rng, wide, long, high, float(rng.choice([0.0, 0.05, 0.1, 0.14])))
    for x in (-wide / 4, wide / 4):
        for y in np.arange(-long / 2 + 3, long / 2 - 2, rng.uniform(5, 8)):
            if rng.random() < 0.6:
                site.put(things.column(rng, high), x, y, 0, 0.6)
    items = (
        (furniture.bench, 0, 5, 1.0),
        (plants.planter, 0, 4, 0.5),
        (furniture.counter, 0, 3, 1.6),
        (things.litter_bin, 0, 3, 0.4),
        (things.sign, 0, 3, 0.5),
        (furniture.table, 0, 3, 0.9),
        (furniture.chair, 0, 6, 0.5),
        (things.fence, 0, 2, 1.9),
    )
    _furnish(site, items)
    return site


def shop(rng: np.random.Generator) -> Site:
    """Return a shop with shelves, clothes rails and counters."""
    wide, long = rng.uniform(7, 12), rng.uniform(8, 14)
    high = rng.uniform(2.7, 3.6)
    site = _interior(rng, wide, long, high, float(rng.choice([0.0, 0.05, 0.08])))
    edge = wide / 2 - 0.35
    for y in np.arange(-long / 2 + 1.6, long / 2 - 1.5, 2.9):
        for sign in (1, -1):
            if rng.random() < 0.75:
                site.put(furniture.shelf(rng), sign * edge, y, -sign * math.pi / 2, 1.3)
    items = (
        (furniture.garments, 0, 3, 1.0),
        (furniture.shelf, 0, 3, 1.3),
        (furniture.counter, 0, 2, 1.5),
        (furniture.table, 0, 3, 0.9),
        (plants.planter, 0, 2, 0.5),
        (things.sign, 0, 1, 0.5),
    )
    _furnish(site, items)
    return site


def corridor(rng: np.random.Generator) -> Site:
    """Return a long, narrow interior."""
    wide, long = rng.uniform(2.6, 4.5), rng.uniform(14, 26)
    high = rng.uniform(2.5, 3.2)
    site = _interior(rng, wide, long, high, float(rng.choice([0.0, 0.06, 0.12])))
    edge = (wide / 2 - 0.5, wide / 2 - 0.3, -long / 2 + 2, long / 2 - 2)
    items = (
        (furniture.chair, 0, 3, 0.4),
        (plants.planter, 0, 3, 0.4),
        (things.litter_bin, 0, 2, 0.3),
    )
    _furnish(site, items, edge)
    return site


def room(rng: np.random.Generator) -> Site:
    """Return a living room, a kitchen or an office."""
    wide, long = rng.uniform(5, 8), rng.uniform(5.5, 9)
    high = rng.uniform(2.5, 3.1)
    site = _interior(rng, wide, long, high, float(rng.choice([0.0, 0.0, 0.05])))
    items = (
        (furniture.sofa, 0, 2, 1.0),
        (furniture.table, 1, 2, 0.8),
        (furniture.chair, 1, 4, 0.45),
        (furniture.shelf, 0, 2, 1.1),
        (plants.planter, 0, 3, 0.4),
        (furniture.counter, 0, 1, 1.4),
    )
    _furnish(site, items)
    return site
