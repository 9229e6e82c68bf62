"""Places of the synthetic scenes, and the things that stand about in them and are not people."""
import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def _tint(rng: np.random.Generator, colour: Colour, spread: float = 14) -> Colour:
    return tuple(int(v) for v in np.clip(np.array(colour) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3), 0, 255))


def _any(rng: np.random.Generator, colours, spread: float = 14) -> Colour:
    return _tint(rng, colours[int(rng.integers(len(colours)))], spread)


def _dark(colour: Colour, by: float) -> Colour:
    return tuple(int(min(255, v * by)) for v in colour)


WALLS = ((196, 178, 150), (170, 108, 88), (206, 200, 188), (150, 158, 168), (214, 190, 130), (128, 96, 84))
PAINT = ((170, 50, 50), (50, 80, 140), (225, 220, 210), (60, 110, 80), (60, 60, 66), (220, 180, 70), (120, 130, 140))
LEAVES = ((70, 112, 58), (92, 128, 62), (54, 92, 60), (128, 130, 58))


class Stage:
    """The picture while it is drawn: `w` x `h` pixels, ground from `ground` downwards, `horizon` for its lines."""

    def __init__(self, w: int, h: int, horizon: float, rng: np.random.Generator):
        self.image = Image.new("RGB", (w, h))
        self.draw, self.rng = ImageDraw.Draw(self.image), rng
        self.w, self.h, self.horizon, self.ground = w, h, horizon * h, (horizon + 0.09) * h

    def gradient(self, top: float, low: float, a: Colour, b: Colour) -> None:
        """Vertical gradient between two rows, with a little low-frequency dirt."""
        top, low = int(top), int(low)
        t = np.linspace(0, 1, max(low - top, 1), dtype=np.float32)[:, None, None]
        rgb = np.float32(a) * (1 - t) + np.float32(b) * t
        dirt = self.rng.normal(0, 5, (9, 16)).astype(np.float32)
        dirt = np.asarray(Image.fromarray(dirt).resize((self.w, rgb.shape[0]), Image.Resampling.BILINEAR))
        strip = np.clip(rgb + dirt[..., None], 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(strip), (0, top))

    def sky(self) -> None:
        a, b = [((120, 168, 218), (208, 222, 232)), ((176, 182, 190), (214, 214, 212)),
                ((214, 166, 138), (238, 208, 170))][int(self.rng.integers(3))]
        self.gradient(0, self.ground + 2, _tint(self.rng, a), _tint(self.rng, b))
        for _ in range(int(self.rng.integers(0, 4))):
            self.blob(self.rng.uniform(0, self.w), self.rng.uniform(0, self.horizon * 0.6), self.h * 0.1, (236, 238, 240), 0.4)

    def blob(self, x: float, y: float, r: float, colour: Colour, flat: float = 0.85) -> None:
        """A leafy or cloudy shape of several discs, lighter above."""
        for k in range(7):
            dx, dy = self.rng.uniform(-0.6, 0.6, 2) * r
            q = r * self.rng.uniform(0.45, 0.75)
            shade = _dark(colour, 0.78 + 0.06 * k)
            cx, cy = x + dx, y + dy * flat - k * 0.05 * r
            self.draw.ellipse([cx - q, cy - q * flat, cx + q, cy + q * flat], shade)

    def perspective(self, colour: Colour, lines: int, rows: int) -> None:
        """Paving: lines to the vanishing point and rows that draw together towards the horizon."""
        vx = self.w * self.rng.uniform(0.2, 0.8)
        for x in np.linspace(-1.5 * self.w, 2.5 * self.w, lines):
            t = (self.ground - self.horizon) / (self.h - self.horizon)
            self.draw.line([vx + (x - vx) * t, self.ground, x, self.h], colour, 2)
        for k in range(1, rows):
            y = self.horizon + (self.ground - self.horizon) * rows / (rows - k + 0.01)
            if y < self.h:
                self.draw.line([0, y, self.w, y], colour, 2)

    def windows(self, x0: float, x1: float, y0: float, y1: float, size: float) -> None:
        glass = _any(self.rng, ((70, 84, 104), (150, 176, 196), (52, 56, 64)))
        for y in np.arange(y0 + size * 0.5, y1 - size * 1.2, size * 1.7):
            for x in np.arange(x0 + size * 0.5, x1 - size, size * 1.5):
                lit = (236, 210, 140) if self.rng.random() < 0.08 else glass
                self.draw.rectangle([x, y, x + size * 0.8, y + size * 1.1], lit, (90, 86, 80))

    def building(self, x0: float, x1: float, top: float, shop: bool) -> None:
        wall, d, g = _any(self.rng, WALLS), self.draw, self.ground
        d.rectangle([x0, top, x1, g], wall, _dark(wall, 0.7))
        size = self.h * self.rng.uniform(0.045, 0.07)
        self.windows(x0, x1, top, g - self.h * (0.16 if shop else 0.0), size)
        if shop:
            y, paint = g - self.h * 0.17, _any(self.rng, PAINT)
            d.rectangle([x0 + 6, y, x1 - 6, g], _any(self.rng, ((58, 62, 70), (180, 190, 190), (110, 84, 64))))
            stripes = int((x1 - x0) / (self.h * 0.05)) + 1
            for k in range(stripes):
                a, b = x0 + (x1 - x0) * k / stripes, x0 + (x1 - x0) * (k + 1) / stripes
                d.polygon([(a, y), (b, y), (b, y + self.h * 0.05), (a, y + self.h * 0.05)], paint if k % 2 else (232, 228, 220))
            door = x0 + (x1 - x0) * self.rng.uniform(0.2, 0.7)
            d.rectangle([door, g - self.h * 0.11, door + self.h * 0.06, g], _dark(paint, 0.6))

    def row(self, shop: bool, low: float, high: float) -> None:
        x = -self.w * self.rng.uniform(0, 0.15)
        while x < self.w:
            width = self.w * self.rng.uniform(0.16, 0.4)
            self.building(x, x + width, self.h * self.rng.uniform(low, high), shop)
            x += width


