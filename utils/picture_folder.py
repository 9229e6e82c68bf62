"""Pictures in a folder of results, which replace those of an earlier run."""

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from utils.drawing import save_picture
from utils.errors import UserError
from utils.files import file_digest, read_text, remove, write_text

RECORD = ".drawings.json"  # the name and the digest of each picture that was written


def replace_pictures(folder: Path, pictures: Iterable[tuple[str, Image.Image]]) -> None:
    """Write pictures into a folder, and remove those that the previous call has written there.

    All other files stay, also a picture of the previous call that was changed since.

    Args:
        folder: an existing folder.
        pictures: the name and the content of each picture.

    Raises:
        UserError: if a file cannot be written or removed. The previous pictures then stay.
    """
    written = {}
    for name, picture in pictures:
        save_picture(picture, folder / name)
        written[name] = file_digest(folder / name, "")
    taken = {name.casefold() for name in written}  # equal names in some file systems
    for name, digest in _recorded(folder).items():
        if name.casefold() not in taken and _has_digest(folder / name, digest):
            remove(folder / name)
    write_text(json.dumps(written, indent=1) + "\n", folder / RECORD)


def _recorded(folder: Path) -> dict[str, str]:
    """Return the digest of each picture in the record by its name; {} without a valid record."""
    try:
        record = json.loads(read_text(folder / RECORD, ""))
        return {name: digest for name, digest in record.items() if name == Path(name).name}
    except (UserError, ValueError, AttributeError, RecursionError):
        return {}


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return file_digest(path, "") == digest
    except UserError:  # it is gone, or no file
        return False
