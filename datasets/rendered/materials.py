"""Materials of surfaces: colours and fine structure as functions of rest coordinates.

Colours are linear light, 0..1.
"""

import colorsys
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from datasets.rendered import noise

Color = tuple[float, float, float]


class Surface(NamedTuple):
    """n points of a surface."""

    albedo: np.ndarray  # [n, 3] float32
    normals: np.ndarray  # [n, 3] float32
    gloss: np.ndarray | float  # [n] or one for all: the share that is mirrored, seen straight on
    glow: np.ndarray | float  # [n, 3] or one for all: light that the surface sends out itself


class Material(Protocol):
    def shade(self, rest: np.ndarray, normals: np.ndarray) -> Surface:
        """Return the surface at rest coordinates [n, 3] with unit normals [n, 3]."""


def linear(srgb: np.ndarray | tuple) -> np.ndarray:
    """Convert sRGB in 0..1 to linear light, float32. Source: IEC 61966-2-1."""
    value = np.asarray(srgb, np.float32)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Return the linear colour for sRGB hue, saturation and value in 0..1."""
    r, g, b = linear(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)).tolist()
    return r, g, b


def bent(normals: np.ndarray, height, points: np.ndarray, strength: float, step: float):
    """Tilt normals [n, 3] as if `height`, a function from points [n, 3] to [n], raised the
    surface."""
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
