"""The learning rate as a function of the step: no state to save, none to lose."""


def learning_rate(
    step: int, steps_per_epoch: int, base_lr: float, warmup_factor: float,
    milestones: list[int], gamma: float,
) -> float:
    """Linear warm-up from warmup_factor over the first epoch, then ×gamma at each milestone epoch.

    step counts from 0 over the whole run.
    """
    epoch = step // steps_per_epoch
    rate = base_lr * gamma ** sum(epoch >= milestone for milestone in milestones)
    progress = min(step / max(steps_per_epoch - 1, 1), 1.0)
    return rate * (warmup_factor * (1 - progress) + progress)