def _street(s: Stage) -> None:
    s.sky()
    s.row(True, -0.1, 0.06)
    s.gradient(s.ground, s.h, _tint(s.rng, (168, 164, 158)), _tint(s.rng, (150, 146, 142)))
    s.perspective((134, 130, 126), 26, 9)
    if s.rng.random() < 0.7:
        y0, y1 = s.ground + (s.h - s.ground) * np.array([0.1, 0.45])
        s.draw.rectangle([0, y0, s.w, y1], _tint(s.rng, (92, 92, 98), 8))
        for x in np.arange(-s.rng.uniform(0, 60), s.w, s.w / 8):
            s.draw.rectangle([x, (y0 + y1) / 2, x + s.w / 18, (y0 + y1) / 2 + 5], (220, 218, 206))


def _park(s: Stage) -> None:
    s.sky()
    for _ in range(16):
        s.blob(s.rng.uniform(0, s.w), s.ground - s.h * s.rng.uniform(0.02, 0.14), s.h * s.rng.uniform(0.06, 0.13), _any(s.rng, LEAVES))
    s.gradient(s.ground, s.h, _tint(s.rng, (118, 150, 78)), _tint(s.rng, (92, 132, 66)))
    a, b, path = s.rng.uniform(0.2, 0.8), s.rng.uniform(0, 1), _tint(s.rng, (198, 178, 142))
    s.draw.polygon([((a - 0.02) * s.w, s.ground), ((a + 0.02) * s.w, s.ground), ((b + 0.35) * s.w, s.h), ((b - 0.35) * s.w, s.h)], path)
    for _ in range(60):
        x, y = s.rng.uniform(0, s.w), s.rng.uniform(s.ground, s.h)
        r = 1 + 4 * (y - s.horizon) / (s.h - s.horizon)
        s.draw.ellipse([x - r, y - r, x + r, y + r], _any(s.rng, ((236, 226, 120), (216, 130, 150), (70, 104, 52), (240, 240, 236))))


