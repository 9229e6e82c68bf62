"""Folders in the form of MOTChallenge, which CVAT and Datumaro also write."""

from pathlib import Path

from datasets.importers.records import Box, LabelledImage, Labels, Options
from datasets.track_files import WITH_VISIBILITY, Rules
from datasets.tracks import Sequence, drop_copies, read_sequence

KIND = "MOT"


def is_sequence(folder: Path) -> bool:
    return (folder / "gt" / "gt.txt").is_file()


def read(folders: list[Path], options: Options) -> list[Labels]:
    """Read the sequences, without the copies that MOT17 contains for each detector."""
    rules = Rules(visibility=options.min_visibility, labels=tuple(options.labels))
    found = [read_sequence(folder, None, rules) for folder in folders]
    kept, remarks = drop_copies(found)
    labels = [labels_of(*pair) for pair in zip(folders, found) if pair[1] in kept]
    labels[0].remarks[:0] = remarks
    return labels


def labels_of(folder: Path, sequence: Sequence) -> Labels:
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
    labels = Labels(folder / "gt" / "gt.txt", KIND, images, left_out, remarks, tracks=True)
    labels.visibility = bool(sequence.columns & WITH_VISIBILITY)
    return labels
