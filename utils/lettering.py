"""Text on pictures in a font that is always available.

Characters without a glyph are escaped instead of drawn as empty boxes, and long names are wrapped
instead of cut.
"""

import bisect
import functools
import os
import unicodedata

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

FONT = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.lru_cache(maxsize=32)
def font(size: float) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans, which is part of matplotlib, in a size in pixels."""
    return ImageFont.truetype(FONT, size)


@functools.lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the code points for which the font has a glyph."""
    return frozenset(FT2Font(FONT).get_charmap())


def drawable(text: str) -> str:
    """Escape the characters that the font does not contain, as Python does: \\uXXXX."""
    return "".join(
        c if c == "\n" or (ord(c) in _glyphs() and c.isprintable()) else ascii(c)[1:-1]
        for c in unicodedata.normalize("NFC", text)
    )


def wrapped(text: str, letters: ImageFont.FreeTypeFont, width: float) -> str:
    """Break the text into lines of at most `width` pixels. Lines may be broken between any two
    characters."""
    lines = []
    for line in text.split("\n"):
        while letters.getlength(line) > width and len(line) > 1:
            fits = bisect.bisect(
                range(1, len(line)), width, key=lambda n: letters.getlength(line[:n])
            )
            lines.append(line[: max(fits, 1)])
            line = line[max(fits, 1) :]
        lines.append(line)
    return "\n".join(lines)
