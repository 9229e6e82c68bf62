"""Boxes around shapes."""

import math
from collections.abc import Sequence


def enclosing(xywh: Sequence[float], degrees: float, corner: bool) -> list[float]:
    """Return the upright box that encloses a box turned clockwise about its upper left corner or
    its centre."""
    x, y, width, height = xywh
    if not degrees % 360:
        return [x, y, width, height]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pivot = (x, y) if corner else (x + width / 2, y + height / 2)
    points = [
        (pivot[0] + dx * cos - dy * sin, pivot[1] + dx * sin + dy * cos)
        for px in (x, x + width)
        for py in (y, y + height)
        for dx, dy in [(px - pivot[0], py - pivot[1])]
    ]
    return around(points)


def around(points: Sequence[tuple[float, float]], digits: int = 3) -> list[float]:
    """Return the box x y w h that encloses the points."""
    xs, ys = zip(*points)
    return [round(v, digits) for v in (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))]
