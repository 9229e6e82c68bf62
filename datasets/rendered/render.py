"""Rendering of a scene: one ray per pixel, filtered light, and additional rays at edges."""

import numpy as np

from datasets.rendered.camera import PinholeCamera
from datasets.rendered.light import Light
from datasets.rendered.meshes import dot
from datasets.rendered.raycast import RayHits, Tracer

EDGE = 0.09  # change between neighbours from which a pixel is an edge
EDGE_SAMPLES = 2  # further rays for a pixel with an edge
EDGE_SHARE = 0.3  # of all pixels at most
MIRROR = 0.035  # gloss from which reflections are traced


def render(
    tracer: Tracer, camera: PinholeCamera, light: Light, rng: np.random.Generator
) -> np.ndarray:
    """Return the light of a camera's picture, [H, W, 3] float32, linear."""
    width, height = camera.size
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    jitter = rng.random((2, len(x)))
    seen, ways = _look(tracer, camera, x + jitter[0], y + jitter[1])
    hit = np.flatnonzero(seen.triangle >= 0)
    visibility = np.zeros((len(x), 3), np.float32)
    visibility[hit] = light.visibility(tracer, seen.points[hit], seen.flat[hit], rng)
    visibility = _filtered(visibility, seen, width, height, steps=((1, 2, 4), (1, 2, 4), (1,)))
    colors = _colors(tracer, light, seen, ways, visibility)
    chosen = _edges(colors, seen, width, height)
    total = colors.copy()
    for _ in range(EDGE_SAMPLES):
        jitter = rng.random((2, len(chosen)))
        again, ways = _look(tracer, camera, x[chosen] + jitter[0], y[chosen] + jitter[1])
        borrowed = _borrowed(visibility, seen, again, chosen, width, height)
        total[chosen] += _tamed(_colors(tracer, light, again, ways, borrowed))
    total[chosen] /= 1 + EDGE_SAMPLES
    return total.reshape(height, width, 3)


def _look(
    tracer: Tracer, camera: PinholeCamera, x: np.ndarray, y: np.ndarray
) -> tuple[RayHits, np.ndarray]:
    ways = camera.rays(x, y)
    origins = np.repeat(np.array([camera.place], np.float32), len(x), 0)
    return tracer.look(origins, ways), ways


def _tamed(colors: np.ndarray) -> np.ndarray:
    return np.minimum(colors, 8.0)


def _colors(
    tracer: Tracer, light: Light, seen: RayHits, ways: np.ndarray, visibility: np.ndarray
) -> np.ndarray:
    """Return the light that arrives along n rays, [n, 3]."""
    colors = np.empty((len(ways), 3), np.float32)
    sky = seen.triangle < 0
    colors[sky] = light.seen_sky(ways[sky])
    hit = np.flatnonzero(~sky)
    arriving = light.arriving(seen.points[hit], seen.normals[hit], visibility[hit])
    colors[hit] = seen.albedo[hit] * arriving + seen.glow[hit]
    shiny = hit[seen.gloss[hit] > MIRROR]
    if len(shiny):
        _mirror(tracer, light, seen, ways, colors, shiny, visibility)
    return _tamed(colors)


def _mirror(tracer, light, seen, ways, colors, rows, visibility) -> None:
    """Add reflections by Schlick's approximation of Fresnel's formula."""
    way, normal = ways[rows], seen.normals[rows]
    facing = np.clip(-dot(way, normal)[:, None], 0, 1)
    gloss = seen.gloss[rows, None]
    share = gloss + (np.minimum(gloss * 5, 0.9) - gloss) * (1 - facing) ** 5
    back = way + 2 * facing * normal
    other = tracer.look(seen.points[rows], back.astype(np.float32))
    found = np.where(other.triangle >= 0, 1, 0)[:, None]
    near = other.albedo * light.around(other.normals) * 0.75 + other.glow
    if light.lamps:
        half = np.full((len(rows), 3), 0.7, np.float32)
        near = other.albedo * light.arriving(other.points, other.normals, half) + other.glow
    elif any(light.sun):
        facing_sun = np.clip(other.normals @ np.asarray(light.towards_sun, np.float32), 0, 1)
        near = near + other.albedo * (0.6 * facing_sun)[:, None] * np.asarray(light.sun)
    mirrored = np.where(found, near, light.seen_sky(back))
    colors[rows] = colors[rows] * (1 - share) + mirrored * share


