"""Comparison of a checkpoint with the run that continues from it."""

from typing import Any

from yacs.config import CfgNode

from configs.ranges import flatten
from engine.distributed import ranks
from engine.metadata import compare_configs, parse_stored
from engine.training.inputs import TEACHERS, changed_inputs
from utils.errors import UserError

KINDS = {
    "terms": dict,
    "optimizer": dict,
    "scaler": dict,
    "generators": list,
    "epoch": int,
    "step": int,
}
# Keys and inputs that the order of the images in an epoch depends on.
ORDER_KEYS = ("INPUT.BATCH_SIZE_TRAIN", "INPUT.EXTRA_TRAIN", "SEED")
ORDER_INPUTS = ("images", "identities", "annotations")


def check_place(
    saved: dict, cfg: CfgNode, inputs: dict[str, Any], steps: int, where: str
) -> list[str]:
    """Compare a checkpoint with the config and the inputs of the run that continues from it.

    Args:
        saved: the content of the checkpoint.
        inputs: see `engine.training.inputs`; only what the checkpoint records is compared.
        steps: of an epoch.
        where: the path of the checkpoint, for messages.

    Returns:
        Lines to print about what has changed.

    Raises:
        UserError: if the run cannot continue from the checkpoint.
    """
    _check_form(saved, where)
    changes = compare_configs(parse_stored(saved["config"], where), cfg, where)
    moved = changed_inputs(saved.get("data", {}), inputs)
    if "identities" in moved:
        raise UserError(f"{where}: trained on different identities: {'; '.join(moved.values())}")
    order = [change for change in changes if change.startswith(ORDER_KEYS)]
    order += [moved[key] for key in ORDER_INPUTS if key in moved]
    if saved["step"] and order:
        raise UserError(
            f"{where}: was written within an epoch, and the order of the images has changed since: "
            f"{'; '.join(order)}; restore them, or continue from the end of an epoch"
        )
    if saved["step"] >= steps:
        raise UserError(
            f"{where}: was written at step {saved['step']} of an epoch, which has {steps} steps now"
        )
    changed_keys = [change.partition(" ")[0] for change in changes]
    if "SOLVER.OPTIMIZER" in changed_keys:
        raise UserError(f"{where}: contains the state of another optimizer: {'; '.join(changes)}")
    for name in TEACHERS:
        key = name.partition(" ")[0]
        if name in moved and key not in changed_keys:
            raise UserError(
                f"{key} {flatten(cfg)[key]}: expected the file that the run in {where} began "
                f"with, found another content ({moved[name]}); restore it, or give the new teacher "
                "under another path"
            )
    return _lines(changes, moved, len(saved["generators"]), where)


def _check_form(saved: dict, where: str) -> None:
    found = {key: saved.get(key) for key in KINDS}
    wrong = [key for key, kind in KINDS.items() if not isinstance(found[key], kind)]
    wrong += [key for key, value in found.items() if isinstance(value, bool)]
    if wrong:
        raise UserError(f"{where}: cannot be resumed; missing or damaged: {', '.join(wrong)}")
    epoch, step, done = saved["epoch"], saved["step"], saved.get("done", 0)
    if min(epoch, step) < 0 or type(done) is not int or done < 0:
        raise UserError(f"{where}: expected counts from 0, found epoch {epoch}, step {step}")
    data = saved.get("data", {})
    if not isinstance(data, dict):
        raise UserError(f"{where}: data: expected a dict, found {type(data).__name__}")


def _lines(changes: list[str], moved: dict[str, str], writers: int, where: str) -> list[str]:
    lines = [f"config changed since {where}: {'; '.join(changes)}"] if changes else []
    lines += [f"data changed since {where}: {'; '.join(moved.values())}"] if moved else []
    if writers != ranks():
        lines.append(
            f"{where}: written by {writers} ranks, continuing with {ranks()}: other random regions "
            "will be sampled"
        )
    return lines