def _plaza(s: Stage) -> None:
    s.sky()
    s.row(False, 0.0, 0.2)
    a, b = _any(s.rng, ((196, 184, 168), (176, 178, 184), (190, 160, 136))), s.rng.uniform(0.8, 0.95)
    s.gradient(s.ground, s.h, a, _dark(a, b))
    s.perspective(_dark(a, 0.8), 34, 14)
    x, y, r = s.rng.uniform(0.2, 0.8) * s.w, s.ground + s.h * 0.03, s.h * 0.16
    s.draw.ellipse([x - r, y - r * 0.22, x + r, y + r * 0.25], (168, 164, 160), (120, 118, 116), 3)
    s.draw.ellipse([x - r * 0.85, y - r * 0.18, x + r * 0.85, y + r * 0.16], (110, 156, 184))


def _hall(s: Stage) -> None:
    wall = _any(s.rng, ((216, 208, 192), (188, 196, 204), (208, 190, 160)))
    s.gradient(0, s.ground + 2, _dark(wall, 0.8), wall)
    for x in np.arange(s.rng.uniform(-0.2, 0) * s.w, s.w, s.w * 0.24):
        pane, trim = _any(s.rng, ((62, 66, 78), (224, 214, 178), (126, 148, 160))), _any(s.rng, PAINT)
        s.draw.rectangle([x, s.h * 0.1, x + s.w * 0.2, s.ground], pane, (90, 90, 94), 3)
        s.draw.rectangle([x, s.h * 0.05, x + s.w * 0.2, s.h * 0.11], trim)
        for k in range(3):
            h = s.h * s.rng.uniform(0.04, 0.1)
            q = x + s.w * (0.02 + 0.06 * k)
            s.draw.rectangle([q, s.ground - h, q + s.w * 0.03, s.ground], _any(s.rng, PAINT))
        s.draw.ellipse([x + s.w * 0.06, 2, x + s.w * 0.14, s.h * 0.03], (255, 250, 226))
    a = _any(s.rng, ((206, 200, 192), (172, 168, 164), (150, 128, 108)))
    s.gradient(s.ground, s.h, _dark(a, 1.08), _dark(a, 0.86))
    s.perspective(_dark(a, 0.84), 22, 10)


def _campus(s: Stage) -> None:
    s.sky()
    brick = _any(s.rng, ((156, 84, 66), (176, 118, 92), (196, 168, 132)))
    s.draw.rectangle([0, s.h * 0.02, s.w, s.ground], brick)
    for k, y in enumerate(np.arange(s.h * 0.02, s.ground, s.h * 0.022)):
        s.draw.line([0, y, s.w, y], _dark(brick, 0.86), 1)
        for x in np.arange((k % 2) * s.w * 0.015, s.w, s.w * 0.03):
            s.draw.line([x, y, x, y + s.h * 0.022], _dark(brick, 0.86), 1)
    s.windows(0, s.w, 0, s.ground - s.h * 0.03, s.h * s.rng.uniform(0.07, 0.11))
    s.gradient(s.ground, s.h, _tint(s.rng, (126, 152, 84)), _tint(s.rng, (102, 136, 74)))
    y = s.ground + (s.h - s.ground) * s.rng.uniform(0.15, 0.5)
    s.draw.polygon([(0, y), (s.w, y - s.h * 0.05), (s.w, y + s.h * 0.2), (0, y + s.h * 0.32)], _tint(s.rng, (178, 172, 166)))


