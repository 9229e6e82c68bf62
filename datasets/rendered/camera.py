"""A pinhole camera. World: metres, x and y on the ground, z up. Picture: pixels, y down."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAREST = 0.05  # metres before the lens: what is nearer is not projected


@dataclass(frozen=True)
class PinholeCamera:
    place: tuple[float, float, float]  # metres
    yaw: float  # radians; 0 looks along +y, positive turns left
    pitch: float  # radians downwards
    roll: float  # radians, positive turns the picture clockwise
    focal: float  # pixels
    size: tuple[int, int]  # width, height in pixels

    @cached_property
    def axes(self) -> np.ndarray:
        """The directions right, down and forward in the world, as rows [3, 3]."""
        cy, sy, cp, sp = (f(a) for a in (self.yaw, self.pitch) for f in (math.cos, math.sin))
        forward = np.array([-sy * cp, cy * cp, -sp])
        right = np.array([cy, sy, 0.0])
        down = np.cross(forward, right)
        c, s = math.cos(self.roll), math.sin(self.roll)
        return np.array([c * right + s * down, c * down - s * right, forward])

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return unit directions [n, 3] float32 through the points x, y [n] of the picture, in
        pixels."""
        width, height = self.size
        own = np.stack(
            [(x - width / 2) / self.focal, (y - height / 2) / self.focal, np.ones(len(x))], 1
        )
        world = own @ self.axes
        return (world / np.linalg.norm(world, axis=1, keepdims=True)).astype(np.float32)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points [n, 3] to pixels [n, 2] and depths [n] in metres, which are negative
        behind the lens."""
        own = (points - np.asarray(self.place)) @ self.axes.T
        depth = own[:, 2]
        scale = self.focal / np.maximum(depth, NEAREST)
        return own[:, :2] * scale[:, None] + np.asarray(self.size) / 2, depth


def look_at(
    place: tuple[float, float, float],
    target: tuple[float, float, float],
    focal: float,
    size: tuple[int, int],
    roll: float = 0.0,
) -> PinholeCamera:
    """Return a camera at `place` with `target` in the middle of its picture."""
    dx, dy, dz = np.asarray(target) - np.asarray(place)
    flat = math.hypot(dx, dy)
    return PinholeCamera(place, math.atan2(-dx, dy), math.atan2(-dz, flat), roll, focal, size)


def extent(camera: PinholeCamera, points: np.ndarray) -> np.ndarray | None:
    """Return the box x1 y1 x2 y2 around points [n, 3], not clipped to the picture; None if no point
    is in front of the lens."""
    pixels, depth = camera.project(points)
    pixels = pixels[depth > NEAREST]
    if not len(pixels):
        return None
    return np.concatenate([pixels.min(0), pixels.max(0)])


def clipped(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the part of a box x1 y1 x2 y2 that is inside the picture."""
    return np.clip(box, 0, np.tile(size, 2))
