"""Time and memory of one distillation step, ResNet-50 teacher to the student of a config, on one
random image of the config's full input size; weights are random, the cost is the real one."""
import argparse
import platform
import resource
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.defaults import load_cfg
from engine.generators import seed_everything
from models.build import build_distiller, build_net, choose_device, loss_weights
from utils.errors import run_main

PEOPLE = torch.tensor([[100.0, 200, 220, 560], [400, 250, 500, 560], [800, 150, 990, 720]])


def step(model, optimizer, weights, images, targets) -> None:
    out = model(images, targets)
    loss = sum(weights[name] * value for name, value in out.losses.items())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    model.student.oim.update(out.embeddings, out.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cfg", default="configs/cuhk_sysu/resnet18_ddps.yaml", metavar="FILE")
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one that is not")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE")
    args = parser.parse_intermixed_args()
    cfg = load_cfg(args.cfg, ["BACKBONE.WEIGHTS", "", *args.overrides])
    teacher_cfg = load_cfg(None, ["BACKBONE.WEIGHTS", ""])
    device = choose_device(cfg.DEVICE)
    seed_everything(cfg.SEED)
    student, teacher = build_net(cfg, 5532), build_net(teacher_cfg, 5532)
    model = build_distiller(cfg, student, teacher, teacher_cfg).to(device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-4, momentum=0.9)
    images = [torch.rand(3, cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, device=device)]
    targets = [{"boxes": PEOPLE.to(device), "labels": torch.tensor([1, 2, 3], device=device)}]
    times = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        step(model, optimizer, loss_weights(cfg), images, targets)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    where = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        where = torch.cuda.get_device_name()
    print(f"{where}: first step {times[0]:.2f} s, then {sorted(times[1:])[args.steps // 2]:.2f} s; "
          f"peak memory {peak:.2f} GiB; torch {torch.__version__}, seed {cfg.SEED}")


if __name__ == "__main__":
    run_main(main)