def _water(s: Stage) -> None:
    s.sky()
    sea, d = _any(s.rng, ((70, 124, 158), (96, 140, 146), (60, 96, 134))), s.draw
    d.rectangle([0, s.horizon * 0.55, s.w, s.ground], sea)
    for _ in range(50):
        x, y = s.rng.uniform(0, s.w), s.rng.uniform(s.horizon * 0.6, s.ground)
        d.line([x, y, x + s.w * 0.03, y], _dark(sea, s.rng.uniform(1.1, 1.3)), 2)
    for _ in range(int(s.rng.integers(1, 4))):
        x, y, r = s.rng.uniform(0, s.w), s.horizon * s.rng.uniform(0.6, 0.9), s.h * s.rng.uniform(0.03, 0.06)
        d.polygon([(x - r, y), (x + r, y), (x + r * 0.7, y + r * 0.4), (x - r * 0.7, y + r * 0.4)], _any(s.rng, PAINT))
        d.polygon([(x, y - 2), (x, y - r * 1.7), (x + r * 0.8, y - 2)], (240, 236, 228))
    wood = _any(s.rng, ((176, 140, 104), (150, 132, 118), (206, 182, 146)))
    s.gradient(s.ground, s.h, wood, _dark(wood, 0.85))
    s.perspective(_dark(wood, 0.78), 48, 2)
    rail = _any(s.rng, ((235, 235, 230), (70, 74, 80)))
    for y in (s.ground - s.h * 0.1, s.ground - s.h * 0.05):
        d.line([0, y, s.w, y], rail, 4)
    for x in np.arange(0, s.w, s.w / 14):
        d.line([x, s.ground - s.h * 0.1, x, s.ground], rail, 5)


PLACES = (_street, _park, _plaza, _hall, _campus, _water)  # one for each camera


# Things. Each draws itself standing at (x, y); p is the height of a person there, in pixels.

def _tree(s: Stage, x: float, y: float, p: float) -> None:
    s.draw.polygon([(x - 0.1 * p, y), (x + 0.1 * p, y), (x + 0.06 * p, y - 1.3 * p), (x - 0.06 * p, y - 1.3 * p)], _tint(s.rng, (98, 76, 58)))
    s.blob(x, y - 1.7 * p, 0.75 * p, _any(s.rng, LEAVES))


def _bush(s: Stage, x: float, y: float, p: float) -> None:
    s.blob(x, y - 0.2 * p, 0.32 * p, _any(s.rng, LEAVES))


def _lamp(s: Stage, x: float, y: float, p: float) -> None:
    colour = _any(s.rng, ((58, 62, 66), (120, 124, 128), (44, 70, 60)))
    s.draw.rectangle([x - 0.035 * p, y - 2.3 * p, x + 0.035 * p, y], colour)
    s.draw.rectangle([x - 0.07 * p, y - 0.2 * p, x + 0.07 * p, y], colour)
    s.draw.ellipse([x - 0.13 * p, y - 2.5 * p, x + 0.13 * p, y - 2.25 * p], (244, 236, 204))


def _post(s: Stage, x: float, y: float, p: float) -> None:
    colour, w, h = _any(s.rng, PAINT), 0.07 * p, p * s.rng.uniform(0.5, 1.0)
    s.draw.rectangle([x - w, y - h, x + w, y], colour)
    s.draw.ellipse([x - w, y - h - w, x + w, y - h + w], _dark(colour, 1.15))
    s.draw.rectangle([x - w, y - h * 0.8, x + w, y - h * 0.65], (232, 230, 224))


def _bin(s: Stage, x: float, y: float, p: float) -> None:
    colour, w, h = _any(s.rng, PAINT), 0.16 * p, 0.55 * p
    s.draw.polygon([(x - w, y - h), (x + w, y - h), (x + 0.8 * w, y), (x - 0.8 * w, y)], colour)
    s.draw.polygon([(x + 0.4 * w, y - h), (x + w, y - h), (x + 0.8 * w, y), (x + 0.4 * w, y)], _dark(colour, 0.75))
    s.draw.ellipse([x - w, y - h - 0.07 * p, x + w, y - h + 0.07 * p], _dark(colour, 0.6))


