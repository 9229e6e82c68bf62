"""Tiny trainings in processes of their own, and comparison of the files that they write."""

import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import engine.training.epoch_evaluation as epoch_evaluation
from datasets.synthetic import write_dataset
from engine.run import run
from engine.training.build import build_alone, build_distilled
from tests import tiny  # noqa: F401 (adds the backbone)
from utils.errors import run_main

CONFIG = """
DEVICE: cpu
INPUT: {MIN_SIZE: 64, MAX_SIZE: 112, BATCH_SIZE_TRAIN: 3, BATCH_SIZE_TEST: 2, NUM_WORKERS: 0}
BACKBONE: {NAME: tiny, WEIGHTS: "", FREEZE: False}
MODEL:
  FPN_CHANNELS: 16
  FC_SIZE: 32
  EMBEDDING_SIZE: 16
  ANCHOR_SIZES: [8, 16, 24, 32, 48]
  RPN: {PRE_NMS_TOP_N: [100, 50], POST_NMS_TOP_N: [50, 20]}
  ROI: {BATCH_SIZE: 16, DETECTIONS_PER_IMAGE: 10}
  OIM: {QUEUE_SIZE: 8}
SOLVER: {MAX_EPOCHS: 2, MILESTONES: [1], BASE_LR: 0.02}
EVAL_USE_GT: True
"""
PROGRAM_CONFIG = CONFIG.replace("NAME: tiny", "NAME: resnet18_x05")
PROGRAMS = {"base": build_alone, "ddps": build_distilled}
# Processes are forked from a server that has imported all modules and computed nothing. A training
# imports the last one for its evaluations only.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.training", "sklearn.metrics"])


def make_data(folder: Path, frames: int = 15) -> Path:
    """Write a dataset, four fifths of it for training, and a config. Return the dataset's root."""
    write_dataset(
        str(folder / "data"),
        identities=9,
        frames=frames,
        queries=3,
        size=(112, 64),
        workers=1,
        progress=False,
    )
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder / "data" / "CUHK-SYSU"


def make_whole_run(folder: Path) -> Path:
    """Write data, a config and an uninterrupted run into `folder`, and return the folder."""
    make_data(folder)
    run = Run(folder, "whole")
    assert run.wait() == 0, run.text
    return folder


class Run:
    """A program that runs in a process of its own.

    Args:
        sabotage: called before the program, in its process.
        env: environment variables.
        name: of the file with its output, for simultaneous runs.
        drawn: whether plots and pictures are drawn; see `draw_nothing`.
    """

    def __init__(
        self,
        folder: Path,
        out: str | Path,
        *arguments: str,
        program: str = "base",
        sabotage: Callable[[], None] | None = None,
        root: Path | None = None,
        env: dict[str, str] | None = None,
        name: str = "said",
        drawn: bool = False,
    ):
        self.said = folder / f"{name}_{(env or {}).get('RANK', '0')}.txt"
        self.said.write_text("")
        self.out = folder / out
        root = root or folder / "data" / "CUHK-SYSU"
        words = [
            "train",
            "--cfg",
            folder / "tiny.yaml",
            *arguments,
            "INPUT.DATA_ROOT",
            root,
            "OUTPUT_DIR",
            self.out,
        ]
        before = [] if drawn else [draw_nothing]
        before += [sabotage] if sabotage else []
        self.process = fork(partial(run, "", PROGRAMS[program]), words, self.said, before, env)

    def wait(self) -> int:
        """Wait for the end. Return the exit code, or the negative number of a signal."""
        self.process.join(120)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError("the program has not ended")
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.said.read_text()


class Training:
    """A stand-in for subprocess.Popen that runs a training program in a forked process.

    The process need not import all modules first, and the backbone "tiny" is registered in it.
    """

    def __init__(self, command: list[str], stdout: IO, env: dict[str, str], **_: Any):
        program = Path(command[1]).stem.removeprefix("train_")
        own = {key: value for key, value in env.items() if os.environ.get(key) != value}
        main = partial(run, "", PROGRAMS[program])
        self.process = fork(main, command[1:], Path(stdout.name), [draw_nothing], own)

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode


def fork_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `tools.experiments.runs` start its trainings as forked processes."""
    stand_in = SimpleNamespace(Popen=Training, STDOUT=None)
    monkeypatch.setattr("tools.experiments.runs.subprocess", stand_in)


def fork_measurements(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Make a program's measuring processes forks, which need not import all modules first."""
    monkeypatch.setattr(module, "get_context", lambda _: FORKS)


def rank_environments(count: int) -> list[dict[str, str]]:
    """Return the environment variables that torchrun sets for each rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def run_ranks(count: int, *args, **options) -> list[Run]:
    """Run the same program on several ranks, connected as by torchrun, until all have ended."""
    runs = [Run(*args, env=env, **options) for env in rank_environments(count)]
    for started in runs:
        started.wait()
    return runs


def fork(
    main: Callable[[], int | None],
    command: Sequence[object],
    said: Path,
    before: Sequence[Callable[[], None]] = (),
    env: dict[str, str] | None = None,
) -> BaseProcess:
    """Start a program in a forked process, which need not import all modules first.

    Args:
        main: of the program.
        command: its name and arguments.
        said: the file to which its output is appended.
        before: functions that are called before the program, in its process.
        env: environment variables.
    """
    words = [str(word) for word in command]
    process = FORKS.Process(target=_main, args=(main, words, said, before, env or {}))
    process.start()
    return process


def _main(
    main: Callable[[], int | None],
    command: list[str],
    said: Path,
    before: Sequence[Callable[[], None]],
    env: dict[str, str],
) -> None:
    os.environ.update(env)
    with open(said, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    multiprocessing.set_start_method("fork", force=True)  # a program's default, not a server's
    sys.argv = command
    for work in before:
        work()
    run_main(main)


def draw_nothing() -> None:
    """Write empty plots, and a tiny picture to TensorBoard: drawing takes half of a run's time."""
    Figure.savefig = lambda self, file, **options: None
    epoch_evaluation.draw_scene = lambda *args: np.zeros((8, 8, 3), np.uint8)


def fix_regions(replace: Callable = setattr) -> None:
    """Remove what the division of a batch changes: random samples, and the statistics of
    BatchNorm.

    Args:
        replace: sets an attribute; `MonkeyPatch.setattr` restores it after the test.
    """
    replace(torch, "randperm", lambda n, **options: torch.arange(n, **options))
    replace(_BatchNorm, "train", lambda self, mode=True: nn.Module.train(self, False))


def children(pid: int) -> list[int]:
    """Return the running child processes of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def scalars(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Return all TensorBoard curves except times. A point that was written twice occurs twice."""
    events = EventAccumulator(str(out), {"scalars": 0}).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if "per_" not in tag
    }


def evaluations(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]


def same(a, b) -> bool:
    """Return True if nested dicts and lists of tensors and numbers are equal to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def state(path: Path) -> dict:
    """Return the content of a checkpoint except its config, which contains the folder's name."""
    saved = torch.load(path, weights_only=True)
    return {key: value for key, value in saved.items() if key != "config"}


def differences(a: Path, b: Path, last: str = "epoch_01.pth") -> list[str]:
    """Return the names of the parts in which two finished runs differ."""
    checks = {
        "last checkpoint": lambda out: state(out / last),
        "best checkpoint": lambda out: state(out / "best.pth"),
        "curves": scalars,
        "evaluations": evaluations,
    }
    return [name for name, of in checks.items() if not same(of(a), of(b))]
