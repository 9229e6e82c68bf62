"""Materials of places: ground, walls, foliage, goods and signs, in metres."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered import noise
from datasets.rendered.materials import Color, Surface


@dataclass(frozen=True)
class Leaves:
    """Foliage in which every leaf and every clump has its own green."""

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
    """A wall along x + y and z, in metres: bricks, panels, windows, a row of shops at the
    bottom."""

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
    """Goods on a shelf, posters, signs: cells with many variations of two colours."""

    color: Color
    second: Color
    cell: float  # metres
    offset: float = 0.0
    glow: float = 0.0
    row: float = 0.0  # metres between shelves, 0: none
    vivid: float = 1.0  # how colourful the cells are

    def shade(self, rest, normals):
        along, up = rest[:, 0] + rest[:, 1], rest[:, 2]
        tall = self.row / 2 if self.row else self.cell
        column, line = np.floor(along / self.cell + self.offset), np.floor(up / tall + self.offset)
        tone = noise.scatter(column, line)
        other = noise.scatter(line, column)
        first, second = np.asarray(self.color, "f4"), np.asarray(self.second, "f4")
        albedo = first + (second - first) * (tone > 0.45)[:, None]
        tint = np.stack([tone, other, noise.scatter(column, line, line)], 1)
        grey = tint.mean(1, keepdims=True)
        tint = grey + self.vivid * (tint - grey)
        albedo = albedo * (0.45 + 0.5 * other[:, None]) + 0.22 * tint**2
        lettered = noise.scatter(column + 7, line) < 0.4
        text = np.stack([along * (9 / self.cell), np.floor(up * 7 / tall), line], 1)
        ink = lettered & (noise.smooth(text + self.offset) > 0.6) & (np.mod(up * 7 / tall, 1) < 0.6)
        albedo[ink] = 0.6 - 0.55 * (first.mean() > 0.25)
        if self.row:
            albedo[np.mod(up, self.row) > 0.82 * self.row] *= 0.15
            albedo[np.mod(along / self.cell + self.offset, 1) > 0.93] *= 0.4
        return Surface(albedo.astype("f4"), normals, 0.01, albedo * self.glow if self.glow else 0.0)


@dataclass(frozen=True)
class Print:
    """A poster or a sign, in metres: a picture of two colours above or below lines of text."""

    color: Color
    second: Color
    text: Color
    height: float  # of the board
    share: float  # of the height that the picture takes; negative: the picture is below
    offset: float = 0.0
    glow: float = 0.0

    def shade(self, rest, normals):
        along, up = rest[:, 0] + rest[:, 1], rest[:, 2] / self.height
        flat = np.stack([along, rest[:, 2], 0 * up], 1) * (2.5 / self.height) + self.offset
        picture = np.clip((noise.cloudy(flat) - 0.5) * 5 + 0.5, 0, 1)[:, None]
        first, second = np.asarray(self.color, "f4"), np.asarray(self.second, "f4")
        albedo = first + (second - first) * picture
        written = up < 1 - self.share if self.share > 0 else up > -self.share
        albedo[written] = first
        lines = written & (np.mod(up * 9, 1) < 0.55) & (np.mod(up * 9 + self.offset, 4) < 3)
        letters = np.stack([along * (16 / self.height), np.floor(up * 9), 0 * up], 1)
        albedo[lines & (noise.smooth(letters + self.offset) > 0.5)] = self.text
        albedo = (albedo * (0.9 + 0.1 * noise.smooth(flat * 3))[:, None]).astype("f4")
        return Surface(albedo, normals, 0.02, albedo * self.glow if self.glow else 0.0)
