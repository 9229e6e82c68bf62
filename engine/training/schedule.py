"""The learning rate as a function of the step: no state to save, none to lose."""


def scaled_lr(base_lr: float, base_batch: int, batch: int) -> float:
    """base_lr is meant for batches of base_batch images; lr grows with the batch (Goyal et al.,
    "Accurate, Large Minibatch SGD", 2017). base_batch 0: base_lr as it is."""
    if not base_batch:
        return base_lr
    rate = base_lr * batch / base_batch
    print(
        f"learning rate {rate:g}: SOLVER.BASE_LR {base_lr:g} x batch {batch} / "
        f"SOLVER.BASE_LR_BATCH {base_batch}"
    )
    return rate


def learning_rate(
    step: int,
    steps_per_epoch: int,
    base_lr: float,
    warmup_factor: float,
    milestones: list[int],
    gamma: float,
) -> float:
    """Linear warm-up from warmup_factor over the first epoch, then ×gamma at each milestone epoch.

    step counts from 0 over the whole run.
    """
    epoch = step // steps_per_epoch
    rate = base_lr * gamma ** sum(epoch >= milestone for milestone in milestones)
    progress = min(step / max(steps_per_epoch - 1, 1), 1.0)
    return rate * (warmup_factor * (1 - progress) + progress)
