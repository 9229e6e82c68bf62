"""The canvas of a scene: a ground plane in perspective, with the parts of backgrounds."""

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def tinted(rng: np.random.Generator, colour: Colour, spread: float = 14) -> Colour:
    """Draw a colour near `colour`."""
    shifted = np.array(colour) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    r, g, b = np.clip(shifted, 0, 255).astype(int).tolist()
    return r, g, b


def some(rng: np.random.Generator, colours, spread: float = 14) -> Colour:
    """Draw a colour near one of `colours`."""
    return tinted(rng, colours[int(rng.integers(len(colours)))], spread)


def shade_of(colour: Colour, by: float) -> Colour:
    """Multiply the brightness of a colour."""
    r, g, b = (int(min(255, v * by)) for v in colour)
    return r, g, b


WALLS = (
    (196, 178, 150),
    (170, 108, 88),
    (206, 200, 188),
    (150, 158, 168),
    (214, 190, 130),
    (128, 96, 84),
)
PAINT = (
    (170, 50, 50),
    (50, 80, 140),
    (225, 220, 210),
    (60, 110, 80),
    (60, 60, 66),
    (220, 180, 70),
    (120, 130, 140),
)
LEAVES = ((70, 112, 58), (92, 128, 62), (54, 92, 60), (128, 130, 58))


class Stage:
    """A canvas of w x h pixels. The ground begins at row `ground`; its parallel lines meet at row
    `horizon`."""

    def __init__(self, w: int, h: int, horizon: float, rng: np.random.Generator):
        self.image = Image.new("RGB", (w, h))
        self.draw, self.rng = ImageDraw.Draw(self.image), rng
        self.w, self.h, self.horizon, self.ground = w, h, horizon * h, (horizon + 0.09) * h

    def copy(self) -> "Stage":
        """Return a stage with a copy of the picture."""
        copy = Stage.__new__(Stage)
        copy.__dict__ |= self.__dict__
        copy.image = self.image.copy()
        copy.draw = ImageDraw.Draw(copy.image)
        return copy

    def gradient(self, top: float, low: float, a: Colour, b: Colour) -> None:
        """Fill the rows top..low with a vertical gradient and some low-frequency noise."""
        top, low = int(top), int(low)
        t = np.linspace(0, 1, max(low - top, 1), dtype=np.float32)[:, None, None]
        rgb = np.array(a, np.float32) * (1 - t) + np.array(b, np.float32) * t
        dirt = self.rng.normal(0, 5, (9, 16)).astype(np.float32)
        dirt = np.asarray(
            Image.fromarray(dirt).resize((self.w, rgb.shape[0]), Image.Resampling.BILINEAR)
        )
        strip = np.clip(rgb + dirt[..., None], 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(strip), (0, top))

    def sky(self) -> None:
        """Draw a sky with up to three clouds."""
        a, b = [
            ((120, 168, 218), (208, 222, 232)),
            ((176, 182, 190), (214, 214, 212)),
            ((214, 166, 138), (238, 208, 170)),
        ][int(self.rng.integers(3))]
        self.gradient(0, self.ground + 2, tinted(self.rng, a), tinted(self.rng, b))
        for _ in range(int(self.rng.integers(0, 4))):
            self.blob(
                self.rng.uniform(0, self.w),
                self.rng.uniform(0, self.horizon * 0.6),
                self.h * 0.1,
                (236, 238, 240),
                0.4,
            )

    def blob(self, x: float, y: float, r: float, colour: Colour, flat: float = 0.85) -> None:
        """Draw leaves or a cloud: several discs that are lighter at the top."""
        for k in range(7):
            dx, dy = self.rng.uniform(-0.6, 0.6, 2) * r
            q = r * self.rng.uniform(0.45, 0.75)
            shade = shade_of(colour, 0.78 + 0.06 * k)
            cx, cy = x + dx, y + dy * flat - k * 0.05 * r
            self.draw.ellipse([cx - q, cy - q * flat, cx + q, cy + q * flat], shade)

    def perspective(self, colour: Colour, lines: int, rows: int) -> None:
        """Draw paving: lines to the vanishing point, and rows that get closer to the horizon."""
        vx = self.w * self.rng.uniform(0.2, 0.8)
        for x in np.linspace(-1.5 * self.w, 2.5 * self.w, lines):
            t = (self.ground - self.horizon) / (self.h - self.horizon)
            self.draw.line([vx + (x - vx) * t, self.ground, x, self.h], colour, 2)
        for k in range(1, rows):
            y = self.horizon + (self.ground - self.horizon) * rows / (rows - k + 0.01)
            if y < self.h:
                self.draw.line([0, y, self.w, y], colour, 2)

    def windows(self, x0: float, x1: float, y0: float, y1: float, size: float) -> None:
        """Draw rows of windows in a rectangle."""
        glass = some(self.rng, ((70, 84, 104), (150, 176, 196), (52, 56, 64)))
        for y in np.arange(y0 + size * 0.5, y1 - size * 1.2, size * 1.7):
            for x in np.arange(x0 + size * 0.5, x1 - size, size * 1.5):
                lit = (236, 210, 140) if self.rng.random() < 0.08 else glass
                self.draw.rectangle([x, y, x + size * 0.8, y + size * 1.1], lit, (90, 86, 80))

    def building(self, x0: float, x1: float, top: float, shop: bool) -> None:
        """Draw a building, with a shop window and a door if `shop`."""
        wall, d, g = some(self.rng, WALLS), self.draw, self.ground
        d.rectangle([x0, top, x1, g], wall, shade_of(wall, 0.7))
        size = self.h * self.rng.uniform(0.045, 0.07)
        self.windows(x0, x1, top, g - self.h * (0.16 if shop else 0.0), size)
        if shop:
            y, paint = g - self.h * 0.17, some(self.rng, PAINT)
            d.rectangle(
                [x0 + 6, y, x1 - 6, g],
                some(self.rng, ((58, 62, 70), (180, 190, 190), (110, 84, 64))),
            )
            stripes = int((x1 - x0) / (self.h * 0.05)) + 1
            for k in range(stripes):
                a, b = x0 + (x1 - x0) * k / stripes, x0 + (x1 - x0) * (k + 1) / stripes
                d.polygon(
                    [(a, y), (b, y), (b, y + self.h * 0.05), (a, y + self.h * 0.05)],
                    paint if k % 2 else (232, 228, 220),
                )
            door = x0 + (x1 - x0) * self.rng.uniform(0.2, 0.7)
            d.rectangle([door, g - self.h * 0.11, door + self.h * 0.06, g], shade_of(paint, 0.6))

    def row(self, shop: bool, low: float, high: float) -> None:
        """Draw a row of buildings whose tops are between low and high, as fractions of the canvas
        height."""
        x = -self.w * self.rng.uniform(0, 0.15)
        while x < self.w:
            width = self.w * self.rng.uniform(0.16, 0.4)
            self.building(x, x + width, self.h * self.rng.uniform(low, high), shop)
            x += width
