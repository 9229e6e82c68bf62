"""Reading of images as a viewer shows them. No other module decodes images.

The result is RGB with 8 bits per channel. Transparent pixels become white, 16-bit grey is scaled,
and the first frame of an animation is used. With `upright` the EXIF orientation, which phones
write, is applied: to the images of users and custom data. It is not applied to the images of
published datasets, whose boxes refer to stored pixels (docs/faithful.md).
"""

import errno
import importlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from utils.errors import UserError, no_memory, reason_of
from utils.limits import MAX_PIXELS

LONGEST = 50  # maximum ratio of the longer to the shorter side
# The formats that Pillow may open. Of the others, some start a program (EPS and WMF: Ghostscript)
# and some have no decoder.
FORMATS = {
    *("AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "IM", "JPEG"),
    *("JPEG2000", "MPO", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN"),
    *("TGA", "TIFF", "WEBP", "XBM", "XPM"),
}
HEIC = {".heic", ".heif", ".hif"}
TURNS = {  # EXIF orientation -> operation that makes the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(UserError):
    """An error of one image: it is missing, damaged or too large, but others can still be read.

    If a file cannot be read for lack of permission or memory, a plain UserError is raised instead.
    """


def readable_formats() -> list[str]:
    """Return the names of the formats that this Pillow can open and that are allowed."""
    Image.init()
    return [name for name in Image.ID if name in FORMATS]


def open_image(path: str | Path) -> Image.Image:
    """Open an image of one of FORMATS with Pillow; only its header is read.

    pillow-heif is called directly, since its registration would change Pillow in the whole process.
    """
    try:
        return Image.open(path, formats=readable_formats())
    except Image.UnidentifiedImageError:
        heif = _pillow_heif()
        if heif is None or not heif.is_supported(path):
            raise
        return heif.HeifImageFile(path)


def _pillow_heif() -> ModuleType | None:
    """Return the package pillow-heif, or None if it is not installed."""
    try:
        return importlib.import_module("pillow_heif")
    except ImportError:
        return None


@contextmanager
def open_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture with Pillow; only its header is read.

    Raises:
        PictureError: if the file is missing, damaged or no image, or has more than `max_pixels`
            pixels or an aspect ratio above LONGEST; also if decoding within the block fails.
        UserError: if the system cannot read it, for lack of permission or memory.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading from a pipe may never end
            raise PictureError(f"{path}: expected a picture, found a folder, a pipe or a device")
        with open_image(path) as image:
            check_size(path, *image.size, max_pixels)
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise PictureError(f"{path}: missing image") from None
    except Exception as error:  # Pillow's decoders raise many types
        code = getattr(error, "errno", None)  # EINVAL: a wrong offset within the file
        if no_memory(error) or code not in (None, errno.EINVAL):
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        raise PictureError(f"{path}: {_reason(path, error)}") from None


def _reason(path: str | Path, error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large ({said.split(',')[0]})"
    if isinstance(error, Image.UnidentifiedImageError):
        if Path(path).suffix.lower() in HEIC and _pillow_heif() is None:
            return "needs the package pillow-heif; install it with pip install pillow-heif"
        return "damaged image (of no known format)"
    return f"damaged image ({said})"


def read_pixels(path: str | Path, upright: bool, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a picture to [3, H, W] uint8, RGB.

    Colour JPEGs that need no rotation are decoded by torchvision, which gives the same bits as
    Pillow and is faster (docs/speed.md). Pillow decodes all others, and those that torchvision
    refuses.
    """
    if (decoded := _read_jpeg(path, upright, max_pixels)) is not None:
        return decoded
    pixels = np.array(read_picture(path, upright, max_pixels))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _read_jpeg(path: str | Path, upright: bool, max_pixels: int) -> Tensor | None:
    with open_picture(path, max_pixels) as image:
        turned = upright and _orientation(image) != 1
        if turned or (image.format, image.mode) != ("JPEG", "RGB"):
            return None
    try:
        data = torch.from_numpy(np.fromfile(path, np.uint8))  # read_file takes UTF-8 names only
        return decode_jpeg(data, mode=ImageReadMode.RGB).contiguous()
    except (RuntimeError, OSError):  # damaged, or a torchvision without libjpeg
        return None


def read_picture(path: str | Path, upright: bool, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture to an RGB image. It raises the errors of `open_picture`."""
    with open_picture(path, max_pixels) as image:
        image.load()
        return to_rgb(image, upright)


def picture_size(path: str | Path, upright: bool, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return (width, height) in pixels; only the header is read."""
    with open_picture(path, max_pixels) as image:
        width, height = image.size
        turned = upright and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def check_size(path: str | Path, width: int, height: int, max_pixels: int) -> None:
    """Check the size of an image or a frame.

    Raises:
        PictureError: if it has too many pixels or is too narrow.
    """
    if width * height > max_pixels:
        raise PictureError(
            f"{path}: expected at most {max_pixels:,} pixels (INPUT.MAX_PIXELS), found "
            f"{width} x {height}"
        )
    if max(width, height) > LONGEST * min(width, height):
        raise PictureError(
            f"{path}: expected a longer side of at most {LONGEST} times the shorter one, found "
            f"{width} x {height} pixels"
        )


def orientation(path: str | Path) -> int:
    """Return the EXIF orientation, 1 (upright) to 8, of the picture at `path`."""
    with open_picture(path, sys.maxsize) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, or 1 if there is none. TIFFs are always rotated by Pillow
    itself."""
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the pixels can be read although EXIF is damaged
        return 1
    return found if found in TURNS else 1


def to_rgb(image: Image.Image, upright: bool) -> Image.Image:
    """Convert an opened image of any mode to RGB; with `upright`, apply its EXIF orientation."""
    turn = TURNS.get(_orientation(image)) if upright else None
    picture = _rgb(image)
    return picture if turn is None else picture.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Convert [H, W] grey values of any type and range to uint8.

    A maximum up to 255, 4095 or 65535 means 8, 12 or 16 bits, of which the lower ones are dropped,
    as Pillow does for 16-bit colours. Floats up to 1 are multiplied by 255. Any other range is
    stretched to 0 to 255.
    """
    shares = values.dtype.kind == "f"
    values = values.astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no finite pixel")
    low, high = float(finite.min()), float(finite.max())
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low < 0 or high >= 1 << 16:
        values = (values - low) * (255 / max(high - low, 1e-12))
    elif shares and high <= 1:
        values = np.rint(values * 255)
    else:
        values /= next(step for step in (1, 1 << 4, 1 << 8) if high < 256 * step)
    return values.astype(np.uint8)