def _mannequin(s: Stage, x: float, y: float, p: float) -> None:
    """A tailor's dummy: clothes on a stand, no head, no legs."""
    colour, d = _any(s.rng, PAINT), s.draw
    d.line([x, y, x, y - 0.5 * p], (70, 66, 62), max(2, int(0.04 * p)))
    d.ellipse([x - 0.14 * p, y - 0.05 * p, x + 0.14 * p, y + 0.02 * p], (70, 66, 62))
    d.polygon([(x - 0.1 * p, y - 0.45 * p), (x + 0.1 * p, y - 0.45 * p), (x + 0.08 * p, y - 0.62 * p), (x + 0.14 * p, y - 0.82 * p),
               (x + 0.05 * p, y - 0.88 * p), (x - 0.05 * p, y - 0.88 * p), (x - 0.14 * p, y - 0.82 * p), (x - 0.08 * p, y - 0.62 * p)], colour)
    d.ellipse([x - 0.04 * p, y - 0.94 * p, x + 0.04 * p, y - 0.84 * p], (206, 190, 168))


def _statue(s: Stage, x: float, y: float, p: float) -> None:
    """A stone figure on a block."""
    stone, d = _any(s.rng, ((168, 166, 158), (120, 128, 116), (196, 188, 172))), s.draw
    d.rectangle([x - 0.24 * p, y - 0.5 * p, x + 0.24 * p, y], _dark(stone, 0.85), _dark(stone, 0.7))
    d.polygon([(x - 0.15 * p, y - 0.5 * p), (x + 0.15 * p, y - 0.5 * p), (x + 0.13 * p, y - 1.1 * p), (x - 0.13 * p, y - 1.1 * p)], stone)
    d.ellipse([x - 0.08 * p, y - 1.28 * p, x + 0.08 * p, y - 1.09 * p], _dark(stone, 1.06))


def _sign(s: Stage, x: float, y: float, p: float) -> None:
    d, colour = s.draw, _any(s.rng, PAINT)
    d.rectangle([x - 0.025 * p, y - 1.25 * p, x + 0.025 * p, y], (120, 122, 126))
    box = [x - 0.17 * p, y - 1.45 * p, x + 0.17 * p, y - 1.1 * p]
    (d.ellipse if s.rng.random() < 0.5 else d.rectangle)(box, colour, (236, 234, 228), max(2, int(0.03 * p)))


def _poster(s: Stage, x: float, y: float, p: float) -> None:
    d, top = s.draw, y - 1.15 * p
    d.rectangle([x - 0.3 * p, top, x + 0.3 * p, y - 0.1 * p], _any(s.rng, PAINT), (60, 60, 62), max(2, int(0.03 * p)))
    for k in range(4):
        h = top + (0.15 + 0.2 * k) * p
        d.rectangle([x - 0.2 * p, h, x + s.rng.uniform(0, 0.2) * p, h + 0.09 * p], _any(s.rng, PAINT))
    d.line([x - 0.25 * p, y, x - 0.25 * p, y - 0.1 * p], (60, 60, 62), 4)
    d.line([x + 0.25 * p, y, x + 0.25 * p, y - 0.1 * p], (60, 60, 62), 4)


def _bench(s: Stage, x: float, y: float, p: float) -> None:
    wood = _any(s.rng, ((146, 104, 68), (96, 110, 86), (170, 140, 104)))
    for h in (0.5, 0.4, 0.26):
        s.draw.rectangle([x - 0.5 * p, y - h * p, x + 0.5 * p, y - (h - 0.065) * p], _dark(wood, 0.7 + 0.6 * h))
    for q in (-0.42, 0.42):
        s.draw.rectangle([x + (q - 0.03) * p, y - 0.5 * p, x + (q + 0.03) * p, y], (62, 62, 66))


