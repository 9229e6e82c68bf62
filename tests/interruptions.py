"""The interruption of a training in the n-th call of a function."""

import os
import signal

import torch

import engine.evaluation.evaluate
import engine.training.epoch_evaluation
import engine.training.folder
import engine.training.train
from engine.training.train_step import TrainStep


class At:
    """A sabotage: send a signal before or after the n-th call of a function.

    Args:
        owner: a key of OWNERS, since modules cannot be pickled.
        name: of the function.
        when: "before" or "after".
    """

    def __init__(self, owner: str, name: str, n: int, when: str, number: int = signal.SIGKILL):
        self.owner, self.name, self.n, self.when, self.number = owner, name, n, when, number

    def __call__(self) -> None:
        owner = OWNERS[self.owner]
        work, calls = getattr(owner, self.name), iter(range(1, 1000))

        def replaced(*args, **kwargs):
            now = self.when if next(calls) == self.n else ""
            if now == "before":
                os.kill(os.getpid(), self.number)
            result = work(*args, **kwargs)
            if now == "after":
                os.kill(os.getpid(), self.number)
            return result

        setattr(owner, self.name, replaced)


OWNERS = {
    "train_step": TrainStep,
    "trainer": engine.training.train.Trainer,
    "epochs": engine.training.epoch_evaluation,
    "checkpoints": engine.training.folder.CheckpointFolder,
    "os": os,
    "eval": engine.evaluation.evaluate,
    "sgd": torch.optim.SGD,
}
