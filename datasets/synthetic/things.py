"""Objects in a scene other than people.

Each function draws an object with its foot at (x, y); p is the height of a person there, in pixels.
"""

from datasets.synthetic.stage import LEAVES, PAINT, Stage, shade_of, some, tinted


def _tree(s: Stage, x: float, y: float, p: float) -> None:
    s.draw.polygon(
        [
            (x - 0.1 * p, y),
            (x + 0.1 * p, y),
            (x + 0.06 * p, y - 1.3 * p),
            (x - 0.06 * p, y - 1.3 * p),
        ],
        tinted(s.rng, (98, 76, 58)),
    )
    s.blob(x, y - 1.7 * p, 0.75 * p, some(s.rng, LEAVES))


def _bush(s: Stage, x: float, y: float, p: float) -> None:
    s.blob(x, y - 0.2 * p, 0.32 * p, some(s.rng, LEAVES))


def _lamp(s: Stage, x: float, y: float, p: float) -> None:
    colour = some(s.rng, ((58, 62, 66), (120, 124, 128), (44, 70, 60)))
    s.draw.rectangle([x - 0.035 * p, y - 2.3 * p, x + 0.035 * p, y], colour)
    s.draw.rectangle([x - 0.07 * p, y - 0.2 * p, x + 0.07 * p, y], colour)
    s.draw.ellipse([x - 0.13 * p, y - 2.5 * p, x + 0.13 * p, y - 2.25 * p], (244, 236, 204))


def _post(s: Stage, x: float, y: float, p: float) -> None:
    colour, w, h = some(s.rng, PAINT), 0.07 * p, p * s.rng.uniform(0.5, 1.0)
    s.draw.rectangle([x - w, y - h, x + w, y], colour)
    s.draw.ellipse([x - w, y - h - w, x + w, y - h + w], shade_of(colour, 1.15))
    s.draw.rectangle([x - w, y - h * 0.8, x + w, y - h * 0.65], (232, 230, 224))


def _bin(s: Stage, x: float, y: float, p: float) -> None:
    colour, w, h = some(s.rng, PAINT), 0.16 * p, 0.55 * p
    s.draw.polygon([(x - w, y - h), (x + w, y - h), (x + 0.8 * w, y), (x - 0.8 * w, y)], colour)
    s.draw.polygon(
        [(x + 0.4 * w, y - h), (x + w, y - h), (x + 0.8 * w, y), (x + 0.4 * w, y)],
        shade_of(colour, 0.75),
    )
    s.draw.ellipse([x - w, y - h - 0.07 * p, x + w, y - h + 0.07 * p], shade_of(colour, 0.6))


def _mannequin(s: Stage, x: float, y: float, p: float) -> None:
    """Draw a tailor's dummy: clothes on a stand, without a head and legs."""
    colour, d = some(s.rng, PAINT), s.draw
    d.line([x, y, x, y - 0.5 * p], (70, 66, 62), max(2, int(0.04 * p)))
    d.ellipse([x - 0.14 * p, y - 0.05 * p, x + 0.14 * p, y + 0.02 * p], (70, 66, 62))
    d.polygon(
        [
            (x - 0.1 * p, y - 0.45 * p),
            (x + 0.1 * p, y - 0.45 * p),
            (x + 0.08 * p, y - 0.62 * p),
            (x + 0.14 * p, y - 0.82 * p),
            (x + 0.05 * p, y - 0.88 * p),
            (x - 0.05 * p, y - 0.88 * p),
            (x - 0.14 * p, y - 0.82 * p),
            (x - 0.08 * p, y - 0.62 * p),
        ],
        colour,
    )
    d.ellipse([x - 0.04 * p, y - 0.94 * p, x + 0.04 * p, y - 0.84 * p], (206, 190, 168))


def _statue(s: Stage, x: float, y: float, p: float) -> None:
    """Draw a stone figure on a pedestal."""
    stone, d = some(s.rng, ((168, 166, 158), (120, 128, 116), (196, 188, 172))), s.draw
    d.rectangle(
        [x - 0.24 * p, y - 0.5 * p, x + 0.24 * p, y], shade_of(stone, 0.85), shade_of(stone, 0.7)
    )
    d.polygon(
        [
            (x - 0.15 * p, y - 0.5 * p),
            (x + 0.15 * p, y - 0.5 * p),
            (x + 0.13 * p, y - 1.1 * p),
            (x - 0.13 * p, y - 1.1 * p),
        ],
        stone,
    )
    d.ellipse([x - 0.08 * p, y - 1.28 * p, x + 0.08 * p, y - 1.09 * p], shade_of(stone, 1.06))


def _sign(s: Stage, x: float, y: float, p: float) -> None:
    d, colour = s.draw, some(s.rng, PAINT)
    d.rectangle([x - 0.025 * p, y - 1.25 * p, x + 0.025 * p, y], (120, 122, 126))
    box = [x - 0.17 * p, y - 1.45 * p, x + 0.17 * p, y - 1.1 * p]
    (d.ellipse if s.rng.random() < 0.5 else d.rectangle)(
        box, colour, (236, 234, 228), max(2, int(0.03 * p))
    )


def _poster(s: Stage, x: float, y: float, p: float) -> None:
    d, top = s.draw, y - 1.15 * p
    d.rectangle(
        [x - 0.3 * p, top, x + 0.3 * p, y - 0.1 * p],
        some(s.rng, PAINT),
        (60, 60, 62),
        max(2, int(0.03 * p)),
    )
    for k in range(4):
        h = top + (0.15 + 0.2 * k) * p
        d.rectangle(
            [x - 0.2 * p, h, x + s.rng.uniform(0, 0.2) * p, h + 0.09 * p], some(s.rng, PAINT)
        )
    d.line([x - 0.25 * p, y, x - 0.25 * p, y - 0.1 * p], (60, 60, 62), 4)
    d.line([x + 0.25 * p, y, x + 0.25 * p, y - 0.1 * p], (60, 60, 62), 4)


