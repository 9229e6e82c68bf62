"""Runs of several ranks and of one rank that can be compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch

import engine.training.epoch_evaluation as epoch_evaluation
from engine import run as program
from engine.distributed import rank
from engine.training.train_step import TrainStep
from tests.training import fix_regions


@contextmanager
def numbers_of(dtype: torch.dtype) -> Iterator[None]:
    """Create new tensors in this type, and let `float()` convert to it."""
    before, single = torch.get_default_dtype(), torch.Tensor.float
    torch.set_default_dtype(dtype)
    torch.Tensor.float = lambda self: self.to(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.Tensor.float = single


def learn_in_double() -> None:
    """Train in double precision; evaluate in single precision.

    In single precision rounding errors grow from step to step, until another region is chosen. In
    double precision they remain far smaller than the effect of a wrong gradient.
    """
    begin, step, score = TrainStep.__init__, TrainStep.step, epoch_evaluation.evaluate

    def in_double(self, cfg, model, net, device):
        begin(self, cfg, model.double(), net, device)

    def doubled(self, parts, *args):
        with numbers_of(torch.float64):
            parts = [
                part._replace(
                    targets=[one | {"boxes": one["boxes"].double()} for one in part.targets]
                )
                for part in parts
            ]
            return step(self, parts, *args)

    def in_single(net, *args):
        return score(deepcopy(net).to(torch.float32), *args)

    TrainStep.__init__, TrainStep.step = in_double, doubled
    epoch_evaluation.evaluate = in_single


def make_comparable() -> None:
    """Apply `fix_regions` and `learn_in_double`, and make each rank save its network at the end of
    the run."""
    fix_regions()
    learn_in_double()
    work = program.Trainer.run

    def replaced(self, *args):
        work(self, *args)
        torch.save(self.net.state_dict(), self.folder / f"rank{rank()}.pt")

    program.Trainer.run = replaced


def largest_difference(a: dict, b: dict) -> float:
    """Return the largest difference of two state dicts, relative to the largest value of the
    tensor; NaN if there is one."""
    differences = [
        (a[k] - b[k]).abs().max() / a[k].abs().max().clamp(min=1e-3)
        for k in a
        if a[k].is_floating_point() and a[k].numel()
    ]
    return float(torch.tensor(differences, dtype=torch.float64).max())
