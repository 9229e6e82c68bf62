"""Boxes with captions on pictures, crops, and contact sheets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from utils.files import written_beside
from utils.lettering import drawable, font, wrapped

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]  # x1 y1 x2 y2
Label = tuple[Box, str, "Style", ImageFont.FreeTypeFont]
INK, PAPER = (24, 28, 34), (255, 255, 255)
TALLEST = 4  # height of a tile over its width: a JPEG has at most 65,500 rows
SHOWN_AT = 1200  # typical display width in pixels, for which lines and text are sized


@dataclass(frozen=True)
class Style:
    """The style of a box.

    Attributes:
        color: of line and caption.
        strength: 0 is a thin line with a small caption, 1 a thick line.
    """

    color: Color
    strength: float = 0.5


@dataclass(frozen=True)
class Tile:
    """A picture on a contact sheet with a caption below and, if `color` is given, a frame."""

    image: Image.Image
    caption: str
    color: Color | None = None


PLAIN = Style((90, 200, 250))


def _text_color(background: Color) -> Color:
    """Return dark text on light backgrounds, light text on dark ones (ITU-R 601 luma)."""
    red, green, blue = background
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the area of the intersection of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _place(
    box: Sequence[float],
    size: tuple[float, float],
    canvas: tuple[int, int],
    taken: Sequence[Box],
) -> Box:
    """Return the position of a label that covers the least of the `taken` areas.

    Candidates are above the box, below it, and at its upper corners inside or beside it, all moved
    into the canvas.
    """
    (x1, y1, x2, y2), (width, height) = box, size
    corners = [
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y2),
        (x2 - width, y2),
        (x1, y1),
        (x2, y1),
        (x1 - width, y1),
    ]
    right, low = max(canvas[0] - width, 0), max(canvas[1] - height, 0)
    inside = [(min(max(x, 0), right), min(max(y, 0), low)) for x, y in corners]
    labels = [(x, y, x + width, y + height) for x, y in inside]
    # Whole pixels, so that rounding errors at touching edges do not decide.
    return min(labels, key=lambda label: round(sum(_overlap(label, other) for other in taken)))


def draw_boxes(
    image: Image.Image,
    boxes,
    captions: Sequence[str],
    styles: Style | Sequence[Style] = PLAIN,
    long_side: int | None = None,
) -> Image.Image:
    """Draw boxes with captions on a copy of the image.

    Strong boxes are drawn over weak ones, and their captions are placed first.

    Args:
        boxes: [n, 4] x1 y1 x2 y2 in pixels.
        captions: one text for each box; "" draws none.
        styles: one for all boxes, or one for each.
        long_side: longer side of the result in pixels. By default the image's own, but at least
            SHOWN_AT, so that captions on small images are legible.
    """
    side = long_side or max(*image.size, SHOWN_AT)
    scale = side / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    styles = [styles] * len(captions) if isinstance(styles, Style) else styles
    items = sorted(
        zip([[float(v) * scale for v in box] for box in boxes], captions, styles, strict=True),
        key=lambda item: item[2].strength,
    )
    draw, unit = ImageDraw.Draw(picture, "RGBA"), max(side / SHOWN_AT, 0.8)
    for box, _, style in items:
        _draw_box(draw, box, style, unit)
    taken: list[Box] = [  # upper parts of the boxes
        (x1, y1, x2, y1 + 0.3 * (y2 - y1)) for (x1, y1, x2, y2), _, _ in items
    ]
    labels: list[Label] = []
    for box, caption, style in reversed(items):
        if caption:
            letters = font(unit * (13 + 8 * style.strength))
            label = _place(box, _label_size(letters, drawable(caption)), size, taken)
            taken.append(label)
            labels.append((label, drawable(caption), style, letters))
    for drawn in reversed(labels):
        _draw_label(draw, *drawn)
    return picture


def _draw_box(draw: ImageDraw.ImageDraw, box: list[float], style: Style, unit: float) -> None:
    """Draw the outline between two thin dark lines, visible on any background."""
    x1, y1, x2, y2 = map(round, box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    width, edge = max(round(unit * (1.5 + 3.5 * style.strength)), 1), max(round(unit), 1)
    around = (x1 - edge, y1 - edge, x2 + edge, y2 + edge)
    draw.rectangle(around, outline=(0, 0, 0, 120), width=width + 2 * edge)
    draw.rectangle((x1, y1, x2, y2), outline=style.color, width=width)


def _label_size(letters: ImageFont.FreeTypeFont, caption: str) -> tuple[float, float]:
    return letters.getlength(caption) + 0.7 * letters.size, 1.4 * letters.size


def _draw_label(
    draw: ImageDraw.ImageDraw,
    label: Box,
    caption: str,
    style: Style,
    letters: ImageFont.FreeTypeFont,
) -> None:
    strong = style.strength >= 0.5
    ground = style.color if strong else INK
    draw.rounded_rectangle(
        label, radius=0.22 * letters.size, fill=(*ground, 255 if strong else 175)
    )
    middle = ((label[0] + label[2]) / 2, (label[1] + label[3]) / 2)
    draw.text(middle, caption, fill=_text_color(ground), font=letters, anchor="mm")


def cut_out(image: Image.Image, box, size: tuple[int, int], margin: float = 0.06) -> Image.Image:
    """Crop a box with a margin and resize the crop.

    The box (x1 y1 x2 y2, pixels) is enlarged about its centre to the aspect ratio of `size`
    (width, height) and moved into the image. Parts outside the image are black.
    """
    aspect = size[0] / size[1]
    x1, y1, x2, y2 = (float(v) for v in box)
    height = max((y2 - y1) * (1 + 2 * margin), (x2 - x1) * (1 + 2 * margin) / aspect, 2)
    width = max(height * aspect, 1)
    left = min(max((x1 + x2 - width) / 2, 0), max(image.width - width, 0))
    top = min(max((y1 + y2 - height) / 2, 0), max(image.height - height, 0))
    crop = image.crop((round(left), round(top), round(left + width), round(top + height)))
    return crop.resize(size, Image.Resampling.LANCZOS)


def contact_sheet(
    tiles: Sequence[Tile], columns: int, title: str = "", width: int = 1600
) -> Image.Image:
    """Arrange tiles in rows of `columns` below a title, on a sheet of `width` pixels."""
    gap, line, frame = 20, 19, 5
    small = font(line)
    tile_width = (width - gap) // columns - gap
    images = [_fitted(tile.image, tile_width) for tile in tiles]
    captions = [wrapped(drawable(tile.caption), small, tile_width) for tile in tiles]
    top = gap + (52 if title else 0)
    tops = []
    for first in range(0, len(tiles), columns):
        row = slice(first, first + columns)
        tops.append(top)
        lines = max(caption.count("\n") + 1 for caption in captions[row])
        top += max(image.height for image in images[row]) + round(lines * 1.25 * line) + 8 + gap
    sheet = Image.new("RGB", (width, top), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), drawable(title), fill=INK, font=font(27))
    for index, (tile, image) in enumerate(zip(tiles, images)):
        x, y = gap + index % columns * (tile_width + gap), tops[index // columns]
        sheet.paste(image, (x, y))
        if tile.color:
            edge = (x, y, x + image.width - 1, y + image.height - 1)
            draw.rectangle(edge, outline=tile.color, width=frame)
        below = (x, y + image.height + 8)
        draw.multiline_text(below, captions[index], fill=INK, font=small, spacing=5)
    return sheet


def _fitted(image: Image.Image, width: int) -> Image.Image:
    """Resize an image to a width, or to the height TALLEST · width if it would be higher."""
    scale = min(width / image.width, TALLEST * width / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.LANCZOS)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other on white."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures)
    result = Image.new("RGB", size, PAPER)
    top = 0
    for picture in pictures:
        result.paste(picture, (0, top))
        top += picture.height
    return result


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of the file's suffix, completely or not at all.

    Raises:
        UserError: if the file cannot be written.
    """
    with written_beside(path) as file:
        kind = Image.registered_extensions()[path.suffix.lower()]
        picture.save(file, format=kind, quality=92)
