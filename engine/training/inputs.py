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
from utils.errors import UserError
from utils.files import file_digest, read_text, write_text

INPUTS = "inputs.json"
TEACHER = "DISTILLER.TEACHER_CKPT"
TEACHERS = (TEACHER, REID_TEACHER)
INITIAL = ("BACKBONE.WEIGHTS", "MODEL.WEIGHTS")  # files that only the start of a run reads


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


def describe_files(cfg: CfgNode) -> dict[str, str]:
    """Return digests of the teachers and of the files with initial weights that a run reads."""
    values = flatten(cfg)
    keys = [key for key in INITIAL if values[key] not in ("", "imagenet")]
    keys += [TEACHER] if needs_checkpoint(cfg) and values[TEACHER] else []
    found = {key: file_digest(values[key], key) for key in keys if Path(values[key]).is_file()}
    reid = [name for name in reid_teachers(cfg) if "embeddings" in cached_reads(cfg)]
    reid = [name for name in reid if Path(name).is_file()]
    digests = " ".join(file_digest(name, REID_TEACHER) for name in reid)
    return found | ({REID_TEACHER: digests} if digests else {})


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
