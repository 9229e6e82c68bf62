"""Norms of the gradients of all weighted losses on the student, step by step."""

import statistics
from itertools import islice

from tabulate import tabulate

from datasets import load_dataset
from engine.device import choose_device
from engine.evaluation.evaluate import check_settings
from engine.run import build_from
from engine.training.build import build_alone, build_distilled
from engine.training.folder import CheckpointFolder
from engine.training.generators import seed_everything
from engine.training.train import Trainer
from tools.experiments.runs import Run
from utils.memory import keep_freed_memory


def measure(run: Run, steps: int) -> list[dict[str, float]]:
    """Return gradient norms before each of the next training steps of a run.

    The run starts from its newest checkpoint, or from its initial weights. It takes at most the
    rest of one epoch. The steps are not saved, and the folder of the run does not change.

    Raises:
        UserError: if the dataset does not fit the config or has no training images.
    """
    cfg, device = run.cfg, choose_device(run.cfg.DEVICE)
    keep_freed_memory(device.type)
    dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT, cfg.INPUT.EXTRA_TRAIN)
    check_settings(dataset, cfg)
    dataset.check_training()
    seed_everything(cfg.SEED)
    found = CheckpointFolder(run.folder, cfg.SOLVER.CKPT_KEEP).load_newest(print, rename=False)
    build = build_distilled if run.terms else build_alone
    model, net = build_from(cfg, build, dataset, device, continues=found is not None)
    trainer = Trainer(cfg, model, net, dataset, device)
    if found is None:
        print(f"no checkpoint in {run.folder}: the weights are the initial ones")
    else:
        trainer.continue_from(*found)
    norms = []
    for images, targets in islice(trainer.start_epoch(), steps):
        norms.append(trainer.train_step.gradient_norms(images, targets))
        trainer.run_step(images, targets)
        trainer.step += 1
    return norms


def show(run: Run, steps: int) -> None:
    """Measure a run and print the table."""
    print(f"{run.folder.name}:")
    print(f"{table(measure(run, steps))}\n", flush=True)


def table(norms: list[dict[str, float]]) -> str:
    """Return the norms as text.

    One line per loss: its norm at each step, their mean, and the share of this mean in the sum of
    the means of all losses. The last line is the norm of the gradient of the total loss.
    """
    means = {name: statistics.mean(step[name] for step in norms) for name in norms[0]}
    whole = sum(mean for name, mean in means.items() if name != "total") or 1
    lines = [
        [name, *(f"{step[name]:.3g}" for step in norms), f"{mean:.3g}"]
        + ([] if name == "total" else [f"{mean / whole:.1%}"])
        for name, mean in means.items()
    ]
    headers = ["gradient of", *(f"step {i}" for i in range(1, len(norms) + 1)), "mean", "share"]
    return tabulate(lines, headers, disable_numparse=True, stralign="right")
