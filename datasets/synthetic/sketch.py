"""A canvas in body coordinates on which a person is drawn."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


class Sketch:
    """A canvas in body coordinates. Parts are painted on top of each other with soft shading.

    Args:
        pixels: the height of a person.
        light: its direction, -1 (from the left) to 1 (from the right).
    """

    def __init__(self, pixels: float, light: float):
        self.s, self.light = pixels, light
        self.w, self.h = int(pixels * 0.92) + 4, int(pixels * 1.14) + 4
        self.x0, self.y0 = self.w / 2, self.h - 2 - 0.03 * pixels  # the origin of body coordinates
        self.rgb = np.zeros((self.h, self.w, 3), np.float32)
        self.alpha = np.zeros((self.h, self.w), np.float32)

    def at(self, points) -> np.ndarray:
        """Convert body coordinates [n, 2] to pixels of the canvas."""
        return np.asarray(points, np.float32) * (self.s, -self.s) + (self.x0, self.y0)

    def paint(
        self, draw, points, radius: float, fill, dark: float = 1.0, soft: float = 0.045
    ) -> None:
        """Paint the shape that `draw(ImageDraw, points)` draws, with soft shading.

        Args:
            draw: Draws the shape with the value 255.
            points: Its points [n, 2] in body coordinates.
            radius: How far the shape extends beyond the points, in body heights.
            fill: RGB, or a function of x, y in body heights that returns it.
            dark: Factor of the brightness.
            soft: Radius of the shading, in body heights.
        """
        points = self.at(points)
        pad = radius * self.s + 2
        left, top = np.maximum(np.floor(points.min(0) - pad), 0).astype(int)
        right, low = np.minimum(np.ceil(points.max(0) + pad), (self.w, self.h)).astype(int)
        if right <= left or low <= top:
            return
        mask = Image.new("L", (int(right - left), int(low - top)))
        draw(ImageDraw.Draw(mask), points - (left, top))
        blurred = np.asarray(mask.filter(ImageFilter.GaussianBlur(soft * self.s)), np.float32)
        shift = round(self.light * soft * self.s * 0.8)
        glow = np.roll(blurred / 255, shift, 1)[..., None]
        area = np.s_[top:low, left:right]
        if callable(fill):
            ys, xs = np.mgrid[top:low, left:right].astype(np.float32)
            fill = fill((xs - self.x0) / self.s, (self.y0 - ys) / self.s)
        colour = np.float32(fill) * dark * (0.58 + 0.5 * glow)
        m = np.asarray(mask, np.float32) / 255
        self.rgb[area] += (colour - self.rgb[area]) * m[..., None]
        self.alpha[area] = np.maximum(self.alpha[area], m)

    def limb(self, points, radii, fill, dark: float = 1.0) -> None:
        """Paint a chain of joints [n, 2], with the radius at each in body heights."""

        def draw(d, p):
            for a, b, ra, rb in zip(p[:-1], p[1:], radii[:-1], radii[1:]):
                ra, rb = ra * self.s, rb * self.s
                side = np.array([-(b - a)[1], (b - a)[0]]) / max(np.hypot(*(b - a)), 1e-3)
                corners = (a + side * ra, b + side * rb, b - side * rb, a - side * ra)
                d.polygon([tuple(corner) for corner in corners], 255)
                for centre, r in ((a, ra), (b, rb)):
                    d.ellipse([*(centre - r), *(centre + r)], 255)

        self.paint(draw, points, max(radii), fill, dark)

    def shape(self, points, fill, dark: float = 1.0) -> None:
        """Paint a polygon [n, 2]."""
        self.paint(
            lambda d, p: d.polygon([tuple(q) for q in p], 255), points, 0.02, fill, dark, 0.06
        )

    def oval(self, x: float, y: float, rx: float, ry: float, fill, dark: float = 1.0) -> None:
        """Paint an ellipse."""
        corners = [(x - rx, y + ry), (x + rx, y - ry)]
        self.paint(lambda d, p: d.ellipse([*p[0], *p[1]], 255), corners, 0.01, fill, dark)

    def image(self) -> Image.Image:
        """Return the canvas as an RGBA image."""
        rgba = np.dstack([self.rgb, self.alpha * 255])
        return Image.fromarray(np.clip(rgba, 0, 255).astype(np.uint8), "RGBA")
