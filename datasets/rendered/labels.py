"""The labels of the people in a frame: their boxes, and how much of each person is visible."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered.camera import NEAREST, PinholeCamera, clipped, extent
from datasets.rendered.raycast import Tracer

CELLS = 600  # of a grid over a whole body, to measure its visible share
BEFORE = 0.05  # metres; surfaces that are nearer to the camera by more than this hide a point
LARGE = 0.2  # of the picture's height: boxes of people near the camera, who are cut by the border


@dataclass(frozen=True)
class Label:
    """A person in a frame."""

    box: tuple[float, float, float, float]  # x y w h in pixels: the whole body, cut at the border
    visible: float  # share of the whole body's outline that is in the picture and not hidden
    hidden: float  # of the outline in the picture, the share that others or things hide


def label(camera: PinholeCamera, tracer: Tracer, owner: int, points: np.ndarray) -> Label | None:
    """Return the label of person `owner` with vertices `points` [n, 3] in the scene of `tracer`,
    or None if no part of them is within the picture."""
    whole = extent(camera, points)
    if whole is None:
        return None
    x1, y1, x2, y2 = clipped(whole, camera.size).tolist()
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None
    outline = outline_points(camera, points, whole)
    pixels, _ = camera.project(outline)
    inside = ((pixels >= 0) & (pixels < camera.size)).all(1)
    seen = int((~_hidden(camera, tracer, owner, outline[inside])).sum())
    box = (round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1))
    hidden = 1 - seen / max(int(inside.sum()), 1)
    return Label(box, round(seen / len(outline), 3), round(hidden, 3))


def outline_points(camera: PinholeCamera, points: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return points of a body that represent equal parts of its outline: in every cell of a grid
    over the box `whole` (x1 y1 x2 y2), the point nearest to the camera."""
    pixels, depth = camera.project(points)
    ahead = depth > NEAREST
    points, pixels, depth = points[ahead], pixels[ahead], depth[ahead]
    wide, high = np.maximum(whole[2:] - whole[:2], 1e-6)
    side = (wide * high / CELLS) ** 0.5
    column, row = np.floor((pixels - whole[:2]) / side).astype(np.int64).T
    order = np.argsort(depth)
    _, first = np.unique((row * (CELLS + 2) + column)[order], return_index=True)
    return points[order[first]]


def _hidden(camera: PinholeCamera, tracer: Tracer, owner: int, points: np.ndarray) -> np.ndarray:
    """Return whether an object in front of them hides points [n, 3] of person `owner`."""
    if not len(points):
        return np.zeros(0, bool)
    ways = points - np.asarray(camera.place)
    far = np.linalg.norm(ways, axis=1)
    ways = (ways / far[:, None]).astype(np.float32)
    met = tracer.first(np.repeat(np.array([camera.place], np.float32), len(ways), 0), ways)
    other = (met["primID"] >= 0) & (tracer.owner_of[met["primID"]] != owner)
    return other & (met["tfar"] < far - BEFORE)


def keep(label: Label, picture_height: int, min_visible: float, min_height: float) -> bool:
    """Return True if a person is labelled.

    The box must be at least `min_height` pixels high, and at least `min_visible` of the part within
    the picture must not be hidden. In addition, at least `min_visible` of the whole body must be
    visible, unless the box is higher than LARGE of the picture's height.
    """
    large = label.box[3] >= LARGE * picture_height
    seen = 1 - label.hidden >= min_visible and (label.visible >= min_visible or large)
    return seen and label.box[3] >= min_height
