"""Assign each imported image its file, or its frame of a video."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from datasets.importers.finder import Finder
from datasets.importers.records import LabelledImage, Labels
from utils.errors import UserError
from utils.videos import read_frames

# The name of a video's frame, as CVAT and Datumaro write it; the frame need not exist as a file.
FRAME = re.compile(r"frame_(\d{1,9})")
TRAIN = {"train", "training"}
TEST = {"test", "testing", "val", "valid", "validation", "gallery", "query"}
Source = Path | Image.Image | None  # None: not found
Located = Iterable[tuple[LabelledImage, Source]]


def locate(source: Sequence[Labels], finder: Finder) -> list[Located]:
    """Return, for each of a source's labels, every image with its file, or with its pixels if it is
    a frame of a video.

    The frames of a video are taken from the video that the labels name, else from images with their
    names, else from the only video, else from images in the order of their names.

    Raises:
        UserError: here or during the iteration, if the images of a file cannot be determined.
    """
    videos = [_video_of(labels, finder) for labels in source]
    wanted = [
        [
            (image.name, hints_of(labels, image))
            for image in labels.images
            if not (video or image.path)
        ]
        for labels, video in zip(source, videos)
    ]
    return [
        _located(labels, video, iter(paths), finder)
        for labels, video, paths in zip(source, videos, finder.find(wanted))
    ]


def _video_of(labels: Labels, finder: Finder) -> Path | None:
    """Return the video that the labels name, if there is exactly one of this name."""
    named = labels.video and labels.frames()
    found = finder.videos_named(labels.video, folders_of(labels)) if named else []
    return found[0] if len(found) == 1 else None


def _located(
    labels: Labels, video: Path | None, found: Iterator[Path | None], finder: Finder
) -> Located:
    frames = labels.frames()
    if video:
        return frames_of(video, frames, labels.remarks)
    paths = [image.path or next(found) for image in labels.images]
    if any(paths) or not frames:
        return list(zip(labels.images, paths))
    if video := finder.video(labels.video, folders_of(labels)):
        return frames_of(video, frames, labels.remarks)
    return in_order(finder, frames, labels)


def hints_of(labels: Labels, image: LabelledImage) -> set[str]:
    """Return the names of folders that may contain an image, according to its subset."""
    return {image.subset} - {""} | folders_of(labels)


def folders_of(labels: Labels) -> set[str]:
    """Return the names of folders that may contain what a file describes."""
    file = labels.path
    return {file.stem.rpartition("_")[2], file.parent.name, Path(labels.video).stem} - {""}


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
    """Yield the images as the frames of a video, if they are as many in one folder and their order
    is certain."""
    images = sorted(finder.images)
    where = ", ".join(map(str, finder.roots))
    needed = labels.length or max(frames) + 1
    enough = len(images) == needed if labels.length else len(images) >= needed
    folders = {image.parent for image in images}
    if not enough or len(folders) > 1 or images != sorted(images, key=natural):
        raise UserError(
            f"{labels.path}: expected in {where} the video {labels.video or 'of its tracks'}, "
            f"images called frame_000000 and so on, or {needed} images in one folder whose names "
            f"are in the order of their numbers, found {len(images)} images in {len(folders)} "
            "folders; --images PATH"
        )
    labels.remarks.append(f"frames are the images of {where} in the order of their names")
    for frame, image in frames.items():
        yield image, images[frame]


def frame_of(name: str) -> int | None:
    """Return the number in the name of a video's frame; None for another name."""
    found = FRAME.fullmatch(Path(name).stem)
    return int(found[1]) if found else None


def natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that orders the numbers in names by value."""
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdecimal() else (0, word) for word in words]
