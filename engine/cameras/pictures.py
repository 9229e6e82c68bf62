"""Frames of cameras, stored as JPEG files in an index's folder.

The table `pictures` of the index lists them. Files with such names that it does not list were left
by a killed process, and are removed. Other files in the folder are not those of this program.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from engine.index.people import PICTURES, People
from engine.index.records import camera_of, camera_path
from utils.files import make_folder, remove, written_beside

FOLDER = "pictures"
NAMES = re.compile(r"\d+\.\d{3}\.jpg((\.\d+)?\.part)?")  # of pictures, and of incomplete ones
QUALITY = 85
Place = tuple[str, float]  # a camera's name, and seconds since 1970 in whole milliseconds


def picture_path(folder: Path, camera: str, time: float) -> Path:
    """Return the file of a camera's frame in the index `folder`."""
    return folder / FOLDER / camera / f"{time:.3f}.jpg"


class Pictures:
    """The pictures of an index that is being written.

    Args:
        people: the index's database.
        folder: the index's folder.
    """

    def __init__(self, people: People, folder: Path):
        self.people, self.folder = people, folder
        with people.changing() as db:
            db.execute(PICTURES)
        listed = {picture_path(folder, *place) for place, _ in self._rows()}
        for path in (folder / FOLDER).glob("*/*"):
            if path not in listed and NAMES.fullmatch(path.name):
                remove(path)
        self.bytes = sum(size for _, size in self._rows())

    def write(self, place: Place, pixels: Tensor) -> int:
        """Write a frame, [3, H, W] uint8, and return its size in bytes; `add` lists it.

        Raises:
            UserError: if it cannot be written.
        """
        path, data = picture_path(self.folder, *place), io.BytesIO()
        make_folder(path.parent, "--index")
        to_pil_image(pixels).save(data, "JPEG", quality=QUALITY)
        with written_beside(path) as file:
            file.write(data.getbuffer())
        return data.tell()

    def add(self, place: Place, size: int, pinned: bool) -> None:
        """Add a stored picture to the list."""
        camera, time = place
        with self.people.changing() as db:
            db.execute(
                "INSERT OR REPLACE INTO pictures SELECT id, ?, ?, ? FROM sources WHERE path = ?",
                [time, size, pinned, os.fsencode(camera_path(camera))],
            )
        self.bytes += size

    def drop(self, places: Iterable[Place]) -> list[Path]:
        """Remove pictures from the list. Return their files, which the caller erases after the
        transaction."""
        files = []
        with self.people.changing() as db:
            for camera, time in places:
                rows = db.execute(
                    "DELETE FROM pictures WHERE time = ? AND source = "
                    "(SELECT id FROM sources WHERE path = ?) RETURNING bytes",
                    [time, os.fsencode(camera_path(camera))],
                ).fetchall()
                self.bytes -= sum(size for (size,) in rows)
                files.append(picture_path(self.folder, camera, time))
        return files

    def is_pinned(self, place: Place) -> bool:
        """Return whether a picture belongs to an alarm."""
        rows = self.people.select(
            "SELECT 1 FROM pictures JOIN sources ON source = sources.id "
            "WHERE time = ? AND path = ? AND pinned",
            [place[1], os.fsencode(camera_path(place[0]))],
        )
        return bool(rows)

    def oldest_beyond(self, most: float) -> list[Place]:
        """Return the oldest pictures that must be removed so that the others have at most `most`
        bytes."""
        beyond, places = self.bytes - most, []
        for place, size in self._rows():
            if beyond <= 0:
                break
            places.append(place)
            beyond -= size
        return places

    def before(self, time: float) -> list[Place]:
        """Return the pictures that are older than `time`."""
        return [place for place, _ in self._rows() if place[1] < time]

    def _rows(self) -> Iterator[tuple[Place, int]]:
        """Yield the place and the size of each picture, oldest first."""
        for path, time, size in self.people.select(
            "SELECT path, time, pictures.bytes FROM pictures JOIN sources ON source = sources.id "
            "ORDER BY time"
        ):
            yield (camera_of(Path(os.fsdecode(path))) or "", float(time)), int(size)
