"""Sequences with tracks in the form of MOTChallenge: the people of each frame.

A sequence is a folder with `img1/000001.jpg ...`, `gt/gt.txt` and `seqinfo.ini`, or a video with a
file of boxes beside it. `datasets/track_files.py` describes the files.
"""

import filecmp
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from datasets.track_files import LABELS, Place, Rules, read_boxes, read_info
from utils.errors import UserError
from utils.sources import PICTURE, kind_of
from utils.videos import read_frames


@dataclass(frozen=True)
class Sequence:
    """The people of each frame, and the files of the pictures.

    Attributes:
        people: by frame; frames without people are missing.
        pictures: of a folder, by frame; empty for a video.
        size: width and height in seqinfo.ini, or None.
        columns: the numbers of columns of the lines in the file of boxes.
        left_out: number of boxes by reason.
        remarks: lines to print.
    """

    name: str
    people: dict[int, list[Place]]
    pictures: dict[int, Path]
    video: Path | None
    size: tuple[int, int] | None
    columns: set[int]
    left_out: Counter
    remarks: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[tuple[int, Path | Image.Image]]:
        """Yield the number and the picture of each frame: a file, or the image of a video frame.

        Remarks on a video are added at its end.

        Raises:
            UserError: if a video has fewer frames than its file of boxes.
        """
        last = 0
        frames = read_frames(self.video, self.remarks.append) if self.video else None
        for last, picture in frames or self.pictures.items():
            yield last, picture
        if max(self.people) > last:
            raise UserError(f"{self.video}: expected {max(self.people)} frames, found {last}")


def read_sequence(path: Path, boxes: Path | None, rules: Rules) -> Sequence:
    """Read the sequence in a folder or video.

    Args:
        boxes: file of boxes; None: `gt/gt.txt` in the folder, or the video's name with .txt.

    Raises:
        UserError: if a file is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"{path}: no such folder or video")
    left_out: Counter = Counter()
    if not path.is_dir():
        people, columns = read_boxes(boxes or path.with_suffix(".txt"), rules, left_out)
        remarks = repeated(people, path.stem)
        return Sequence(path.stem, people, {}, path, None, columns, left_out, remarks)
    boxes = boxes or path / "gt" / "gt.txt"
    info = read_info(path / "seqinfo.ini")
    people, columns = read_boxes(boxes, rules, left_out)
    pictures = find_pictures(path, info)
    if beyond := sorted(people.keys() - pictures.keys()):
        raise UserError(f"{boxes}: frame {beyond[0]}: no such picture in {path}")
    size = int(info.get("imwidth", 0)), int(info.get("imheight", 0))
    name = path.resolve().name
    remarks = repeated(people, name)
    if (boxes.parent / LABELS).exists():
        remarks.append(
            f"{name}: written by CVAT or Datumaro, whose MOT files may contain boxes of people who "
            "have left; CVAT XML marks them (tools.import_annotations)"
        )
    whole = size if all(size) else None
    return Sequence(name, people, pictures, None, whole, columns, left_out, remarks)


def repeated(people: dict[int, list[Place]], name: str) -> list[str]:
    """Return a remark if an identity has two boxes in one frame, otherwise nothing."""
    twice = [
        (frame, person)
        for frame, places in people.items()
        for person, number in Counter(person for person, _ in places).items()
        if number > 1 and person >= 0
    ]
    if not twice:
        return []
    frame, person = twice[0]
    return [
        f"{name}: {len(twice)} frames contain an id twice, first {person} in frame {frame}: "
        "at most one of the two boxes is correct"
    ]


def drop_copies(sequences: list[Sequence]) -> tuple[list[Sequence], list[str]]:
    """Remove the copies of a sequence that MOT17 contains for each detector.

    A copy has the pictures and boxes of an earlier sequence, and its name differs only in the last
    part (MOT17-02-DPM, MOT17-02-SDP). Sequences of equal content but other names are kept.

    Returns:
        The remaining sequences, and a remark on each sequence of equal content.
    """
    kept: list[Sequence] = []
    remarks = []
    for sequence in sequences:
        original = next((other for other in kept if are_copies(other, sequence)), None)
        is_copy = original is not None and base_of(original) == base_of(sequence) != ""
        if original:
            what = "left out" if is_copy else "each of its people counts twice"
            remarks.append(
                f"{sequence.name}: the same pictures and boxes as {original.name}, {what}"
            )
        if not is_copy:
            kept.append(sequence)
    return kept, remarks


def base_of(sequence: Sequence) -> str:
    """Return the name without its last part: "MOT17-02" of "MOT17-02-DPM"; "" without a "-"."""
    return sequence.name.rpartition("-")[0]


def are_copies(one: Sequence, other: Sequence) -> bool:
    """Return True if the people, the frame numbers and the first picture (or the video) agree."""
    if one.people != other.people or one.pictures.keys() != other.pictures.keys():
        return False
    first, second = (s.video or next(iter(s.pictures.values())) for s in (one, other))
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:  # reported when the picture is read
        return False


def find_pictures(folder: Path, info: dict[str, str]) -> dict[int, Path]:
    """Return the pictures by frame, in order.

    Raises:
        UserError: if there is none, if a frame has two, or if seqinfo.ini states another number.
    """
    inside = folder / info.get("imdir", "img1")
    if not inside.is_dir():
        raise UserError(f"{inside}: expected a folder of pictures, found none")
    ending = info.get("imext", "").lower()
    pictures: dict[int, Path] = {}
    for file in sorted(inside.iterdir()):
        named = file.stem.isdecimal() and file.suffix.lower().endswith(ending)
        if not named or kind_of(file) != PICTURE:
            continue
        other = pictures.setdefault(int(file.stem), file)
        if other != file:
            raise UserError(
                f"{inside}: expected one picture of each frame, found {other.name} and {file.name}"
            )
    if not pictures:
        raise UserError(f"{inside}: expected pictures such as 000001.jpg, found none")
    if int(info.get("seqlength", len(pictures))) != len(pictures):
        raise UserError(
            f"{folder / 'seqinfo.ini'}: seqLength: expected the number of pictures in {inside}, "
            f"{len(pictures)}, found {info['seqlength']}"
        )
    return dict(sorted(pictures.items()))
