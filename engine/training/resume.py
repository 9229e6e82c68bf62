"""Where a run goes on: what must not have changed since, and what has."""

from yacs.config import CfgNode

from engine.checkpoint import compare_configs
from engine.distributed import ranks
from utils.errors import UserError

KINDS = {
    "terms": dict,
    "optimizer": dict,
    "scaler": dict,
    "generators": list,
    "epoch": int,
    "step": int,
}
ORDER = (
    "INPUT.BATCH_SIZE_TRAIN",
    "INPUT.EXTRA_TRAIN",
    "SEED",
)  # keys that decide an epoch's order, beside the data


def check_place(saved: dict, cfg: CfgNode, data: dict, steps: int, where: str) -> list[str]:
    """What has changed since `saved`, in lines to print; UserError where no run goes on from it.

    data: the training data's {"images", "identities", "annotations"}, of which as many are compared
    as the checkpoint has. steps: of an epoch. where: the checkpoint's file.
    """
    found = {key: saved.get(key) for key in KINDS}
    wrong = [key for key, kind in KINDS.items() if not isinstance(found[key], kind)]
    wrong += [key for key, value in found.items() if isinstance(value, bool)]
    if wrong:
        raise UserError(f"{where}: cannot be resumed, without {', '.join(wrong)}")
    epoch, step, done = saved["epoch"], saved["step"], saved.get("done", 0)
    if min(epoch, step) < 0 or type(done) is not int or done < 0:
        raise UserError(f"{where}: expected counts from 0, found epoch {epoch}, step {step}")
    changes = compare_configs(saved, cfg, where)
    was = saved.get("data", {})
    if not isinstance(was, dict):
        raise UserError(f"{where}: its data is no dict")
    moved = [f"{k} were {was[k]}, are {data[k]}" for k in data if was.get(k, data[k]) != data[k]]
    if was.get("identities", data["identities"]) != data["identities"]:
        raise UserError(f"{where}: learnt from other people: {'; '.join(moved)}")
    order = [change for change in changes if change.startswith(ORDER)] + moved
    if step and order:
        raise UserError(
            f"{where}: lies within an epoch, whose order is another: {'; '.join(order)}; go on "
            "with what it was, or from an epoch's end"
        )
    if step >= steps:
        raise UserError(f"{where}: lies at step {step} of an epoch, which has {steps} steps here")
    for change in changes:
        if change.startswith("SOLVER.OPTIMIZER"):
            raise UserError(f"{where}: its optimizer's state is of another kind: {change}")
    lines = [f"config changed since {where}: {'; '.join(changes)}"] if changes else []
    lines += [f"training data changed since {where}: {'; '.join(moved)}"] if moved else []
    if len(saved["generators"]) != ranks():
        lines.append(
            f"{where}: written by {len(saved['generators'])} ranks, going on with {ranks()}: "
            "other random regions will be drawn"
        )
    return lines
