"""Synthetic scenes: a place with objects and people, as recorded by a camera."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datasets.synthetic.figures import draw_person
from datasets.synthetic.looks import Look, make_looks, random_pose
from datasets.synthetic.places import PLACES
from datasets.synthetic.stage import Stage
from datasets.synthetic.things import FITTING, THINGS

NO_IDENTITY = -2  # of unlabelled people, as in PRW's files
OVERSAMPLE = 2  # factor by which scenes are drawn larger and then reduced
# Numbers of random streams, so that a frame depends on the seed and its index only.
PEOPLE, FRAME, CAMERA = 1, 2, 3


@dataclass(frozen=True)
class SceneContent:
    """The content of a scene: its camera (1..6) and its people (1..N or NO_IDENTITY)."""

    index: int
    camera: int
    people: tuple[int, ...]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of box a (x1 y1 x2 y2) that box b covers."""
    side = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(side.prod() / max(np.prod(a[2:] - a[:2]), 1e-6))


def _stand(
    rng: np.random.Generator, stage: Stage, half: float, tall: float, placed: list, most: float
) -> tuple[float, float, float, float, np.ndarray]:
    """Draw a position for a person or an object.

    Args:
        rng: generator.
        stage: the place.
        half: half the width of the object, in units of a person's height.
        tall: its height in the same unit.
        placed: boxes of the people whose position is fixed.
        most: the largest share of a person, or of the object, that may be occluded. Up to 25
            positions are drawn until one satisfies it.

    Returns:
        The occluded share, the foot point x y, the height of a person there, and the box, in pixels
        of the picture.
    """
    best = (np.inf, 0.0, 0.0, 0.0, np.zeros(4))
    for _ in range(25):
        far = stage.ground + 0.1 * stage.h
        y = far + (stage.h * 1.1 - far) * rng.beta(1.2, 1.7)
        p = (y - stage.horizon) * 0.78
        x = rng.uniform(0.01, 0.99) * stage.w
        box = np.array([x - half * p, y - tall * p, x + half * p, y])
        inside = np.clip(box, 0, [stage.w, stage.h, stage.w, stage.h])
        cut = 1 - _overlap(box, inside)
        nearer = [_overlap(box, b) if b[3] > y else _overlap(b, box) for b in placed]
        worst = max([cut * 1.6, *nearer])
        if worst < best[0]:
            best = (worst, x, y, p, box)
        if worst < most:
            break
    return best


def draw_shadow(stage: Stage, x: float, y: float, p: float, light: float) -> None:
    """Draw the shadow of a person of p pixels at the foot point x y."""
    w, h = int(p * 0.75) + 2, int(p * 0.16) + 2
    mask = Image.new("L", (w, h))
    ImageDraw.Draw(mask).ellipse([w * 0.15, h * 0.2, w * 0.85, h * 0.8], 120)
    mask = mask.filter(ImageFilter.GaussianBlur(p * 0.025 + 1))
    stage.image.paste((30, 30, 36), (int(x - w / 2 - light * 0.14 * p), int(y - h / 2)), mask)


