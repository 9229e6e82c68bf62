"""Assign each imported image its file, or its frame of a video."""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from datasets.importers.finder import Finder
from datasets.importers.records import LabelledImage, Labels
from utils.errors import UserError
from utils.videos import read_frames

TRAIN = {"train", "training"}
TEST = {"test", "testing", "val", "valid", "validation", "gallery", "query"}
Source = Path | Image.Image | None  # None: not found


def locate(labels: Labels, finder: Finder) -> Iterator[tuple[LabelledImage, Source]]:
    """Yield every image with its file, or with its pixels if it is a frame of a video."""
    names = [(image.name, hints_of(labels, image)) for image in labels.images if not image.path]
    found = iter(finder.find(names))
    paths = [image.path or next(found) for image in labels.images]
    frames = {image.frame: image for image in labels.images if image.frame is not None}
    if any(paths) or len(frames) < len(labels.images) or not frames:
        yield from zip(labels.images, paths)
    elif video := finder.video(labels.video, folders_of(labels)):
        yield from frames_of(video, frames, labels.remarks)
    else:
        yield from in_order(finder, frames, labels)


def hints_of(labels: Labels, image: LabelledImage) -> set[str]:
    """Return the names of folders that may contain an image, according to its subset."""
    return {image.subset} - {""} | folders_of(labels)


def folders_of(labels: Labels) -> set[str]:
    """Return the names of folders that may contain what a file describes."""
    return {labels.path.stem.rpartition("_")[2], labels.path.parent.name} - {""}


def subset_of(labels: Labels, image: LabelledImage) -> str:
    """Return "train" or "test", according to the tool's subset or the names of folders and file; ""
    if neither names one."""
    words = {image.subset.lower(), labels.path.parent.name.lower()}
    words |= {part.lower() for part in Path(image.name.replace("\\", "/")).parts[:-1]}
    words |= {*re.split(r"[^a-z]+", labels.path.stem.lower())}
    found = [split for split, some in (("train", TRAIN), ("test", TEST)) if words & some]
    return found[0] if len(found) == 1 else ""


def frames_of(
    video: Path, frames: dict[int, LabelledImage], remarks: list[str]
) -> Iterator[tuple[LabelledImage, Source]]:
    last = -1
    for number, pixels in read_frames(video, remarks.append):
        last = number - 1
        if last in frames:
            yield frames[last], pixels
        if last >= max(frames):
            return
    raise UserError(f"{video}: expected {max(frames) + 1} frames, found {last + 1}")


def in_order(
    finder: Finder, frames: dict[int, LabelledImage], labels: Labels
) -> Iterator[tuple[LabelledImage, Source]]:
    """Yield the images as the frames of a video, if the video has enough frames and their order is
    certain."""
    images = sorted(finder.images)
    where = ", ".join(map(str, finder.roots))
    if len(images) <= max(frames) or images != sorted(images, key=natural):
        raise UserError(
            f"{labels.path}: expected in {where} the video {labels.video or 'of its tracks'}, "
            f"images called frame_000000 and so on, or {max(frames) + 1} images whose names are in "
            f"the order of their numbers, found {len(images)} images; --images PATH"
        )
    labels.remarks.append(f"frames are the images of {where} in the order of their names")
    for frame, image in frames.items():
        yield image, images[frame]


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that orders the numbers in names by value."""
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (0, word) for word in words]
