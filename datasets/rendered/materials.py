"""What surfaces look like: colours and fine structure as functions of a surface's rest coordinates.

Colours are linear light, 0..1. Every material gives, for n points, an albedo [n, 3], normals [n, 3],
a gloss [n] (the share of light that is mirrored when seen straight on) and a glow [n, 3] (light that
the surface sends out itself).
"""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from datasets.rendered import noise

Color = tuple[float, float, float]


class Surface(NamedTuple):
    albedo: np.ndarray  # [n, 3] float32
    normals: np.ndarray  # [n, 3] float32
    gloss: np.ndarray | float  # [n], or one for all
    glow: np.ndarray | float  # [n, 3], or one for all


class Material(Protocol):
    def shade(self, rest: np.ndarray, normals: np.ndarray) -> Surface:
        """The surface at rest coordinates [n, 3] with unit normals [n, 3]."""


def linear(srgb: np.ndarray | tuple) -> np.ndarray:
    """sRGB in 0..1 -> linear light, float32. Source: IEC 61966-2-1."""
    value = np.asarray(srgb, np.float32)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def hsv(hue: float, saturation: float, value: float) -> Color:
    """A linear colour of hue, saturation and value in 0..1 (sRGB)."""
    r, g, b = linear(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)).tolist()
    return r, g, b


def bent(normals: np.ndarray, height, points: np.ndarray, strength: float, step: float):
    """Normals [n, 3] tilted as if `height` (points [n, 3] -> [n]) stood out of the surface."""
    here = height(points)
    slope = np.stack([height(points + step * axis) - here for axis in np.eye(3, dtype="f4")], 1)
    slope = slope * (strength / step)
    slope -= normals * np.einsum("ij,ij->i", slope, normals)[:, None]
    tilted = normals - slope
    tilted /= np.sqrt(np.einsum("ij,ij->i", tilted, tilted))[:, None]
    return tilted.astype(np.float32), here


@dataclass(frozen=True)
class Plain:
    """One colour with blotches: paint, metal, wood, plastic."""

    color: Color
    mottle: float = 0.2  # share by which blotches darken
    scale: float = 3.0  # blotches per unit
    gloss: float = 0.0
    glow: float = 0.0

    def shade(self, rest, normals):
        tone = 1 - self.mottle * noise.cloudy(rest * self.scale)
        albedo = tone[:, None] * np.asarray(self.color, np.float32)
        return Surface(albedo, normals, self.gloss, albedo * self.glow if self.glow else 0.0)


@dataclass(frozen=True)
class Leaves:
    """Foliage: every leaf and every clump has its own green."""

    color: Color
    offset: float = 0.0

    def shade(self, rest, normals):
        clump = noise.smooth(rest * 1.5 + self.offset)
        leaf = noise.scatter(*np.floor(rest * 18).T)
        tone = 0.35 + 0.9 * clump * (0.5 + leaf)
        tint = np.stack([0.85 + 0.5 * clump, np.ones_like(clump), 0.7 + 0.3 * leaf], 1)
        return Surface(
            (tone[:, None] * tint * np.asarray(self.color)).astype("f4"), normals, 0.0, 0.0
        )


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
        """How dark a zip, or a strip of buttons, is down the front [n]."""
        x, y, z = rest.T
        ahead = (z > 0.2) & (np.abs(x) < 0.2)
        if self.front == "zip":
            return np.where(ahead & (np.abs(x) < 0.04), 0.45, 1.0)
        edge = ahead & (np.abs(np.abs(x) - 0.16) < 0.018)
        button = ahead & (np.hypot(x, np.mod(y, 0.9) - 0.45) < 0.06)
        return np.where(button, 2.2 if self.color[1] < 0.3 else 0.4, np.where(edge, 0.7, 1.0))

    def _pattern(self, rest: np.ndarray) -> np.ndarray:
        """The share of the second colour [n]."""
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
    """An eyeball whose iris looks along the rest coordinates' z; `middle`: of the iris (x, y)."""

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


@dataclass(frozen=True)
class Ground:
    """Paving, asphalt, grass or a floor in metres."""

    color: Color
    tile: float = 0.0  # metres of a slab, 0: none
    joint: float = 0.6  # brightness of joints
    spread: float = 0.15  # by which slabs differ
    grain: float = 0.3
    gloss: float = 0.0
    grass: float = 0.0  # share of grass in patches
    line: float = 0.0  # metres from the y axis to a painted line on either side, 0: none
    offset: float = 0.0

    def shade(self, rest, normals):
        flat = rest * np.array([1, 1, 0], "f4") + self.offset
        tone = 1 - self.grain * (
            0.5 * noise.cloudy(flat * 0.45)
            + 0.3 * noise.smooth(flat * 3.1)
            + 0.2 * noise.smooth(flat * 27)
        )
        if self.tile:
            tone *= self._tiles(rest)
        albedo = tone[:, None] * np.asarray(self.color, np.float32)
        if self.grass:
            patch = noise.cloudy(flat * 0.25 + 5) < self.grass
            blades = 0.4 + 0.5 * noise.smooth(flat * 21) + 0.4 * noise.cloudy(flat * 2)
            albedo[patch] = (blades[:, None] * np.array([0.09, 0.14, 0.035]))[patch]
        if self.line:
            painted = (np.abs(np.abs(rest[:, 0]) - self.line) < 0.08) & (np.mod(rest[:, 1], 4) < 2)
            albedo[painted] = 0.6 * tone[painted, None]
        return Surface(albedo.astype("f4"), normals, self.gloss, 0.0)

    def _tiles(self, rest: np.ndarray) -> np.ndarray:
        row = np.floor(rest[:, 1] / self.tile)
        column = rest[:, 0] / self.tile + 0.5 * np.mod(row, 2)
        inside = np.maximum(
            np.abs(np.mod(column, 1) - 0.5), np.abs(np.mod(rest[:, 1] / self.tile, 1) - 0.5)
        )
        tone = 1 + self.spread * (noise.scatter(np.floor(column), row) - 0.5)
        return np.where(inside > 0.482, self.joint, tone).astype("f4")


