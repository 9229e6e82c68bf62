"""Readers of the files of annotation tools. The kind of a file is recognised by its content."""

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets.importers import coco, cvat, datumaro, label_studio, mot, yolo
from datasets.importers.records import Labels, Options
from datasets.json_fields import read_json
from utils.errors import UserError, first_of
from utils.files import content_of, open_file, read_text
from utils.names import free_name
from utils.sources import is_hidden

KINDS = (
    "CVAT XML, COCO JSON, Datumaro JSON, Label Studio JSON or CSV, a folder with gt/gt.txt (MOT) "
    "or with labels/ (YOLO), or a .zip of these"
)
READERS: list[tuple[Callable[[Any], bool], Callable[[Path, Any, Options], list[Labels]]]] = [
    (coco.is_coco, coco.read),
    (datumaro.is_datumaro, datumaro.read),
    (label_studio.is_label_studio, label_studio.read),
]
COPIES = ("image_info", "stuff", "panoptic", "captions", "labels")  # beside instances_NAME.json


def read_source(source: Path, options: Options) -> list[Labels]:
    """Read all annotation files of a source.

    Args:
        source: a file, or a folder that contains annotation files, also in subfolders.

    Raises:
        UserError: if no file is of a known kind.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if source.is_dir():
        found = _read_folder(source, options)
    elif source.name == "gt.txt":
        found = mot.read([_sequence_of(source)], options)
    elif source.name in yolo.NAMES:
        found = yolo.read(source.parent, options)
    else:
        found = _read_file(source, options)
    if not found:
        inside = sorted(os.listdir(source)) if source.is_dir() else [source.name]
        raise UserError(f"{source}: expected {KINDS}, found {first_of(inside)}")
    return found


def _sequence_of(file: Path) -> Path:
    """Return the folder of the sequence of a gt.txt.

    Raises:
        UserError: if the file is not in a folder called gt.
    """
    folder = file.absolute().parent
    if folder.name != "gt":
        raise UserError(f"{file}: expected SEQUENCE/gt/gt.txt, found gt.txt in {folder.name!r}")
    return folder.parent


def _read_folder(folder: Path, options: Options) -> list[Labels]:
    sequences = [one for one in (folder, *sorted(folder.iterdir())) if mot.is_sequence(one)]
    if sequences:
        return mot.read(sequences, options)
    files = [labels for file in _files(folder) for labels in _read_file(file, options)]
    return files or (yolo.read(folder, options) if yolo.is_yolo(folder) else [])


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that may contain annotations.

    Hidden files are left out, and so are the files that COCO's tools write beside
    instances_NAME.json with the same boxes.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PARSERS)
    for path in paths:
        kind, _, rest = path.name.rpartition("_")
        copy = kind in COPIES and path.with_name(f"instances_{rest}").exists()
        if path.is_file() and not copy and not is_hidden(path, folder):
            yield path


def _read_file(path: Path, options: Options) -> list[Labels]:
    """Return the labels in a file; an empty result if it is no annotation file."""
    parser = _PARSERS.get(path.suffix.lower())
    return parser(path, options) if parser else []


def _read_xml(path: Path, options: Options) -> list[Labels]:
    root = cvat.parse(path)
    return cvat.read(path, root, options) if cvat.is_cvat(root) else []


def _read_json(path: Path, options: Options) -> list[Labels]:
    content = read_json(str(path))
    return next((read(path, content, options) for fits, read in READERS if fits(content)), [])


def _read_table(path: Path, options: Options) -> list[Labels]:
    text = read_text(path, "")
    return label_studio.read_table(path, text, options) if label_studio.is_table(text) else []


_PARSERS = {
    ".xml": _read_xml,
    ".json": _read_json,
    ".csv": _read_table,
    ".tsv": _read_table,
}


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a .zip below `folder`, and return the folder with its content."""
    place = folder / free_name(archive.stem, lambda name: (folder / name).exists())
    with open_file(archive, "") as file, content_of(str(archive), "a .zip file"):
        zipfile.ZipFile(file).extractall(place)
    return place
