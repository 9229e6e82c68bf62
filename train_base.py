"""Train a network on its own: a teacher, or a student's baseline; or evaluate one."""

from engine.run import run
from models.build import build_net
from utils.errors import run_main


def build(cfg, num_pids, device):
    net = build_net(cfg, num_pids).to(device)
    return net, net


if __name__ == "__main__":
    run_main(lambda: run(__doc__, build))