def camera_effects(
    rgb: np.ndarray,
    scale: float,
    seed: int,
    camera: int,
    rng: np.random.Generator,
    hard: float,
    noise_rng: np.random.Generator | None = None,
) -> Image.Image:
    """Return the image that a camera records.

    Args:
        rgb: The scene, [h, w, 3] float32, 0..255.
        scale: The image's height relative to 256 pixels.
        seed: That of the dataset.
        camera: Its number, which determines its colour cast, contrast and focus.
        rng: Generator of what differs between images: exposure, light, blur.
        hard: Scales every effect.
        noise_rng: Generator of the noise, if it is not `rng`.
    """
    own = np.random.default_rng([seed, CAMERA, camera])
    # the colour casts of the cameras are spread evenly over the hues
    hue = 2 * np.pi * (camera / len(PLACES) + own.uniform(-0.06, 0.06))
    white = own.uniform(0.16, 0.26) * hard * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)
    contrast, colourful, focus = (
        own.uniform(0.75, 1.15),
        own.uniform(0.6, 1.1),
        own.uniform(0.0, 0.6),
    )
    h, w = rgb.shape[:2]
    gain = np.exp(white + rng.normal(0, 0.06, 3) * hard + rng.normal(0, 0.22) * hard)
    out = rgb * np.float32(gain)
    slope = rng.normal(0, 0.22, 2) * hard  # the light falls off across the picture
    yy, xx = np.linspace(-1, 1, h)[:, None], np.linspace(-1, 1, w)[None]
    falloff = np.exp(slope[0] * xx + 0.5 * slope[1] * yy - 0.12 * (xx**2 + yy**2))
    out *= falloff.astype(np.float32)[..., None]
    grey = out.mean(2, keepdims=True)
    out = grey + (out - grey) * np.float32(1 + (colourful * rng.uniform(0.85, 1.15) - 1) * hard)
    out = 122 + (out - 122) * np.float32(1 + (contrast - 1) * hard)
    out = out + np.float32(rng.normal(0, 9) * hard)
    out = np.where(out > 190, 255 - 65 * np.exp((190 - out) / 65), out)  # soft highlights
    image = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    blur = (focus + rng.exponential(0.3)) * hard * scale
    image = image.filter(ImageFilter.GaussianBlur(min(blur, 1.6 * scale)))
    grains = (noise_rng or rng).normal(0, 1, (h, w, 3)).astype(np.float32)
    noise = grains * np.float32(rng.uniform(2, 8) * hard)
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


def draw_scene(
    frame: SceneContent, looks: list[Look], size: tuple[int, int], seed: int, hard: float = 1.0
):
    """Draw a frame.

    Args:
        frame: Its content.
        looks: Those of the identities: `looks[pid - 1]`. Unlabelled people get random ones.
        size: Width and height in pixels.
        seed: That of the dataset.
        hard: Scales the effects of the camera.

    Returns:
        The image and the boxes [n, 4] x1 y1 x2 y2, in pixels, of frame.people in order. A box
        encloses the whole figure, occluded parts included, and is clipped to the image.
    """
    rng = np.random.default_rng([seed, FRAME, frame.index])
    own = np.random.default_rng([seed, CAMERA, frame.camera, 1])
    w, h = size[0] * OVERSAMPLE, size[1] * OVERSAMPLE
    stage = Stage(w, h, own.uniform(0.14, 0.26) + rng.uniform(-0.02, 0.02), rng)
    PLACES[frame.camera - 1](stage)
    light = float(rng.uniform(-1, 1))

    placed: list[np.ndarray] = []
    queue: list[tuple[float, int, Any]] = []  # row, index among the people or -1, what to draw
    boxes = np.zeros((len(frame.people), 4))
    for k, pid in enumerate(frame.people):
        look = looks[pid - 1] if pid > 0 else make_looks(1, rng, 0)[0]
        _, x, y, p, box = _stand(rng, stage, 0.22, 1.0, placed, 0.45)
        placed.append(box)
        queue.append((y, k, (look, random_pose(rng, light), x, p)))
    for _ in range(int(rng.integers(2, 7))):
        fitting = FITTING[frame.camera - 1]
        thing, half, tall = THINGS[fitting[int(rng.integers(len(fitting)))]]
        worst, x, y, p, _ = _stand(rng, stage, half, tall, placed, 0.35)
        if worst < 0.35:
            queue.append((y, -1, (thing, x, p)))

    for y, k, what in sorted(queue, key=lambda item: item[0]):
        if k < 0:
            thing, x, p = what
            draw_shadow(stage, x, y, p, light)
            thing(stage, x, y, p)
            continue
        look, pose, x, p = what
        draw_shadow(stage, x, y, p, light)
        figure, (fx, fy) = draw_person(look, pose, p * look.height)
        corner = np.array([int(x - fx), int(y - fy)])
        stage.image.paste(figure, (int(corner[0]), int(corner[1])), figure)
        seen = figure.getchannel("A").point(lambda a: 255 * (a > 90)).getbbox()
        boxes[k] = (np.array(seen) + np.tile(corner, 2)) / OVERSAMPLE
    rgb = np.asarray(stage.image.reduce(OVERSAMPLE), np.float32)
    image = camera_effects(rgb, size[1] / 256, seed, frame.camera, rng, hard)
    return image, np.clip(boxes, 0, np.tile(size, 2)).astype(np.float32)
