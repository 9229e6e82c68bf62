"""The effects of a camera on light: exposure, white balance, blur, noise, sharpening, JPEG."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter1d


@dataclass(frozen=True)
class Sensor:
    """The faults of a camera, which are the same in all of its pictures. A strength of 0 means no
    fault."""

    balance: tuple[float, float, float]
    saturation: float
    contrast: float
    black: float
    vignette: float
    blur: float  # pixels
    noise: float
    sharpen: float
    quality: int  # of JPEG


def draw_sensor(rng: np.random.Generator) -> Sensor:
    warm, green = rng.normal(0, 0.09), rng.normal(0, 0.03)
    poor = rng.random() < 0.35  # cameras of surveillance
    return Sensor(
        (float(np.exp(warm)), float(np.exp(green)), float(np.exp(-warm))),
        float(np.clip(rng.normal(1.0, 0.22), 0.2, 1.5)),
        float(rng.uniform(0.85, 1.3)),
        float(rng.uniform(0, 0.05)),
        float(rng.uniform(0, 0.35)),
        float(rng.uniform(0.3, 1.3) if poor else rng.uniform(0, 0.55)),
        float(rng.uniform(0.008, 0.03) if poor else rng.uniform(0, 0.012)),
        float(rng.uniform(0, 1.2)) if rng.random() < 0.5 else 0.0,
        int(rng.integers(35, 80) if poor else rng.integers(70, 96)),
    )


def expose(light: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> np.ndarray:
    """Convert linear light [H, W, 3] to the camera's output, uint8 [H, W, 3]."""
    height, width, _ = light.shape
    level = np.percentile(light[..., 1], 55)
    gain = rng.uniform(0.16, 0.42) * np.exp(rng.normal(0, 0.12)) / max(float(level), 0.03)
    image = light * gain * np.asarray(sensor.balance, np.float32)
    if sensor.vignette:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        image = image * (1 - sensor.vignette * (x * x + y * y) / 2)[..., None]
    if sensor.blur:
        image = gaussian_filter(image, (sensor.blur, sensor.blur, 0))
    if rng.random() < 0.15:
        image = uniform_filter1d(image, int(rng.integers(2, 6)), axis=int(rng.integers(2)))
    dim = np.clip(gain / 2.5, 0.6, 2.2)  # a dark scene is amplified, with its noise
    shot = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + shot * sensor.noise * dim * (0.35 + np.sqrt(np.clip(image, 0, 1)))
    image = _curve(np.clip(image, 0, None), sensor)
    if sensor.sharpen:
        image = image + sensor.sharpen * (image - gaussian_filter(image, (0.9, 0.9, 0)))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _curve(image: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Apply the camera's response curve: highlights, gamma, contrast, saturation."""
    rolled = image * (1 + image / 6.0) / (1 + image)
    tone = np.clip(rolled * 1.25, 0, 1) ** (1 / 2.2)
    tone = sensor.black + (1 - sensor.black) * tone
    tone = (tone - 0.45) * sensor.contrast + 0.45
    grey = tone @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey[..., None] + (tone - grey[..., None]) * sensor.saturation
