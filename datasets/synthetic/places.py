"""Backgrounds: six kinds of places, one for each camera, with small changes in each frame."""

import numpy as np

from datasets.synthetic.stage import LEAVES, PAINT, Stage, shade_of, some, tinted


def _street(s: Stage) -> None:
    s.sky()
    s.row(True, -0.1, 0.06)
    s.gradient(s.ground, s.h, tinted(s.rng, (168, 164, 158)), tinted(s.rng, (150, 146, 142)))
    s.perspective((134, 130, 126), 26, 9)
    if s.rng.random() < 0.7:
        y0, y1 = s.ground + (s.h - s.ground) * np.array([0.1, 0.45])
        s.draw.rectangle([0, y0, s.w, y1], tinted(s.rng, (92, 92, 98), 8))
        for x in np.arange(-s.rng.uniform(0, 60), s.w, s.w / 8):
            s.draw.rectangle([x, (y0 + y1) / 2, x + s.w / 18, (y0 + y1) / 2 + 5], (220, 218, 206))


def _park(s: Stage) -> None:
    s.sky()
    for _ in range(16):
        s.blob(
            s.rng.uniform(0, s.w),
            s.ground - s.h * s.rng.uniform(0.02, 0.14),
            s.h * s.rng.uniform(0.06, 0.13),
            some(s.rng, LEAVES),
        )
    s.gradient(s.ground, s.h, tinted(s.rng, (118, 150, 78)), tinted(s.rng, (92, 132, 66)))
    a, b, path = s.rng.uniform(0.2, 0.8), s.rng.uniform(0, 1), tinted(s.rng, (198, 178, 142))
    s.draw.polygon(
        [
            ((a - 0.02) * s.w, s.ground),
            ((a + 0.02) * s.w, s.ground),
            ((b + 0.35) * s.w, s.h),
            ((b - 0.35) * s.w, s.h),
        ],
        path,
    )
    for _ in range(60):
        x, y = s.rng.uniform(0, s.w), s.rng.uniform(s.ground, s.h)
        r = 1 + 4 * (y - s.horizon) / (s.h - s.horizon)
        s.draw.ellipse(
            [x - r, y - r, x + r, y + r],
            some(s.rng, ((236, 226, 120), (216, 130, 150), (70, 104, 52), (240, 240, 236))),
        )


def _plaza(s: Stage) -> None:
    s.sky()
    s.row(False, 0.0, 0.2)
    a, b = (
        some(s.rng, ((196, 184, 168), (176, 178, 184), (190, 160, 136))),
        s.rng.uniform(0.8, 0.95),
    )
    s.gradient(s.ground, s.h, a, shade_of(a, b))
    s.perspective(shade_of(a, 0.8), 34, 14)
    x, y, r = s.rng.uniform(0.2, 0.8) * s.w, s.ground + s.h * 0.03, s.h * 0.16
    s.draw.ellipse([x - r, y - r * 0.22, x + r, y + r * 0.25], (168, 164, 160), (120, 118, 116), 3)
    s.draw.ellipse([x - r * 0.85, y - r * 0.18, x + r * 0.85, y + r * 0.16], (110, 156, 184))


def _hall(s: Stage) -> None:
    wall = some(s.rng, ((216, 208, 192), (188, 196, 204), (208, 190, 160)))
    s.gradient(0, s.ground + 2, shade_of(wall, 0.8), wall)
    for x in np.arange(s.rng.uniform(-0.2, 0) * s.w, s.w, s.w * 0.24):
        pane, trim = (
            some(s.rng, ((62, 66, 78), (224, 214, 178), (126, 148, 160))),
            some(s.rng, PAINT),
        )
        s.draw.rectangle([x, s.h * 0.1, x + s.w * 0.2, s.ground], pane, (90, 90, 94), 3)
        s.draw.rectangle([x, s.h * 0.05, x + s.w * 0.2, s.h * 0.11], trim)
        for k in range(3):
            h = s.h * s.rng.uniform(0.04, 0.1)
            q = x + s.w * (0.02 + 0.06 * k)
            s.draw.rectangle([q, s.ground - h, q + s.w * 0.03, s.ground], some(s.rng, PAINT))
        s.draw.ellipse([x + s.w * 0.06, 2, x + s.w * 0.14, s.h * 0.03], (255, 250, 226))
    a = some(s.rng, ((206, 200, 192), (172, 168, 164), (150, 128, 108)))
    s.gradient(s.ground, s.h, shade_of(a, 1.08), shade_of(a, 0.86))
    s.perspective(shade_of(a, 0.84), 22, 10)


def _campus(s: Stage) -> None:
    s.sky()
    brick = some(s.rng, ((156, 84, 66), (176, 118, 92), (196, 168, 132)))
    s.draw.rectangle([0, s.h * 0.02, s.w, s.ground], brick)
    for k, y in enumerate(np.arange(s.h * 0.02, s.ground, s.h * 0.022)):
        s.draw.line([0, y, s.w, y], shade_of(brick, 0.86), 1)
        for x in np.arange((k % 2) * s.w * 0.015, s.w, s.w * 0.03):
            s.draw.line([x, y, x, y + s.h * 0.022], shade_of(brick, 0.86), 1)
    s.windows(0, s.w, 0, s.ground - s.h * 0.03, s.h * s.rng.uniform(0.07, 0.11))
    s.gradient(s.ground, s.h, tinted(s.rng, (126, 152, 84)), tinted(s.rng, (102, 136, 74)))
    y = s.ground + (s.h - s.ground) * s.rng.uniform(0.15, 0.5)
    s.draw.polygon(
        [(0, y), (s.w, y - s.h * 0.05), (s.w, y + s.h * 0.2), (0, y + s.h * 0.32)],
        tinted(s.rng, (178, 172, 166)),
    )


def _water(s: Stage) -> None:
    s.sky()
    sea, d = some(s.rng, ((70, 124, 158), (96, 140, 146), (60, 96, 134))), s.draw
    d.rectangle([0, s.horizon * 0.55, s.w, s.ground], sea)
    for _ in range(50):
        x, y = s.rng.uniform(0, s.w), s.rng.uniform(s.horizon * 0.6, s.ground)
        d.line([x, y, x + s.w * 0.03, y], shade_of(sea, s.rng.uniform(1.1, 1.3)), 2)
    for _ in range(int(s.rng.integers(1, 4))):
        x, y, r = (
            s.rng.uniform(0, s.w),
            s.horizon * s.rng.uniform(0.6, 0.9),
            s.h * s.rng.uniform(0.03, 0.06),
        )
        d.polygon(
            [(x - r, y), (x + r, y), (x + r * 0.7, y + r * 0.4), (x - r * 0.7, y + r * 0.4)],
            some(s.rng, PAINT),
        )
        d.polygon([(x, y - 2), (x, y - r * 1.7), (x + r * 0.8, y - 2)], (240, 236, 228))
    wood = some(s.rng, ((176, 140, 104), (150, 132, 118), (206, 182, 146)))
    s.gradient(s.ground, s.h, wood, shade_of(wood, 0.85))
    s.perspective(shade_of(wood, 0.78), 48, 2)
    rail = some(s.rng, ((235, 235, 230), (70, 74, 80)))
    for y in (s.ground - s.h * 0.1, s.ground - s.h * 0.05):
        d.line([0, y, s.w, y], rail, 4)
    for x in np.arange(0, s.w, s.w / 14):
        d.line([x, s.ground - s.h * 0.1, x, s.ground], rail, 5)


PLACES = (_street, _park, _plaza, _hall, _campus, _water)  # one for each camera
