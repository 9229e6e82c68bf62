"""Materials of people: cloth, skin, eyes, hair and shoes, in rest coordinates (decimetres)."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered import noise
from datasets.rendered.materials import Color, Surface, bent

PATTERNS = {
    "plain": 0.45,
    "bars": 0.1,
    "pinstripe": 0.04,
    "check": 0.08,
    "block": 0.1,
    "sleeves": 0.07,
    "print": 0.11,
    "blotches": 0.05,
}


@dataclass(frozen=True)
class Cloth:
    """Woven cloth in a body's rest coordinates (decimetres): a pattern of two colours and folds."""

    color: Color
    second: Color
    pattern: str = "plain"  # a key of PATTERNS
    shape: tuple[float, ...] = (0.5,) * 6  # in 0..1: widths and places within the pattern
    fold: float = 0.6  # how deep folds are
    offset: float = 0.0  # where in the noise: no two garments fold alike
    front: str = ""  # "zip" or "buttons"
    heather: float = 0.1  # how much threads differ

    def shade(self, rest, normals):
        mask = self._pattern(rest)[:, None]
        color, second = np.asarray(self.color, "f4"), np.asarray(self.second, "f4")
        albedo = color * (1 - mask) + second * mask
        moved = rest + self.offset
        warp = np.stack([noise.smooth(moved * 0.6 + k) for k in (0.0, 9.0, 31.0)], 1) * 1.6

        def height(p):
            return noise.smooth(p * (0.9, 0.55, 0.9) + warp)

        normals, here = bent(normals, height, moved, 1.5 * self.fold, 0.15)
        worn = 0.85 + 0.13 * noise.cloudy(moved * 2.0) + 0.16 * (here - 0.6)
        worn *= 1 - self.heather * noise.smooth(moved * 17)
        if self.front:
            worn *= self._closing(rest)
        return Surface((albedo * worn[:, None]).astype("f4"), normals, 0.0, 0.0)

    def _closing(self, rest: np.ndarray) -> np.ndarray:
        """Return how much a zip or a strip of buttons darkens the front, [n]."""
        x, y, z = rest.T
        ahead = (z > 0.2) & (np.abs(x) < 0.2)
        if self.front == "zip":
            return np.where(ahead & (np.abs(x) < 0.04), 0.45, 1.0)
        edge = ahead & (np.abs(np.abs(x) - 0.16) < 0.018)
        button = ahead & (np.hypot(x, np.mod(y, 0.9) - 0.45) < 0.06)
        return np.where(button, 2.2 if self.color[1] < 0.3 else 0.4, np.where(edge, 0.7, 1.0))

    def _pattern(self, rest: np.ndarray) -> np.ndarray:
        """Return the share of the second colour [n]."""
        x, y, z = rest.T
        a, b, c, d, e, f = self.shape
        if self.pattern == "bars":
            return (np.mod(y / (0.3 + 0.9 * a), 1) < 0.25 + 0.35 * b).astype("f4")
        if self.pattern == "pinstripe":
            return (np.mod(x / (0.2 + 0.5 * a), 1) < 0.15 + 0.3 * b).astype("f4")
        if self.pattern == "check":
            u, v = np.mod(x / (0.3 + 0.6 * a), 1) < 0.5, np.mod(y / (0.3 + 0.6 * a), 1) < 0.5
            return 0.5 * u + 0.5 * v
        if self.pattern == "block":
            return (y < 2.0 + 2.6 * a).astype("f4")
        if self.pattern == "sleeves":
            return (np.abs(x) > 1.75).astype("f4")
        if self.pattern == "print":
            inside = (np.abs(x - (a - 0.5)) < 0.25 + 0.7 * b) & (np.abs(y - 3 - 1.2 * c) < 0.2 + d)
            return (inside & (z > 0) & (noise.smooth(rest * (2 + 4 * e) + f) > 0.45)).astype("f4")
        if self.pattern == "blotches":
            return (noise.cloudy(rest * (1 + 2 * a) + 9 * b) > 0.5).astype("f4")
        return np.zeros(len(rest), "f4")


