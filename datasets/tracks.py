"""Tracks in the form of MOTChallenge: who stands where in each frame of a sequence.

A sequence is a folder with `img1/000001.jpg ...`, `gt/gt.txt` and `seqinfo.ini`, or a video with
such a file of boxes. Its lines are `frame, id, left, top, width, height` and, as far as they go,
`flag, class, visibility`; frames, identities and pixels count from 1. Ten columns, as in 2015,
are a flag and a place in the world instead. Form: https://motchallenge.net/instructions
"""

import configparser
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from datasets.mat import LARGEST
from utils.errors import UserError
from utils.files import read_text
from utils.videos import read_frames

COLUMNS = range(6, 11)
Place = tuple[int, list[float]]  # identity, -1 unlabelled; x y w h in pixels from 0 on


@dataclass(frozen=True)
class Rules:
    """Which boxes count."""

    classes: frozenset[int] = frozenset({1})  # 1 are pedestrians
    visibility: float = 0.25  # the least share of a person that is seen


@dataclass(frozen=True)
class Sequence:
    """The people of each frame, and where the frames' pictures are."""

    name: str
    people: dict[int, list[Place]]
    pictures: dict[int, Path]  # of a folder, by frame; none for a video
    video: Path | None
    size: tuple[int, int] | None  # width, height as seqinfo.ini says
    left_out: Counter  # boxes, by reason

    def frames(self) -> Iterator[tuple[int, Path | Image.Image]]:
        """Every frame's number and its picture: a file, or what a video shows."""
        last = 0
        for last, picture in read_frames(self.video) if self.video else self.pictures.items():
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
        return Sequence(path.stem, people, {}, path, None, left_out)
    boxes = boxes or path / "gt" / "gt.txt"
    info = read_info(path / "seqinfo.ini")
    people, pictures = read_boxes(boxes, rules, left_out), find_pictures(path, info)
    if beyond := sorted(people.keys() - pictures.keys()):
        raise UserError(f"{boxes}: frame {beyond[0]}: no such picture in {path}")
    size = int(info.get("imwidth", 0)), int(info.get("imheight", 0))
    return Sequence(
        path.resolve().name, people, pictures, None, size if all(size) else None, left_out
    )


def find_pictures(folder: Path, info: dict[str, str]) -> dict[int, Path]:
    """Frame -> picture, in order; as many as seqinfo.ini says, if it is there."""
    inside = folder / info.get("imdir", "img1")
    if not inside.is_dir():
        raise UserError(f"{inside}: expected a folder of pictures, found none")
    ending = info.get("imext", "").lower()
    pictures = {
        int(file.stem): file
        for file in inside.iterdir()
        if file.stem.isdecimal() and file.suffix.lower().endswith(ending)
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
        if not info.get(key, "1").isdecimal():
            raise UserError(f"{path}: {key}: expected a whole number, found {info[key]!r}")
    return info


def read_boxes(path: Path, rules: Rules, left_out: Counter) -> dict[int, list[Place]]:
    """Frame -> its people; frames without any are not there."""
    people: dict[int, list[Place]] = {}
    for number, line in enumerate(read_text(path, "").splitlines(), 1):
        if not line.strip():
            continue
        row = numbers_in(line, f"{path}, line {number}")
        if reason := why_not(row, rules):
            left_out[reason] += 1
            continue
        frame, person, left, top, width, height = row[:6]
        xywh = [round(value, 3) for value in (left - 1, top - 1, width, height)]
        people.setdefault(int(frame), []).append((int(person), xywh))
    if not people:
        raise UserError(f"{path}: expected boxes of people, found none that count")
    return people


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


def why_not(row: list[float], rules: Rules) -> str:
    """Why a box does not count; empty if it does."""
    if len(row) > 6 and row[6] == 0:
        return "its flag is 0"
    if len(row) in (8, 9) and int(row[7]) not in {-1, *rules.classes}:
        return f"class {row[7]:g}"
    if len(row) == 9 and -1 != row[8] < rules.visibility:
        return f"less than {rules.visibility:g} of it visible"
    return ""
