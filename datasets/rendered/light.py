"""The light of a sky, a sun and lamps, and the share of it that reaches a surface. Values are
linear."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered import noise
from datasets.rendered.meshes import unit
from datasets.rendered.raycast import Tracer

OPEN_REACH = 3.0  # metres within which surfaces shade each other
SKY_RAYS = 2  # for a point, to estimate the visible share of the sky
Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    sky: Rgb  # from above
    horizon: Rgb
    bounce: Rgb  # from below
    sun: Rgb = (0.0, 0.0, 0.0)
    towards_sun: tuple[float, float, float] = (0.0, 0.0, 1.0)
    sun_width: float = 0.01  # radians: how soft shadows are
    clouds: float = 0.0
    lamps: tuple[tuple[float, float, float], ...] = ()  # places
    lamp_color: Rgb = (0.0, 0.0, 0.0)  # light at a metre's distance
    lamp_size: float = 0.2  # metres
    filled: float = 0.25  # share of the light of the sky that reaches closed corners

    def seen_sky(self, directions: np.ndarray) -> np.ndarray:
        """Return the brightness of the sky itself in unit directions [n, 3]: [n, 3]."""
        up = np.clip(directions[:, 2:], 0, 1)
        colors = np.asarray(self.horizon) * (1 - up**0.5) + np.asarray(self.sky) * up**0.5
        if self.clouds:
            flat = directions[:, :2] / (directions[:, 2:] + 0.25)
            points = np.column_stack([flat * 3.0, np.full(len(flat), self.clouds * 7)])
            cover = np.clip((noise.cloudy(points) - 0.75 + 0.5 * self.clouds) * 4, 0, 1)
            white = 1.25 * np.mean(self.horizon)
            colors = colors + cover[:, None] * (white - colors)
        return colors.astype(np.float32)

    def around(self, normals: np.ndarray) -> np.ndarray:
        """Return the light from sky and ground on an unobstructed surface with unit normals [n, 3]:
        [n, 3]."""
        up = 0.5 + 0.5 * normals[:, 2:]
        level = np.clip(1 - np.abs(normals[:, 2:]), 0, 1) * 0.5
        above = np.asarray(self.sky) * (1 - level) + np.asarray(self.horizon) * level
        return (above * up + np.asarray(self.bounce) * (1 - up)).astype(np.float32)

    def visibility(
        self, tracer: Tracer, points: np.ndarray, normals: np.ndarray, rng
    ) -> np.ndarray:
        """Estimate, with noise, the visible share of sky, lamps and sun at points [n, 3]: [n,
        3]."""
        seen = np.zeros((len(points), 3), np.float32)
        for _ in range(SKY_RAYS):
            way = unit(normals + _sphere(rng, len(points)))
            reach = np.full(len(points), OPEN_REACH) * rng.random(len(points)) ** 0.5
            seen[:, 0] += ~tracer.blocked(points, way, reach) / SKY_RAYS
        if self.lamps:
            seen[:, 1] = self._lamp_visible(tracer, points, normals, rng)
        if any(self.sun):
            seen[:, 2] = self._sun_visible(tracer, points, normals, rng)
        return seen

    def _sun_visible(self, tracer, points, normals, rng) -> np.ndarray:
        way = np.asarray(self.towards_sun, np.float32)
        visible = np.zeros(len(points), np.float32)
        facing = np.flatnonzero(normals @ way > 0)
        jittered = way + _sphere(rng, len(facing)) * self.sun_width
        visible[facing] = ~tracer.blocked(points[facing], jittered)
        return visible

    def _lamp_visible(self, tracer, points, normals, rng) -> np.ndarray:
        """Draw one lamp for each point, with a probability in proportion to its light there, and
        return whether it is visible."""
        gains, ways, far = self._lamps_at(points, normals)
        total = gains.cumsum(1)
        drawn = (total < rng.random((len(points), 1)) * total[:, -1:]).sum(1)
        drawn = np.minimum(drawn, len(self.lamps) - 1)
        rows = np.arange(len(points))
        reach = far[rows, drawn]
        way = ways[rows, drawn] * reach[:, None] + _sphere(rng, len(points)) * self.lamp_size
        way = unit(way)
        lit = np.flatnonzero(total[:, -1] > 0)
        visible = np.zeros(len(points), np.float32)
        reach = np.maximum(reach[lit] - 0.35, 0.01)
        visible[lit] = ~tracer.blocked(points[lit], way[lit], reach)
        return visible

    def _lamps_at(self, points: np.ndarray, normals: np.ndarray):
        """Return gains [n, L], unit directions [n, L, 3] and distances [n, L] of L lamps as seen
        from n points."""
        ways = np.asarray(self.lamps, np.float32)[None] - points[:, None]
        far = np.sqrt(np.einsum("nlk,nlk->nl", ways, ways))
        ways /= np.maximum(far, 1e-6)[..., None]
        facing = np.clip(np.einsum("nlk,nk->nl", ways, normals), 0, 1)
        return facing / np.maximum(far, 0.4) ** 2, ways, far

    def arriving(
        self, points: np.ndarray, normals: np.ndarray, visibility: np.ndarray
    ) -> np.ndarray:
        """Return the light that reaches points [n, 3] with the visibility [n, 3]: [n, 3]."""
        share = self.filled + (1 - self.filled) * visibility[:, :1]
        total = self.around(normals) * share
        if any(self.sun):
            facing = np.clip(normals @ np.asarray(self.towards_sun, np.float32), 0, 1)
            total += (facing * visibility[:, 2])[:, None] * np.asarray(self.sun, np.float32)
        if self.lamps:
            gains = self._lamps_at(points, normals)[0].sum(1) * visibility[:, 1]
            total += gains[:, None] * np.asarray(self.lamp_color, np.float32)
        return total


def _sphere(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return random unit vectors [count, 3] float32."""
    up = rng.random(count, np.float32) * 2 - 1
    way = rng.random(count, np.float32) * np.float32(2 * np.pi)
    flat = np.sqrt(np.maximum(1 - up * up, 0))
    return np.stack([flat * np.cos(way), flat * np.sin(way), up], 1)
