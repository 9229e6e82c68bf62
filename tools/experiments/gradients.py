"""Which loss leads: the norm of each weighted loss's gradient on the student, step by step."""

import statistics
from itertools import islice

from tabulate import tabulate

from datasets import load_dataset
from engine.training.distillation import build
from engine.training.generators import seed_everything
from engine.training.train import Trainer
from models.build import build_net, choose_device
from tools.experiments.runs import Run


def measure(run: Run, steps: int) -> list[dict[str, float]]:
    """Norms before each of the next steps of a run, from its newest checkpoint or from the start,
    at most to the end of an epoch. The steps are taken and not kept: the run's folder stays."""
    cfg, device = run.cfg, choose_device(run.cfg.DEVICE)
    dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT)
    seed_everything(cfg.SEED)
    if run.terms:
        model, net = build(cfg, dataset.num_pids, device)
    else:
        model = net = build_net(cfg, dataset.num_pids).to(device)
    trainer = Trainer(cfg, model, net, dataset, device)
    trainer.resume(None)
    norms = []
    for images, targets in islice(trainer.start_epoch(), steps):
        norms.append(trainer.train_step.gradient_norms(images, targets))
        trainer.train_step(images, targets)
        trainer.step += 1
    return norms


def show(run: Run, steps: int) -> None:
    """Print the table of a run."""
    print(f"{run.folder.name}:")
    print(f"{table(measure(run, steps))}\n", flush=True)


def table(norms: list[dict[str, float]]) -> str:
    """One line for each loss: its norm at each step, their mean, and what share of the sum of all
    losses' means that is; the last line is the norm of all of them together."""
    means = {name: statistics.mean(step[name] for step in norms) for name in norms[0]}
    whole = sum(mean for name, mean in means.items() if name != "total") or 1
    lines = [
        [name, *(f"{step[name]:.3g}" for step in norms), f"{mean:.3g}"]
        + ([] if name == "total" else [f"{mean / whole:.1%}"])
        for name, mean in means.items()
    ]
    headers = ["gradient of", *(f"step {i}" for i in range(1, len(norms) + 1)), "mean", "share"]
    return tabulate(lines, headers, disable_numparse=True, stralign="right")
