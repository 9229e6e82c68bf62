"""Videos as pictures, one after the other."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from utils.errors import UserError
from utils.optional import optional


def read_frames(path: Path) -> Iterator[tuple[int, Image.Image]]:
    """(number from 1 on, RGB picture) of each frame.

    UserError where the file is missing, has no pictures, or is damaged: then after the frames
    before the damage.
    """
    av = optional("av", str(path), "requirements-index.txt")
    if not path.is_file():
        raise UserError(f"{path}: missing video")
    number = 0
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise UserError(f"{path}: expected a video, found no pictures in it")
            for number, frame in enumerate(video.decode(video=0), 1):
                yield number, frame.to_image()
    except av.error.FFmpegError as error:
        raise UserError(
            f"{path}: damaged video after {number} frames ({error.strerror or error})"
        ) from None
