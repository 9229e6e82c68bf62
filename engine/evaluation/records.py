"""The files that evaluations write, and the thresholds of a checkpoint among them.

results.json describes the last evaluation; evaluations.jsonl has a line for each evaluation of a
training run.
"""

import json
from pathlib import Path

from engine.checkpoint import load_facts
from utils.errors import UserError
from utils.files import open_file

RESULTS = "results.json"
EVALUATIONS = "evaluations.jsonl"
SIZES_DRAWN, THRESHOLDS_DRAWN = "gallery_sizes.png", "thresholds.png"
PREFIX = "thresholds/"  # of thresholds among flat metrics


def flat_metrics(results: dict) -> dict[str, float]:
    """Return the main numbers of an evaluation, {"detection/recall": …, "search/mAP": …, …}.

    They include the thresholds, as "thresholds/0.05", unless the evaluation used ground-truth boxes
    or CBGM: the similarities of a search by the demo or the app have another distribution then.
    """
    protocol, thresholds = results["protocol"], results.get("thresholds", {})
    if protocol["cbgm"] or protocol["ground_truth_boxes"]:
        thresholds = {}
    return {
        f"{group}/{name}": value
        for group in ("detection", "detection_labeled", "search")
        for name, value in results[group].items()
    } | {f"{PREFIX}{rate}": at["similarity"] for rate, at in thresholds.items()}


def epoch_of(checkpoint: dict) -> int | None:
    """Return the number of finished epochs, or None if the checkpoint was written within an epoch
    or does not record it."""
    return None if checkpoint.get("step") else checkpoint.get("epoch")


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


def evaluated_epoch(path: str | Path, folder: str | Path) -> int | None:
    """The epoch that results of this checkpoint in this folder are of; None where the checkpoint
    lies elsewhere, beside whose results they would be taken for another's."""
    here = Path(path).resolve().parent == Path(folder).resolve()
    return epoch_of(load_facts(path)) if here else None


def thresholds_of(path: str | Path, what: str = "--ckpt") -> dict[str, float] | None:
    """{"0.01": ..., "0.05": ..., "0.1": ...}: rate of false alarms, of queries -> the similarity
    from which on a match of this checkpoint counts (see `thresholds`). From within the file, or
    from the newest evaluation of its epoch in its folder; None where there is none."""
    checkpoint, folder = load_facts(path, what), Path(path).parent
    epoch = epoch_of(checkpoint)
    if checkpoint.get("thresholds") or epoch is None:
        return checkpoint.get("thresholds")
    for record in (*_last(folder / RESULTS), *reversed(evaluations_of(folder))):
        found = {k.removeprefix(PREFIX): v for k, v in record.items() if k.startswith(PREFIX)}
        if record.get("epoch") == epoch and found:
            return found
    return None


def _last(path: Path) -> list[dict]:
    """Of results.json, what a line of evaluations.jsonl would hold; none where there is no file."""
    try:
        results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return [{"epoch": results.get("epoch")} | flat_metrics(results)] if results else []
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: expected the results of an evaluation ({error!r})") from None
