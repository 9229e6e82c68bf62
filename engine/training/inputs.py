"""Digests of a run's data and of the files that its config names.

A path alone does not show that another teacher or other pictures have replaced the file. The
digests are in the checkpoints, where --resume compares them, and in OUTPUT_DIR/inputs.json, where
tools.compare compares them.
"""

import json
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs.ranges import flatten
from datasets.base import SearchDataset, digest, pictures_digest
from engine.teachers.choice import REID_TEACHER, cached_reads, needs_checkpoint, reid_teachers
from engine.teachers.preparation import description_of
from utils.errors import UserError
from utils.files import file_digest, read_text, write_text

INPUTS = "inputs.json"
TEACHER = "DISTILLER.TEACHER_CKPT"
DESCRIPTION = f"{REID_TEACHER} (description)"
TEACHERS = (TEACHER, REID_TEACHER, DESCRIPTION)
WEIGHTS = ("BACKBONE.WEIGHTS", "MODEL.WEIGHTS")
INIT_STUDENT = "DISTILLER.INIT_STUDENT"  # names the file of TEACHER that is read at the start
INITIAL = (*WEIGHTS, INIT_STUDENT)  # files that only the start of a run reads


def describe_data(dataset: SearchDataset) -> dict[str, Any]:
    """Return numbers and digests of the training data and the test data."""
    return {
        "images": len(dataset.train),
        "identities": dataset.num_pids,
        "annotations": digest(dataset.train),
        "pictures": pictures_digest(dataset.train),
        "test annotations": digest(dataset.gallery),
        "test pictures": pictures_digest(dataset.gallery),
    }


def describe_files(cfg: CfgNode, taught: bool = True) -> dict[str, str]:
    """Return digests of the teachers and of the files with initial weights that a run reads.

    Args:
        taught: whether the run has a teacher.
    """
    values = flatten(cfg)
    files = {key: [values[key]] for key in WEIGHTS if values[key] != "imagenet"}
    if cfg.DISTILLER.INIT_STUDENT:
        files[INIT_STUDENT] = [values[TEACHER]]
    if taught and needs_checkpoint(cfg):
        files[TEACHER] = [values[TEACHER]]
    if taught and "embeddings" in cached_reads(cfg):
        files[REID_TEACHER] = reid_teachers(cfg)
        files[DESCRIPTION] = [description_of(name) for name in reid_teachers(cfg)]
    digests = {
        key: " ".join(file_digest(path, key) for path in paths if Path(path).is_file())
        for key, paths in files.items()
    }
    return {key: digest for key, digest in digests.items() if digest}


def write_inputs(inputs: dict[str, Any], folder: Path) -> None:
    """Write inputs.json."""
    write_text(json.dumps(inputs, indent=1) + "\n", folder / INPUTS)


def read_inputs(folder: Path) -> dict[str, Any]:
    """Read inputs.json; {} for a run of an earlier version, which has none.

    Raises:
        UserError: if the file has another form.
    """
    path = folder / INPUTS
    if not path.is_file():
        return {}
    try:
        inputs = json.loads(read_text(path, ""))
    except (ValueError, RecursionError):
        inputs = None
    if not isinstance(inputs, dict):
        raise UserError(f"{path}: expected a JSON object, found another content")
    return inputs


def changed_inputs(was: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return "X were Y, are Z" for each fact that both sides contain and that differs."""
    return {
        key: f"{key} were {was[key]}, are {value}"
        for key, value in now.items()
        if value and was.get(key, value) not in (value, "")
    }
