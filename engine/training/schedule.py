"""The learning rate as a pure function of the step, without state in checkpoints."""


def scaled_lr(base_lr: float, base_batch: int, batch: int) -> float:
    """Scale the learning rate linearly with the batch, and print it.

    Source: Goyal et al., "Accurate, Large Minibatch SGD", 2017.

    Args:
        base_lr: rate for a batch of `base_batch` images.
        base_batch: 0 returns `base_lr` unchanged.
        batch: images of a batch, on all ranks.
    """
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
    """Return the learning rate of a step.

    It rises linearly from base_lr × warmup_factor to base_lr in the first epoch, and is multiplied
    by gamma at each milestone epoch.

    Args:
        step: counted from 0 over the whole run.
    """
    epoch = step // steps_per_epoch
    rate = base_lr * gamma ** sum(epoch >= milestone for milestone in milestones)
    progress = min(step / max(steps_per_epoch - 1, 1), 1.0)
    return rate * (warmup_factor * (1 - progress) + progress)