def _filtered(
    values: np.ndarray, seen: RayHits, width: int, height: int, steps: tuple[tuple[int, ...], ...]
) -> np.ndarray:
    """Average channels [n, C] over neighbouring pixels of the same surface.

    This is a joint bilateral filter in passes with growing step (Dammertz et al. 2010,
    edge-avoiding À-Trous).

    Args:
        steps: those of each channel.
    """
    image = np.ascontiguousarray(values.T).reshape(-1, height, width)
    normals = np.ascontiguousarray(seen.flat.T).reshape(3, height, width)
    depth = np.minimum(seen.distance, 1e4).reshape(height, width)
    for step in sorted(set().union(*steps)):
        channels = [channel for channel, own in enumerate(steps) if step in own]
        soft = image[channels]
        total, weight = soft.copy(), np.ones((height, width), np.float32)
        for dy, dx in ((0, step), (step, -step), (step, 0), (step, step)):
            (y1, y2), (x1, x2) = _overlap(height, dy), _overlap(width, dx)
            a, b = (slice(None), y1, x1), (slice(None), y2, x2)
            w = np.maximum(np.einsum("kij,kij->ij", normals[a], normals[b]), 0)
            for _ in range(3):  # to the power of 8
                w *= w
            w *= np.abs(depth[a[1:]] - depth[b[1:]]) < 0.03 * depth[a[1:]]
            total[a] += w * soft[b]
            total[b] += w * soft[a]
            weight[a[1:]] += w
            weight[b[1:]] += w
        image[channels] = total / weight
    return np.ascontiguousarray(image.reshape(len(steps), -1).T)


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Return two slices of an axis, such that x[first] and x[second] are neighbours at a distance
    of `shift`."""
    if shift >= 0:
        return slice(0, length - shift), slice(shift, length)
    return slice(-shift, length), slice(0, length + shift)


def _edges(colors: np.ndarray, seen: RayHits, width: int, height: int) -> np.ndarray:
    """Return the pixels [m] that differ most from a neighbour in surface or colour."""
    tone = np.sqrt(np.clip(colors, 0, 4)).reshape(height, width, 3)
    normals = seen.flat.reshape(height, width, 3)
    depth = np.minimum(seen.distance, 1e3).reshape(height, width)
    strength = np.zeros((height, width), np.float32)
    for axis in (0, 1):
        a = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        b = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        change = _largest(np.abs(tone[a] - tone[b]))
        change += 0.15 * _largest(np.abs(normals[a] - normals[b]))
        change += 0.3 * (np.abs(depth[a] - depth[b]) > 0.06 * np.minimum(depth[a], depth[b]))
        strength[a] = np.maximum(strength[a], change)
        strength[b] = np.maximum(strength[b], change)
    chosen = np.flatnonzero(strength > EDGE)
    most = int(EDGE_SHARE * strength.size)
    if len(chosen) > most:
        weakest = -strength.ravel()[chosen]
        chosen = chosen[np.argpartition(weakest, most)[:most]]
    return chosen


def _largest(values: np.ndarray) -> np.ndarray:
    """Return the maximum over a last axis of length three, much faster than max(2)."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def _borrowed(
    visibility: np.ndarray,
    seen: RayHits,
    again: RayHits,
    pixels: np.ndarray,
    width: int,
    height: int,
) -> np.ndarray:
    """Return the visibility for rays through `pixels` [m]: that of the most similar among the pixel
    and its four neighbours."""
    y, x = np.divmod(pixels, width)
    best = np.full(len(pixels), np.inf, np.float32)
    source = pixels.copy()
    for dy, dx in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        other = np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)
        apart = again.points - seen.points[other]
        score = 100 * dot(apart, apart) + 1 - dot(again.flat, seen.flat[other])
        score = np.where(seen.triangle[other] < 0, np.inf, score)
        closer = score < best
        best[closer], source[closer] = score[closer], other[closer]
    return visibility[source]