def _car(s: Stage, x: float, y: float, p: float) -> None:
    d, colour, m = s.draw, _any(s.rng, PAINT), 1 if s.rng.random() < 0.5 else -1
    def at(points):
        return [(x + m * a * p, y - b * p) for a, b in points]
    d.polygon(at([(-1.15, 0.15), (1.2, 0.15), (1.2, 0.42), (0.75, 0.5), (0.4, 0.82), (-0.6, 0.84), (-1.0, 0.52), (-1.17, 0.48)]), colour, _dark(colour, 0.6))
    d.polygon(at([(0.66, 0.5), (0.36, 0.76), (-0.05, 0.77), (-0.05, 0.5)]), (66, 80, 94))
    d.polygon(at([(-0.12, 0.5), (-0.12, 0.77), (-0.56, 0.78), (-0.85, 0.52)]), (66, 80, 94))
    d.polygon(at([(1.1, 0.42), (1.2, 0.4), (1.2, 0.32), (1.1, 0.32)]), (248, 238, 190))
    for q in (-0.72, 0.75):
        for r, tone in ((0.2, (32, 32, 36)), (0.1, (170, 172, 176))):
            cx, cy = at([(q, 0.18)])[0]
            d.ellipse([cx - r * p, cy - r * p, cx + r * p, cy + r * p], tone)


def _bicycle(s: Stage, x: float, y: float, p: float) -> None:
    d, colour, w = s.draw, _any(s.rng, PAINT), max(2, int(0.03 * p))
    for q in (-0.3, 0.3):
        d.ellipse([x + (q - 0.2) * p, y - 0.4 * p, x + (q + 0.2) * p, y], None, (40, 40, 44), w)
    frame = [(-0.3, 0.2), (-0.1, 0.5), (0.2, 0.5), (0.0, 0.2), (-0.3, 0.2), (0.0, 0.2), (-0.12, 0.56)]
    d.line([(x + a * p, y - b * p) for a, b in frame], colour, w + 1)
    d.line([(x + a * p, y - b * p) for a, b in [(0.3, 0.2), (0.19, 0.62), (0.27, 0.64)]], colour, w + 1)
    d.line([x - 0.18 * p, y - 0.57 * p, x - 0.06 * p, y - 0.57 * p], (40, 36, 34), w + 2)


def _parasol(s: Stage, x: float, y: float, p: float) -> None:
    d, colour = s.draw, _any(s.rng, PAINT)
    d.line([x, y, x, y - 1.3 * p], (120, 104, 88), max(2, int(0.03 * p)))
    d.rectangle([x - 0.28 * p, y - 0.42 * p, x + 0.28 * p, y - 0.37 * p], (226, 222, 214))
    for k in range(6):
        a, b = (-0.66 + 0.22 * k) * p, (-0.44 + 0.22 * k) * p
        d.polygon([(x, y - 1.5 * p), (x + a, y - 1.2 * p), (x + b, y - 1.2 * p)], colour if k % 2 else (234, 230, 222))


THINGS = {  # with half width and height of what hides others, in person heights
    "tree": (_tree, 0.1, 1.4), "bush": (_bush, 0.3, 0.5), "lamp": (_lamp, 0.06, 2.3), "post": (_post, 0.08, 1.0),
    "bin": (_bin, 0.16, 0.6), "mannequin": (_mannequin, 0.14, 0.94), "statue": (_statue, 0.24, 1.3),
    "sign": (_sign, 0.17, 1.45), "poster": (_poster, 0.3, 1.15), "bench": (_bench, 0.5, 0.5),
    "car": (_car, 1.15, 0.84), "bicycle": (_bicycle, 0.5, 0.64), "parasol": (_parasol, 0.3, 1.3)}
FITTING = (("lamp", "car", "car", "bicycle", "sign", "bin", "poster", "mannequin", "post", "parasol"),
           ("tree", "tree", "bush", "bench", "statue", "bin", "bicycle", "lamp"),
           ("parasol", "bench", "lamp", "statue", "poster", "post", "tree", "sign"),
           ("mannequin", "mannequin", "poster", "bin", "bush", "sign", "bench", "post"),
           ("tree", "bicycle", "bicycle", "bush", "bench", "lamp", "statue", "sign"),
           ("lamp", "bench", "parasol", "post", "bin", "bicycle", "poster", "mannequin"))
