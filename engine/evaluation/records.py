"""The files that evaluations write, and the thresholds of a checkpoint among them.

results.json describes the last evaluation; evaluations.jsonl has a line for each evaluation of a
training run.
"""

import json
from pathlib import Path

from engine.checkpoint import Checkpoint
from engine.metadata import Thresholds
from utils.errors import UserError
from utils.files import open_file

RESULTS = "results.json"
EVALUATIONS = "evaluations.jsonl"
SIZES_DRAWN, THRESHOLDS_DRAWN = "gallery_sizes.png", "thresholds.png"
NUMBERS = ("mAP", "top1", "top5", "top10")  # of a search
PREFIX = "thresholds/"  # of thresholds among flat metrics


def flat_metrics(results: dict) -> dict[str, float]:
    """Return the main numbers of an evaluation, {"detection/recall": …, "search/mAP": …, …}.

    Thresholds are included, as "thresholds/0.05", unless the evaluation used ground-truth boxes or
    CBGM: the similarities then have another distribution than in a search by the demo or the app.
    """
    protocol, thresholds = results["protocol"], results.get("thresholds", {})
    if protocol["cbgm"] or protocol["ground_truth_boxes"]:
        thresholds = {}
    return {
        f"{group}/{name}": value
        for group in ("detection", "detection_labeled", "search")
        for name, value in results[group].items()
    } | {f"{PREFIX}{rate}": at["similarity"] for rate, at in thresholds.items()}


def evaluations_of(folder: Path) -> list[dict]:
    """Read the evaluations of a run, {"epoch", "search/mAP", …}, in order.

    An incomplete last line of a killed run is ignored.

    Raises:
        UserError: if the file has another form.
    """
    path = folder / EVALUATIONS
    if not path.exists():
        return []
    with open_file(path, "") as file:
        lines = file.read().splitlines(keepends=True)
    try:
        past = [json.loads(line) for line in lines if line.endswith(b"\n")]
        if all(one.keys() >= {"epoch", "search/mAP"} for one in past):
            return past
    except (ValueError, AttributeError):
        pass
    raise UserError(
        f"{path}: expected lines of JSON, each with epoch and search/mAP; found another line"
    )


def evaluated_epoch(checkpoint: Checkpoint, folder: str | Path) -> int | None:
    """Return the epoch to record with results of this checkpoint in `folder`.

    It is None if the file is in another folder, because `folder` may contain a checkpoint of the
    same epoch of another run.
    """
    beside = checkpoint.path.resolve().parent == Path(folder).resolve()
    return checkpoint.epoch if beside else None


def thresholds_of(checkpoint: Checkpoint) -> Thresholds | None:
    """Return the similarity thresholds of a checkpoint, by false-alarm rate (see `thresholds`).

    They come from the file, or from the newest evaluation of its epoch in its folder. The result is
    None if there are none.
    """
    folder, epoch = checkpoint.path.parent, checkpoint.epoch
    if checkpoint.thresholds or epoch is None:
        return checkpoint.thresholds
    for record in (*_last(folder / RESULTS), *reversed(evaluations_of(folder))):
        found = _thresholds_in(record)
        if record.get("epoch") == epoch and found:
            return found
    return None


def last_thresholds(folder: Path) -> Thresholds | None:
    """Return the thresholds of the last evaluation that wrote results into `folder`, or None."""
    return next((_thresholds_in(record) or None for record in _last(folder / RESULTS)), None)


def _thresholds_in(record: dict) -> Thresholds:
    return {k.removeprefix(PREFIX): v for k, v in record.items() if k.startswith(PREFIX)}


def _last(path: Path) -> list[dict]:
    """Return results.json in the form of a line of evaluations.jsonl; an empty list without the
    file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return [{"epoch": results.get("epoch")} | flat_metrics(results)] if results else []
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: expected the results of an evaluation ({error!r})") from None
