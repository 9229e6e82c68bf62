"""Who is labelled in a frame: boxes, and how much of everyone is seen."""

from dataclasses import dataclass

import numpy as np

from datasets.rendered.camera import Camera, clipped, extent
from datasets.rendered.raycast import Tracer

RAYS = 500  # over a whole body, to measure how much of it is seen
LARGE = 0.3  # of the picture's height: a box of somebody near, whom the border cuts
MOST = 40  # times the picture's height that a body may take


@dataclass(frozen=True)
class Label:
    """A person in a frame. visible: the share of the whole body's outline that is seen: neither
    hidden by others or things, nor beyond the picture's border."""

    box: tuple[float, float, float, float]  # x y w h in pixels: the whole body, cut at the border
    visible: float
    hidden: float  # of what lies in the picture, the share that others or things hide


def label(
    camera: Camera, tracer: Tracer, owner: int, alone: Tracer, points: np.ndarray
) -> Label | None:
    """The label of person `owner`, whose meshes are `alone` in a scene; None for those who are not in the picture."""
    whole = extent(camera, points)
    if whole is None or (whole[2:] - whole[:2]).max() > MOST * camera.size[1]:
        return None
    x1, y1, x2, y2 = clipped(whole, camera.size).tolist()
    if x2 - x1 < 1 or y2 - y1 < 1:
        return None
    body, inside, seen = outline(camera, tracer, alone, owner, whole)
    box = (round(x1, 1), round(y1, 1), round(x2 - x1, 1), round(y2 - y1, 1))
    return Label(box, round(seen / max(body, 1), 3), round(1 - seen / max(inside, 1), 3))


def outline(
    camera: Camera, tracer: Tracer, alone: Tracer, owner: int, whole: np.ndarray
) -> tuple[int, int, int]:
    """Of a grid of rays through the box `whole` [4]: how many meet the body of `owner` when it is
    `alone`, how many of these lie in the picture, and how many of those meet it in the scene."""
    wide, high = whole[2:] - whole[:2]
    columns = max(4, round((RAYS * wide / max(high, 1e-6)) ** 0.5))
    rows = max(4, round(RAYS / columns))
    x = whole[0] + wide * (np.arange(columns) + 0.5) / columns
    y = whole[1] + high * (np.arange(rows) + 0.5) / rows
    x, y = (axis.ravel() for axis in np.meshgrid(x, y))
    ways = camera.rays(x, y)
    origins = np.repeat(np.array([camera.place], np.float32), len(ways), 0)
    body = alone.first(origins, ways)["primID"] >= 0
    inside = body & (x > 0) & (x < camera.size[0]) & (y > 0) & (y < camera.size[1])
    first = tracer.first(origins[inside], ways[inside])["primID"]
    seen = (tracer.owner_of[first] == owner) & (first >= 0)
    return int(body.sum()), int(inside.sum()), int(seen.sum())


def keep(label: Label, camera_height: int, min_visible: float, min_height: float) -> bool:
    """Whether somebody is labelled. Enough of what lies in the picture is not hidden; enough of the
    whole body is seen, unless the box is LARGE; and the box is at least so many pixels high."""
    large = label.box[3] >= LARGE * camera_height
    seen = 1 - label.hidden >= min_visible and (label.visible >= min_visible or large)
    return seen and label.box[3] >= min_height
