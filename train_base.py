"""Train a network without distillation (a teacher, or a student's baseline), or evaluate one."""

from utils.early import leave_on_signals


def build(cfg, dataset, device):
    """Build the model and the network, see engine.run.Build."""
    from models.build import build_net

    net = build_net(cfg, dataset.num_pids).to(device)
    return net, net


if __name__ == "__main__":
    leave_on_signals()

    from engine.run import run
    from utils.errors import run_main

    run_main(lambda: run(__doc__, build))
