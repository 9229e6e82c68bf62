"""Train a network without distillation (a teacher, or a student's baseline), or evaluate one."""

from utils.early import leave_on_signals


def build(cfg, dataset, device):
    """Build the model and the network, see engine.run.Build."""
    from engine.training.build import build_alone

    return build_alone(cfg, dataset, device)


if __name__ == "__main__":
    leave_on_signals()

    from engine.run import run
    from utils.errors import run_main

    run_main(lambda: run(__doc__, build))
