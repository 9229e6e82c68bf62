"""Tracks in the form of MOTChallenge: who stands where in each frame of a sequence.

A sequence is a folder with `img1/000001.jpg ...`, `gt/gt.txt` and `seqinfo.ini`, or a video with
such a file of boxes. Its lines are `frame, id, left, top, width, height` and, as far as they go,
`flag, class, visibility`; frames, identities and pixels count from 1. Ten columns, as in 2015,
are a flag and a place in the world instead. Form: https://motchallenge.net/instructions

CVAT and Datumaro write the same form with `gt/labels.txt`, the names of the classes 1, 2, ..., and
with pixels that count from 0.
"""

import configparser
import filecmp
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from datasets.coco_files import people_names
from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text
from utils.sources import PICTURE, kind_of
from utils.videos import read_frames

COLUMNS = range(6, 11)
DIGITS = 9  # of a whole number in seqinfo.ini
LABELS = "labels.txt"  # beside gt.txt, as CVAT and Datumaro write it
Place = tuple[int, list[float]]  # identity, -1 unlabelled; x y w h in pixels from 0 on


@dataclass(frozen=True)
class Rules:
    """Which boxes count."""

    classes: frozenset[int] | None = None  # None: pedestrians, 1, or what labels.txt says
    visibility: float = 0.25  # the least share of a person that is seen
    labels: tuple[str, ...] = ()  # names in labels.txt that are people; none: see `people_names`


@dataclass(frozen=True)
class Sequence:
    """The people of each frame, and where the frames' pictures are."""

    name: str
    people: dict[int, list[Place]]
    pictures: dict[int, Path]  # of a folder, by frame; none for a video
    video: Path | None
    size: tuple[int, int] | None  # width, height as seqinfo.ini says
    left_out: Counter  # boxes, by reason
    remarks: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[tuple[int, Path | Image.Image]]:
        """Every frame's number and its picture: a file, or what a video shows. Remarks on a video
        are added at its end."""
        last = 0
        frames = read_frames(self.video, self.remarks.append) if self.video else None
        for last, picture in frames or self.pictures.items():
            yield last, picture
        if max(self.people) > last:
            raise UserError(f"{self.video}: expected {max(self.people)} frames, found {last}")


def read_sequence(path: Path, boxes: Path | None, rules: Rules) -> Sequence:
    """The sequence in a folder or video. boxes: its file, if it is not `gt/gt.txt` in the folder,
    or beside the video with its name and .txt."""
    if not path.exists():
        raise UserError(f"{path}: no such folder or video")
    left_out: Counter = Counter()
    if not path.is_dir():
        people = read_boxes(boxes or path.with_suffix(".txt"), rules, left_out)
        return Sequence(path.stem, people, {}, path, None, left_out, repeated(people, path.stem))
    boxes = boxes or path / "gt" / "gt.txt"
    info = read_info(path / "seqinfo.ini")
    people, pictures = read_boxes(boxes, rules, left_out), find_pictures(path, info)
    if beyond := sorted(people.keys() - pictures.keys()):
        raise UserError(f"{boxes}: frame {beyond[0]}: no such picture in {path}")
    size = int(info.get("imwidth", 0)), int(info.get("imheight", 0))
    name = path.resolve().name
    remarks = repeated(people, name)
    if (boxes.parent / LABELS).exists():
        remarks.append(
            f"{name}: written by CVAT or Datumaro, whose MOT form may box people after they have "
            "left; CVAT XML says who has (tools.import_annotations)"
        )
    whole = size if all(size) else None
    return Sequence(name, people, pictures, None, whole, left_out, remarks)


def repeated(people: dict[int, list[Place]], name: str) -> list[str]:
    """A remark on identities that have two boxes in one frame."""
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
        f"{name}: an id stands twice in {len(twice)} frames, first {person} in frame {frame}: "
        "at most one of the two boxes is right"
    ]


def drop_twins(sequences: list[Sequence]) -> tuple[list[Sequence], list[str]]:
    """Leave out the copies of a sequence that MOT17 has for each detector.

    Returns:
        The sequences without those whose pictures and boxes are an earlier one's and whose name
        differs from its name in the last part alone (MOT17-02-DPM, MOT17-02-SDP), and a remark on
        each of these and on other copies, which are kept.
    """
    kept: list[Sequence] = []
    remarks = []
    for sequence in sequences:
        twin = next((other for other in kept if are_twins(other, sequence)), None)
        same = twin and twin.name.rpartition("-")[0] == sequence.name.rpartition("-")[0] != ""
        if twin:
            what = "left out" if same else "each of its people is counted in both"
            remarks.append(f"{sequence.name}: the same pictures and boxes as {twin.name}, {what}")
        if not same:
            kept.append(sequence)
    return kept, remarks


