"""The ground of a scene: where things are, and where people and cameras may be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.rendered.meshes import Mesh, moved

TRIES = 40
Area = tuple[float, float, float, float]  # x1 x2 y1 y2 in metres
Maker = Callable[[np.random.Generator], list[Mesh]]


@dataclass
class Site:
    """A place and the objects on it, which `put` adds."""

    rng: np.random.Generator
    area: Area  # where people walk
    indoors: bool = False
    ceiling: float = math.inf
    meshes: list[Mesh] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # x, y, radius
    lamps: list[tuple[float, float, float]] = field(default_factory=list)

    def put(self, meshes: Sequence[Mesh], x: float, y: float, angle: float = 0.0, radius=0.0):
        """Add meshes. With a radius, nothing else is placed near them."""
        self.meshes += [moved(mesh, (x, y, 0), angle) for mesh in meshes]
        if radius:
            self.taken.append((x, y, radius))

    def free(self, x: float, y: float, radius: float) -> bool:
        return all(math.hypot(x - a, y - b) > radius + r for a, b, r in self.taken)

    def find(self, area: Area, radius: float) -> tuple[float, float] | None:
        """Return a free position for an object of this radius, or None if many random ones are
        taken."""
        for _ in range(TRIES):
            x, y = self.rng.uniform(*area[:2]), self.rng.uniform(*area[2:])
            if self.free(x, y, radius):
                return float(x), float(y)
        return None

    def scatter(
        self, maker: Maker, count: int, radius: float, area: Area | None = None, turned: float = 7.0
    ) -> None:
        """Add up to `count` things at random free positions. turned: the range of their angles."""
        for _ in range(count):
            if at := self.find(area or self.area, radius):
                self.put(maker(self.rng), *at, self.rng.uniform(-turned / 2, turned / 2), radius)
