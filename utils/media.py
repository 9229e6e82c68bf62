"""Pictures as pixels, the one place where they enter: as a person sees them in a viewer.

8 bits a channel, RGB. Transparency and palettes are shown on white, 16-bit grey is scaled, of an
animation the first frame counts. `upright` follows the orientation that phones write into EXIF.
People's own pictures are read upright, own data too. Images of a published dataset are not: its
boxes count stored pixels, as the published loaders do (docs/faithful.md).
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from utils.errors import UserError, no_memory, reason_of
from utils.limits import MAX_PIXELS

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:  # only some users have such pictures: `_reason` says what is missing
    pass

LONGEST = 50  # a picture is at most so many times as long as wide
# The formats that Pillow may open. Some others start a program (EPS and WMF: Ghostscript) or are
# names without a decoder.
FORMATS = {
    *("AVIF", "BMP", "CUR", "DCX", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "IM", "JPEG"),
    *("JPEG2000", "MPO", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN"),
    *("TGA", "TIFF", "WEBP", "XBM", "XPM"),
}
HEIC = {".heic", ".heif", ".hif"}
TURNS = {  # EXIF's orientation -> how the stored pixels become upright ones
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(UserError):
    """The file is missing or is no whole picture: its own fault, others can still be read. (What
    this machine cannot read, for want of permission or memory, is a plain UserError.)"""


def readable_formats() -> list[str]:
    """Return the names of the formats that this Pillow can open and that may be opened."""
    Image.init()
    return [name for name in Image.ID if name in FORMATS]


@contextmanager
def open_picture(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open a picture with Pillow; only its header is read.

    Raises:
        PictureError: if the file is missing, damaged, no picture, has more than `max_pixels` pixels
            or an aspect ratio above LONGEST; also if decoding within the block finds damage.
        UserError: if the system cannot read it, for want of permission or memory.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe or a device may never end
            raise PictureError(f"{path}: expected a picture, found no regular file")
        with Image.open(path, formats=readable_formats()) as image:
            check_size(path, *image.size, max_pixels)
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise PictureError(f"{path}: missing image") from None
    except Exception as error:  # each of Pillow's decoders has its own kinds
        code = getattr(error, "errno", None)  # EINVAL: a place that the file itself names
        if no_memory(error) or code not in (None, errno.EINVAL):
            raise UserError(f"{path}: cannot be read ({reason_of(error)})") from None
        raise PictureError(f"{path}: {_reason(path, error)}") from None


def _reason(path: str | Path, error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"too large ({said.split(',')[0]})"
    if isinstance(error, Image.UnidentifiedImageError):
        if Path(path).suffix.lower() in HEIC and ".heic" not in Image.registered_extensions():
            return "needs the package pillow-heif; install it with pip install pillow-heif"
        return "damaged image (none that Pillow knows)"
    return f"damaged image ({said})"


def read_pixels(path: str | Path, upright: bool, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode a picture to [3, H, W] uint8, RGB.

    torchvision decodes colour JPEGs that need no rotation: the same bits as Pillow in half the
    time. Pillow decodes all others, and those that torchvision refuses.
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
    """Decode a picture to an RGB image; errors as in open_picture."""
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
    """Raises: PictureError: if a picture or frame of this size is too large or too narrow."""
    if width * height > max_pixels:
        raise PictureError(
            f"{path}: expected at most {max_pixels:,} pixels (INPUT.MAX_PIXELS), found "
            f"{width} x {height}"
        )
    if max(width, height) > LONGEST * min(width, height):
        raise PictureError(
            f"{path}: expected a picture at most {LONGEST} times as long as wide, found "
            f"{width} x {height} pixels, whose shorter side would vanish"
        )


def orientation(path: str | Path) -> int:
    """Return the EXIF orientation, 1 (upright) to 8, of the picture at `path`."""
    with open_picture(path, sys.maxsize) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8, and 1 where it says nothing that can be read. Pillow itself turns TIFFs."""
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged EXIF does not spoil the pixels
        return 1
    return found if found in TURNS else 1


def to_rgb(image: Image.Image, upright: bool) -> Image.Image:
    """An opened image of any mode as RGB, turned as EXIF says where `upright`."""
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
    """[H, W] grey of any type and range -> uint8. Values up to 65535 lose their lower bits, as
    Pillow reads 16-bit colours; up to 255 or 4095 they were 8 or 12 bits, kept in more. Floats up
    to 1 are shares, and any other range is stretched."""
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