def are_twins(one: Sequence, other: Sequence) -> bool:
    """Whether people, the frames' numbers and the first frame's picture (or the video) agree."""
    if one.people != other.people or one.pictures.keys() != other.pictures.keys():
        return False
    first, second = (s.video or next(iter(s.pictures.values())) for s in (one, other))
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:  # said when the picture is read
        return False


def find_pictures(folder: Path, info: dict[str, str]) -> dict[int, Path]:
    """Frame -> picture, in order; as many as seqinfo.ini says, if it is there."""
    inside = folder / info.get("imdir", "img1")
    if not inside.is_dir():
        raise UserError(f"{inside}: expected a folder of pictures, found none")
    ending = info.get("imext", "").lower()
    pictures = {
        int(file.stem): file
        for file in inside.iterdir()
        if file.stem.isdecimal()
        and file.suffix.lower().endswith(ending)
        and kind_of(file) == PICTURE
    }
    if not pictures:
        raise UserError(f"{inside}: expected pictures such as 000001.jpg, found none")
    if int(info.get("seqlength", len(pictures))) != len(pictures):
        raise UserError(
            f"{folder / 'seqinfo.ini'}: seqLength: expected the number of pictures in {inside}, "
            f"{len(pictures)}, found {info['seqlength']}"
        )
    return dict(sorted(pictures.items()))


def read_info(path: Path) -> dict[str, str]:
    """The section [Sequence] of a seqinfo.ini, keys in small letters; empty where there is none."""
    if not path.exists():
        return {}
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path, ""))
        info = dict(parser["Sequence"])
    except (configparser.Error, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a section [Sequence] ({reason})") from None
    for key in ("seqlength", "imwidth", "imheight"):
        if not (info.get(key, "1").isdecimal() and len(info.get(key, "1")) <= DIGITS):
            raise UserError(f"{path}: {key}: expected a whole number, found {info[key][:60]!r}")
    return info


def read_boxes(path: Path, rules: Rules, left_out: Counter) -> dict[int, list[Place]]:
    """Frame -> its people; frames without any are not there."""
    labels = path.parent / LABELS
    origin = 0 if labels.exists() else 1
    classes = rules.classes or people_classes(labels, rules.labels)
    people: dict[int, list[Place]] = {}
    for number, line in enumerate(read_text(path, "").splitlines(), 1):
        if not line.strip():
            continue
        row = numbers_in(line, f"{path}, line {number}")
        if reason := why_not(row, classes, rules.visibility):
            left_out[reason] += 1
            continue
        frame, person, left, top, width, height = row[:6]
        xywh = [round(value, 3) for value in (left - origin, top - origin, width, height)]
        people.setdefault(int(frame), []).append((int(person), xywh))
    if not people:
        reasons = ", ".join(f"{count}: {reason}" for reason, count in left_out.items())
        why = f" that count ({reasons})" if reasons else ""
        raise UserError(f"{path}: expected boxes of people, found none{why}")
    return people


def people_classes(labels: Path, wanted: tuple[str, ...]) -> frozenset[int]:
    """The numbers of the classes of people: those of labels.txt if it is there, else 1."""
    if not labels.exists():
        return frozenset({1})
    names = [line.strip() for line in read_text(labels, "").splitlines() if line.strip()]
    kept = people_names(names, wanted, str(labels))
    return frozenset(number for number, name in enumerate(names, 1) if name in kept)


def numbers_in(line: str, where: str) -> list[float]:
    """The six to ten numbers of a line."""
    try:
        row = [float(word) for word in line.strip().rstrip(",").split(",")]
    except ValueError:
        row = []
    whole = len(row) in COLUMNS and all(abs(value) < LARGEST for value in row)
    if not whole or row[0] < 1 or row[0] % 1 or row[1] % 1:
        raise UserError(
            f"{where}: expected frame, id, left, top, width, height and up to four numbers more, "
            f"frames from 1 on, found {line.strip()[:60]!r}"
        )
    return row


def why_not(row: list[float], classes: frozenset[int], visibility: float) -> str:
    """Why a box does not count, with the option that decides it; empty if it does."""
    if len(row) > 6 and row[6] == 0:
        return "its flag is 0"
    if len(row) in (8, 9) and int(row[7]) not in {-1, *classes}:
        return f"class {row[7]:g} (--classes)"
    if len(row) == 9 and -1 != row[8] < visibility:
        return f"less than {visibility:g} of it visible (--min-visibility)"
    return ""