@dataclass(frozen=True)
class Skin:
    """Skin with lips, brows and shadows of the face, in rest coordinates (decimetres)."""

    color: Color
    brow: Color
    beard: float = 0.0  # 0: shaved, 1: full
    lips: float = 0.5  # how red

    def shade(self, rest, normals):
        x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
        skin = np.asarray(self.color, np.float32)
        albedo = skin * (0.88 + 0.24 * noise.cloudy(rest * 5))[:, None]
        front = z > 0.9

        def blend(share, color):
            share = np.clip(share, 0, 1)[:, None]
            albedo[:] = albedo * (1 - share) + np.asarray(color, np.float32) * share

        cheek = front * np.exp(-(((x - 0.42) / 0.22) ** 2) - ((y - 7.0) / 0.2) ** 2)
        blend(0.2 * cheek, skin * (1.1, 0.7, 0.65))
        brow = front * (1.4 - ((x - 0.33) / 0.23) ** 2 - ((y - 7.53 + 0.1 * x) / 0.055) ** 2)
        blend(0.85 * np.clip(brow, 0, 1), self.brow)
        lips = front * (1.5 - (x / 0.26) ** 2 - ((y - 6.72) / 0.085) ** 2)
        blend((0.35 + 0.5 * self.lips) * np.clip(lips, 0, 1), skin * (0.8, 0.38, 0.38))
        if self.beard:
            chin = (z > 0.5) * np.clip(3 * (6.95 - y + 0.5 * (x - 0.3)), 0, 1) * (y > 6.2)
            chin *= (np.abs(lips) > 1.0) | (lips <= 0)
            grain = 0.6 + 0.8 * noise.smooth(rest * 14)
            blend(self.beard * chin * grain * 0.9, self.brow)
        return Surface(albedo.astype("f4"), normals, 0.03, 0.0)


@dataclass(frozen=True)
class Eye:
    """An eyeball whose iris faces the z axis of the rest coordinates. middle: the iris's centre (x,
    y)."""

    iris: Color
    middle: tuple[float, float]

    def shade(self, rest, normals):
        away = np.hypot(np.abs(rest[:, 0]) - self.middle[0], rest[:, 1] - self.middle[1])
        albedo = np.full((len(rest), 3), 0.6, "f4")
        albedo[away < 0.062] = self.iris
        albedo[away < 0.03] = 0.01
        return Surface(albedo, normals, 0.08, 0.0)


@dataclass(frozen=True)
class Shoe:
    """A shoe with its sole, in a body's rest coordinates (decimetres)."""

    color: Color
    sole: Color

    def shade(self, rest, normals):
        low = (rest[:, 1] < -8.0)[:, None]
        albedo = np.where(low, np.asarray(self.sole, "f4"), np.asarray(self.color, "f4"))
        albedo = albedo * (0.75 + 0.3 * noise.cloudy(rest * 5))[:, None]
        laces = (rest[:, 2] > 0.3) & (np.abs(np.abs(rest[:, 0]) - 2.3) < 0.12) & ~low[:, 0]
        albedo[laces & (np.mod(rest[:, 2], 0.16) < 0.06)] *= 1.8
        return Surface(albedo.astype("f4"), normals, 0.02, 0.0)


@dataclass(frozen=True)
class Hair:
    """Strands that run down the head; rest coordinates in decimetres."""

    color: Color
    curl: float = 0.3

    def shade(self, rest, normals):
        def strands(p):
            return noise.smooth(p * (9, 1.2 + 8 * self.curl, 9))

        normals, here = bent(normals, strands, rest, 0.09, 0.04)
        tone = 0.35 + 0.9 * here * (0.6 + 0.6 * noise.smooth(rest * 2))
        return Surface((tone[:, None] * np.asarray(self.color)).astype("f4"), normals, 0.015, 0.0)
