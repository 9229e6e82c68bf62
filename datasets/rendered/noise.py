"""Periodic noise in three dimensions, computed once per process and interpolated."""

import functools

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

SIDE = 96  # voxels of a period
CELL = 3.0  # voxels of the smallest feature: noise at scale 1 has features of about one unit


@functools.cache
def _volume(octaves: int) -> np.ndarray:
    """Return noise [SIDE, SIDE, SIDE] float32 with mean 0.5, mostly within 0..1."""
    rng = np.random.default_rng(octaves)
    total = np.zeros((SIDE, SIDE, SIDE), np.float32)
    for octave in range(octaves):
        white = rng.standard_normal(total.shape, dtype=np.float32)
        layer = gaussian_filter(white, CELL * 2.0**octave * 0.55, mode="wrap")
        total += layer / layer.std() * 2.0**octave
    total = total / total.std() * 0.2 + 0.5
    return np.clip(total, 0.0, 1.0).astype(np.float32)


def smooth(points: np.ndarray) -> np.ndarray:
    """Return noise of one octave, in 0..1, at points [n, 3]: [n]. Its features are about one unit
    wide."""
    return _read(_volume(1), points * CELL)


def cloudy(points: np.ndarray) -> np.ndarray:
    """Return noise of three octaves, in 0..1, at points [n, 3]: [n]. Its finest features are about
    one unit wide."""
    return _read(_volume(3), points * CELL)


def _read(volume: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return map_coordinates(volume, voxels.T, order=1, mode="grid-wrap", output=np.float32)


def scatter(*cells: np.ndarray) -> np.ndarray:
    """Return a random number in 0..1 for each cell. The arguments are the cells' integer
    coordinates, [n] each."""
    primes = (73856093, 19349663, 83492791)
    mixed = np.zeros(len(cells[0]), np.uint32)
    for cell, prime in zip(cells, primes):
        mixed ^= cell.astype(np.int64).astype(np.uint32) * np.uint32(prime)
    mixed ^= mixed >> 15
    mixed *= np.uint32(2246822519)
    mixed ^= mixed >> 13
    return (mixed & 0xFFFF).astype(np.float32) / 65535.0
