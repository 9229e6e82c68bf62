"""Copy the images of imported labels into a dataset's folder, and describe them."""

import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from datasets.coco_files import PersonRow
from datasets.importers.locate import Located, subset_of
from datasets.importers.records import Box, LabelledImage, Labels
from utils.errors import UserError, first_of, reason_of
from utils.files import make_folder
from utils.media import PictureError, picture_size
from utils.names import short_names

QUALITY = 95  # of the JPEG files that a video's frames become
# An image as train.json describes it, and the people in it.
SceneRows = tuple[dict, list[PersonRow]]


@dataclass
class Imported:
    """The result of importing one file's labels.

    Attributes:
        tracks, visibility: as in Labels.
        named: whether a box has a name, so that tracks are not used.
        subsets: "train", "test" or "" for each scene.
        matched: the number of images in whose names the expression finds the camera.
        left_out: the number of boxes and images left out, by reason.
        examples: the first image for each reason.
    """

    name: str
    kind: str
    tracks: bool = False
    visibility: bool = False
    named: bool = False
    scenes: list[SceneRows] = field(default_factory=list)
    subsets: list[str] = field(default_factory=list)
    matched: int = 0
    left_out: Counter = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, example: str) -> None:
        self.left_out[reason] += 1
        self.examples.setdefault(reason, example)


def put(image: Path | Image.Image, path: Path) -> None:
    """Copy an image, or write a video's frame as JPEG."""
    try:
        if isinstance(image, Image.Image):
            image.save(path, quality=QUALITY)
        else:
            shutil.copyfile(image, path)
    except OSError as error:
        raise UserError(f"{error.filename or path}: {reason_of(error)}") from None


class ImportWriter:
    """A writer of the images of several files' labels to images/NAME/ in a folder.

    Args:
        shared: whether equal track ids in different files mean the same person.
        camera: a regular expression whose first group, in an image's name, is the camera.
    """

    def __init__(self, out: Path, shared: bool, camera: "re.Pattern[str] | None"):
        self.out, self.shared, self.camera = out, shared, camera
        self.taken: dict[Path, str] = {}  # files that were copied, and for which labels

    def write(self, labels: Labels, name: str, located: Located) -> Imported:
        done = Imported(
            name,
            labels.kind,
            labels.tracks,
            labels.visibility,
            any(box.name for image in labels.images for box in image.boxes),
            left_out=labels.left_out,
            remarks=labels.remarks,
        )
        found = []
        for image, source in tqdm(located, name, len(labels.images), unit="image"):
            if isinstance(source, Image.Image):
                path = Path(f"frame_{image.frame:06d}.jpg")
                self._add(labels, image, source, path, done)
            elif source is None:
                done.leave_out("missing image", image.name)
            else:
                found.append((image, source))
        names = short_names([path for _, path in found])
        for image, path in found:
            self._add(labels, image, path, Path(names[path]), done)
        if labels.images and not done.scenes:
            reasons = ", ".join(f"{done.left_out[r]} of {r}" for r in done.examples)
            raise UserError(
                f"{labels.path}: none of its {len(labels.images)} images can be used ({reasons}, "
                f"first {first_of(done.examples.values(), 1)}); give their folders with --images"
            )
        return done

    def _add(
        self,
        labels: Labels,
        image: LabelledImage,
        source: Path | Image.Image,
        path: Path,
        done: Imported,
    ) -> None:
        """Copy an image to images/NAME/`path` and describe it, or count the reason why it is left
        out."""
        try:
            size = picture_size(source, upright=True) if isinstance(source, Path) else source.size
        except PictureError as error:
            return done.leave_out("image that cannot be read", str(error))
        if image.size not in (None, size):
            recorded, found = (f"{width} x {height}" for width, height in (image.size, size))
            example = f"{image.name}: {recorded} in the annotations, {found} in the file"
            return done.leave_out("image of another size than in the annotations", example)
        if isinstance(source, Path):
            if earlier := self.taken.get(source.resolve()):
                return done.leave_out(f"image that is already used for {earlier}", image.name)
            self.taken[source.resolve()] = done.name
        target = Path("images", done.name, path)
        make_folder((self.out / target).parent, "--out")
        put(source, self.out / target)
        about = {"file_name": target.as_posix(), "width": size[0], "height": size[1]}
        about |= {} if image.frame is None else {"frame": image.frame}
        camera = self._camera_of(labels, image, done)
        about |= {"camera": camera} if camera else {}
        people: list[PersonRow] = []
        for box in image.boxes_in_pixels(size):
            if reason := unusable(box.xywh, size):
                done.leave_out(reason, image.name)
            else:
                people.append((box.xywh, self._person(box, done), more_of(box)))
        done.scenes.append((about, people))
        done.subsets.append(subset_of(labels, image))
        return None

    def _person(self, box: Box, done: Imported) -> str | None:
        """Return the identity of a box. Tracks are used in files without any names."""
        if done.named or box.track is None:
            return box.name
        return box.track if self.shared else f"{done.name}/{box.track}"

    def _camera_of(self, labels: Labels, image: LabelledImage, done: Imported) -> str | None:
        if self.camera and (found := self.camera.search(image.name)):
            done.matched += 1
            return found[found.re.groups and 1]
        return image.camera or (done.name if labels.tracks else None)


def more_of(box: Box) -> dict:
    """Return what train.json says of a box beside its place and its identity."""
    if box.score == 0:
        return {"iscrowd": 1}
    return {} if box.score == 1 else {"score": box.score}


def unusable(xywh: Sequence[float], size: tuple[int, int]) -> str:
    """Return the reason why a box cannot be used; "" if it can."""
    x, y, width, height = xywh
    if width <= 0 or height <= 0:
        return "box without area"
    outside = x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0
    return "box outside its image" if outside else ""
