"""Comparison of a checkpoint with the run that continues from it."""

from yacs.config import CfgNode

from engine.distributed import ranks
from engine.metadata import compare_configs, parse_stored
from utils.errors import UserError

KINDS = {
    "terms": dict,
    "optimizer": dict,
    "scaler": dict,
    "generators": list,
    "epoch": int,
    "step": int,
}
ORDER_KEYS = (
    "INPUT.BATCH_SIZE_TRAIN",
    "INPUT.EXTRA_TRAIN",
    "SEED",
)  # keys that the order of images in an epoch depends on


def check_place(saved: dict, cfg: CfgNode, data: dict, steps: int, where: str) -> list[str]:
    """Compare a checkpoint with the config and data of the run that continues from it.

    Args:
        saved: the content of the checkpoint.
        data: {"images", "identities", "annotations"} of the training data; only the facts that the
            checkpoint records are compared.
        steps: of an epoch.
        where: the path of the checkpoint, for messages.

    Returns:
        Lines to print about what has changed.

    Raises:
        UserError: if the run cannot continue from the checkpoint.
    """
    found = {key: saved.get(key) for key in KINDS}
    wrong = [key for key, kind in KINDS.items() if not isinstance(found[key], kind)]
    wrong += [key for key, value in found.items() if isinstance(value, bool)]
    if wrong:
        raise UserError(f"{where}: cannot be resumed; missing or damaged: {', '.join(wrong)}")
    epoch, step, done = saved["epoch"], saved["step"], saved.get("done", 0)
    if min(epoch, step) < 0 or type(done) is not int or done < 0:
        raise UserError(f"{where}: expected counts from 0, found epoch {epoch}, step {step}")
    changes = compare_configs(parse_stored(saved["config"], where), cfg, where)
    was = saved.get("data", {})
    if not isinstance(was, dict):
        raise UserError(f"{where}: data: expected a dict, found {type(was).__name__}")
    moved = [f"{k} were {was[k]}, are {data[k]}" for k in data if was.get(k, data[k]) != data[k]]
    if was.get("identities", data["identities"]) != data["identities"]:
        raise UserError(f"{where}: trained on different identities: {'; '.join(moved)}")
    order = [change for change in changes if change.startswith(ORDER_KEYS)] + moved
    if step and order:
        raise UserError(
            f"{where}: was written within an epoch, and the order of the images has changed since: "
            f"{'; '.join(order)}; restore them, or continue from the end of an epoch"
        )
    if step >= steps:
        raise UserError(
            f"{where}: was written at step {step} of an epoch, which has {steps} steps now"
        )
    for change in changes:
        if change.startswith("SOLVER.OPTIMIZER"):
            raise UserError(f"{where}: holds the state of another optimizer: {change}")
    lines = [f"config changed since {where}: {'; '.join(changes)}"] if changes else []
    lines += [f"training data changed since {where}: {'; '.join(moved)}"] if moved else []
    if len(saved["generators"]) != ranks():
        lines.append(
            f"{where}: written by {len(saved['generators'])} ranks, continuing with {ranks()}: "
            "other random regions will be sampled"
        )
    return lines
