"""Folders in the form of MOTChallenge, which CVAT and Datumaro also write."""

from pathlib import Path

from datasets.importers.records import Box, LabelledImage, Labels, Options
from datasets.track_files import Rules
from datasets.tracks import read_sequence

KIND = "MOT"


def is_sequence(folder: Path) -> bool:
    return (folder / "gt" / "gt.txt").is_file()


def read(folder: Path, options: Options) -> list[Labels]:
    rules = Rules(visibility=options.min_visibility, labels=tuple(options.labels))
    sequence = read_sequence(folder, None, rules)
    images = []
    for frame, path in sequence.pictures.items():
        boxes = [
            Box(xywh, None, None if person < 0 else str(person))
            for person, xywh in sequence.people.get(frame, ())
        ]
        name = f"{path.parent.name}/{path.name}"
        images.append(LabelledImage(name, boxes, sequence.size, frame=frame - 1, path=path))
    left_out = sequence.left_out
    remarks = [remark.removeprefix(f"{sequence.name}: ") for remark in sequence.remarks]
    return [Labels(folder / "gt" / "gt.txt", KIND, images, left_out, remarks, tracks=True)]