@dataclass(frozen=True)
class Wall:
    """A wall in metres along x + y and z: bricks, panels, windows, a row of shops below."""

    color: Color
    brick: float = 0.0  # strength of a brick pattern
    panel: float = 0.0  # metres between vertical joints, 0: none
    window: tuple[float, float, float] = (0.0, 3.0, 0.5)  # metres apart, storey, share; 0: none
    lit: float = 0.0  # how bright lit windows are
    skirting: float = 0.0  # metres of a darker foot
    shop: Color | None = None
    offset: float = 0.0

    def shade(self, rest, normals):
        along, up = rest[:, 0] + rest[:, 1] + self.offset, rest[:, 2]
        tone = 0.8 + 0.25 * noise.cloudy(rest * 0.7 + self.offset) - 0.1 * noise.smooth(rest * 9)
        if self.brick:
            row = np.floor(up * 13)
            column = np.floor(along * 4.2 + 0.5 * np.mod(row, 2))
            tone *= 1 - self.brick * 0.5 * noise.scatter(column, row)
            tone *= 1 - 0.4 * self.brick * (np.mod(up * 13, 1) < 0.14)
        if self.panel:
            tone *= 1 - 0.45 * (np.mod(along / self.panel, 1) < 0.02 / self.panel)
        albedo = tone[:, None] * np.asarray(self.color, np.float32)
        if self.skirting:
            albedo[up < self.skirting] *= 0.35
        gloss, glow = np.zeros(len(rest), "f4"), np.zeros((len(rest), 3), "f4")
        if self.window[0]:
            self._windows(along, up, albedo, gloss, glow)
        return Surface(albedo.astype("f4"), normals, gloss, glow)

    def _windows(self, along, up, albedo, gloss, glow) -> None:
        apart, storey, share = self.window
        column, floor = np.floor(along / apart), np.floor(up / storey)
        u, v = np.mod(along / apart, 1), np.mod(up / storey, 1)
        pane = (np.abs(u - 0.5) < share / 2) & (np.abs(v - 0.52) < 0.29)
        frame = (np.abs(u - 0.5) < share / 2 + 0.04) & (np.abs(v - 0.52) < 0.33) & ~pane
        if self.shop is not None:
            below = floor == 0
            pane = np.where(below, (np.abs(u - 0.5) < 0.46) & (np.abs(v - 0.4) < 0.36), pane)
            board = below & (v > 0.8) & (v < 0.97)
            letters = noise.smooth(np.stack([along * 4, up * 2.5, up * 0], 1)) > 0.6
            albedo[board] = self.shop
            albedo[board & letters & (np.abs(v - 0.885) < 0.05)] = 0.7
        albedo[frame] = 0.35 + 0.4 * albedo[frame]
        inside = noise.scatter(column, floor)
        dark = 0.015 + 0.1 * inside**3
        albedo[pane] = dark[pane, None] * np.array([0.9, 1.0, 1.1])
        gloss[pane] = 0.12
        if self.lit:
            on = pane & (noise.scatter(floor, column) < 0.45)
            room = 0.5 + 0.5 * noise.smooth(np.stack([along, up, up * 0], 1) * 2)
            glow[on] = (self.lit * room[:, None] * np.array([1.0, 0.8, 0.5]))[on]


@dataclass(frozen=True)
class Patchwork:
    """Goods in a shelf, posters, signs: cells of many colours around two."""

    color: Color
    second: Color
    cell: float  # metres
    offset: float = 0.0
    glow: float = 0.0
    row: float = 0.0  # metres between shelves, 0: none

    def shade(self, rest, normals):
        along, up = rest[:, 0] + rest[:, 1], rest[:, 2]
        tall = self.row / 2 if self.row else self.cell
        column, line = np.floor(along / self.cell + self.offset), np.floor(up / tall + self.offset)
        tone = noise.scatter(column, line)
        other = noise.scatter(line, column)
        first, second = np.asarray(self.color, "f4"), np.asarray(self.second, "f4")
        albedo = first + (second - first) * (tone > 0.45)[:, None]
        tint = np.stack([tone, other, noise.scatter(column, line, line)], 1)
        albedo = albedo * (0.45 + 0.5 * other[:, None]) + 0.22 * tint**2
        lettered = noise.scatter(column + 7, line) < 0.4
        text = np.stack([along * (9 / self.cell), np.floor(up * 7 / tall), line], 1)
        ink = lettered & (noise.smooth(text + self.offset) > 0.6) & (np.mod(up * 7 / tall, 1) < 0.6)
        albedo[ink] = 0.6 - 0.55 * (first.mean() > 0.25)
        if self.row:
            albedo[np.mod(up, self.row) > 0.82 * self.row] *= 0.15
            albedo[np.mod(along / self.cell + self.offset, 1) > 0.93] *= 0.4
        return Surface(albedo.astype("f4"), normals, 0.01, albedo * self.glow if self.glow else 0.0)