def _bench(s: Stage, x: float, y: float, p: float) -> None:
    wood = some(s.rng, ((146, 104, 68), (96, 110, 86), (170, 140, 104)))
    for h in (0.5, 0.4, 0.26):
        s.draw.rectangle(
            [x - 0.5 * p, y - h * p, x + 0.5 * p, y - (h - 0.065) * p],
            shade_of(wood, 0.7 + 0.6 * h),
        )
    for q in (-0.42, 0.42):
        s.draw.rectangle([x + (q - 0.03) * p, y - 0.5 * p, x + (q + 0.03) * p, y], (62, 62, 66))


def _car(s: Stage, x: float, y: float, p: float) -> None:
    d, colour, m = s.draw, some(s.rng, PAINT), 1 if s.rng.random() < 0.5 else -1

    def at(points):
        return [(x + m * a * p, y - b * p) for a, b in points]

    d.polygon(
        at(
            [
                (-1.15, 0.15),
                (1.2, 0.15),
                (1.2, 0.42),
                (0.75, 0.5),
                (0.4, 0.82),
                (-0.6, 0.84),
                (-1.0, 0.52),
                (-1.17, 0.48),
            ]
        ),
        colour,
        shade_of(colour, 0.6),
    )
    d.polygon(at([(0.66, 0.5), (0.36, 0.76), (-0.05, 0.77), (-0.05, 0.5)]), (66, 80, 94))
    d.polygon(at([(-0.12, 0.5), (-0.12, 0.77), (-0.56, 0.78), (-0.85, 0.52)]), (66, 80, 94))
    d.polygon(at([(1.1, 0.42), (1.2, 0.4), (1.2, 0.32), (1.1, 0.32)]), (248, 238, 190))
    for q in (-0.72, 0.75):
        for r, tone in ((0.2, (32, 32, 36)), (0.1, (170, 172, 176))):
            cx, cy = at([(q, 0.18)])[0]
            d.ellipse([cx - r * p, cy - r * p, cx + r * p, cy + r * p], tone)


def _bicycle(s: Stage, x: float, y: float, p: float) -> None:
    d, colour, w = s.draw, some(s.rng, PAINT), max(2, int(0.03 * p))
    for q in (-0.3, 0.3):
        d.ellipse([x + (q - 0.2) * p, y - 0.4 * p, x + (q + 0.2) * p, y], None, (40, 40, 44), w)
    frame = [
        (-0.3, 0.2),
        (-0.1, 0.5),
        (0.2, 0.5),
        (0.0, 0.2),
        (-0.3, 0.2),
        (0.0, 0.2),
        (-0.12, 0.56),
    ]
    d.line([(x + a * p, y - b * p) for a, b in frame], colour, w + 1)
    d.line(
        [(x + a * p, y - b * p) for a, b in [(0.3, 0.2), (0.19, 0.62), (0.27, 0.64)]], colour, w + 1
    )
    d.line([x - 0.18 * p, y - 0.57 * p, x - 0.06 * p, y - 0.57 * p], (40, 36, 34), w + 2)


def _parasol(s: Stage, x: float, y: float, p: float) -> None:
    d, colour = s.draw, some(s.rng, PAINT)
    d.line([x, y, x, y - 1.3 * p], (120, 104, 88), max(2, int(0.03 * p)))
    d.rectangle([x - 0.28 * p, y - 0.42 * p, x + 0.28 * p, y - 0.37 * p], (226, 222, 214))
    for k in range(6):
        a, b = (-0.66 + 0.22 * k) * p, (-0.44 + 0.22 * k) * p
        d.polygon(
            [(x, y - 1.5 * p), (x + a, y - 1.2 * p), (x + b, y - 1.2 * p)],
            colour if k % 2 else (234, 230, 222),
        )


THINGS = {  # each with half its width and its height, which occlude, in heights of a person
    "tree": (_tree, 0.1, 1.4),
    "bush": (_bush, 0.3, 0.5),
    "lamp": (_lamp, 0.06, 2.3),
    "post": (_post, 0.08, 1.0),
    "bin": (_bin, 0.16, 0.6),
    "mannequin": (_mannequin, 0.14, 0.94),
    "statue": (_statue, 0.24, 1.3),
    "sign": (_sign, 0.17, 1.45),
    "poster": (_poster, 0.3, 1.15),
    "bench": (_bench, 0.5, 0.5),
    "car": (_car, 1.15, 0.84),
    "bicycle": (_bicycle, 0.5, 0.64),
    "parasol": (_parasol, 0.3, 1.3),
}
FITTING = (  # the objects of each place
    ("lamp", "car", "car", "bicycle", "sign", "bin", "poster", "mannequin", "post", "parasol"),
    ("tree", "tree", "bush", "bench", "statue", "bin", "bicycle", "lamp"),
    ("parasol", "bench", "lamp", "statue", "poster", "post", "tree", "sign"),
    ("mannequin", "mannequin", "poster", "bin", "bush", "sign", "bench", "post"),
    ("tree", "bicycle", "bicycle", "bush", "bench", "lamp", "statue", "sign"),
    ("lamp", "bench", "parasol", "post", "bin", "bicycle", "poster", "mannequin"),
)
