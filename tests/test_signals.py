"""Ctrl-C, SIGTERM and SIGHUP to a whole process group, as terminals and schedulers send them."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import datasets.workers
import engine.run
from datasets.loaders import SceneDataset
from engine.distributed import patience
from engine.training.train_step import TrainStep
from tests.training import FORKS, Run, differences, make_whole_run
from utils.signals import Signals

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with data, a config, and a run that was never stopped."""
    return make_whole_run(tmp_path_factory.mktemp("signals"))


class ToGroup:
    """In a group of its own, the process sends signals to all of it before the n-th call of
    something."""

    def __init__(self, owner: str, name: str, n: int, *numbers: int, apart: float = 0.0):
        self.place, self.n, self.numbers, self.apart = (owner, name), n, numbers, apart

    def __call__(self) -> None:
        os.setpgrp()
        owner, name = OWNERS[self.place[0]], self.place[1]
        work, calls = getattr(owner, name), iter(range(1, 1000))

        def replaced(*args, **kwargs):
            if next(calls) == self.n:
                for number in self.numbers:
                    os.killpg(0, number)
                    time.sleep(self.apart)
            return work(*args, **kwargs)

        setattr(owner, name, replaced)


OWNERS = {"train_step": TrainStep, "workers": datasets.workers, "run": engine.run}


class WhileAwaited:
    """The group is signalled while a batch is awaited that never comes: the n-th image read by a
    process is one on a dead disk, or the process that reads it stands still."""

    def __init__(self, act: Callable[[], None], number: int, marker: Path):
        self.act, self.number, self.marker = act, number, marker

    def __call__(self) -> None:
        os.setpgrp()
        read, calls = SceneDataset.__getitem__, iter(range(1, 1000))

        def stuck(data, key):
            if data.train and next(calls) == 5:
                self.marker.touch()
                self.act()
            return read(data, key)

        def tell() -> None:
            while not self.marker.exists():
                time.sleep(0.05)
            time.sleep(0.5)
            os.killpg(0, self.number)

        SceneDataset.__getitem__ = stuck
        threading.Thread(target=tell, daemon=True).start()


def sleep() -> None:
    time.sleep(1000)


def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def all_gone(group: int) -> bool:
    """Within seconds: workers that outlive a process see that it is gone."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def leaves(run: Run, number: int, said: str) -> None:
    assert run.wait() == 128 + number, run.text
    assert f"{signal.Signals(number).name}: {said}" in run.text
    assert "Traceback" not in run.text and "Exception ignored" not in run.text
    assert all_gone(run.process.pid)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_group_is_stopped_in_a_step(base, tmp_path, number, workers):
    run = Run(
        base,
        tmp_path,
        "INPUT.NUM_WORKERS",
        workers,
        sabotage=ToGroup("train_step", "step", 3, number),
    )
    leaves(run, number, f"saved {tmp_path}/epoch_00_step_000003.pth; continue with --resume")
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


@pytest.mark.parametrize(
    "workers, act", [("0", sleep), ("1", sleep), ("2", sleep), ("2", stand_still)]
)
def test_a_signal_is_answered_while_a_batch_is_awaited(base, tmp_path, workers, act):
    options = "INPUT.NUM_WORKERS", workers, "SOLVER.CKPT_PERIOD_STEPS", "1"
    stuck = WhileAwaited(act, signal.SIGTERM, tmp_path / "awaited")
    run = Run(base, tmp_path, *options, sabotage=stuck)
    leaves(run, signal.SIGTERM, "s")
    assert "continue with --resume" in run.text
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


@pytest.mark.parametrize(
    "place, said",
    [
        (("run", "load_dataset", 1), "stopped"),
        (("workers", "_start", 1), "stopped before the first step; continue with --resume"),
        (("workers", "_start", 2), "stopped evaluating; continue with --resume"),
    ],
)
def test_starting_and_evaluating_are_left_at_once(base, tmp_path, place, said):
    run = Run(base, tmp_path, "INPUT.NUM_WORKERS", "2", sabotage=ToGroup(*place, signal.SIGINT))
    leaves(run, signal.SIGINT, said)


def test_twice_at_once_is_one_signal_and_a_second_term_harmless(base, tmp_path):
    """As `timeout -s INT` sends it, and launchers that pass on what the group has got already."""
    numbers = signal.SIGINT, signal.SIGINT
    run = Run(base, tmp_path / "int", sabotage=ToGroup("train_step", "step", 3, *numbers))
    leaves(run, signal.SIGINT, f"saved {tmp_path}/int/epoch_00_step_000003.pth")
    numbers = signal.SIGTERM, signal.SIGTERM, signal.SIGTERM
    run = Run(
        base, tmp_path / "term", sabotage=ToGroup("train_step", "step", 3, *numbers, apart=0.3)
    )
    leaves(run, signal.SIGTERM, f"saved {tmp_path}/term/epoch_00_step_000003.pth")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_again_ends_at_once(base, tmp_path, first):
    """In a step that would go on for a long time."""
    twice = ToGroup("train_step", "step", 3, first, signal.SIGINT, apart=0.5)
    run = Run(base, tmp_path, "INPUT.NUM_WORKERS", "2", sabotage=twice)
    leaves(run, signal.SIGINT, "ended at once")
    assert not list(tmp_path.glob("*.pth"))


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for the signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0, 0.7, 1.7])
def test_the_first_seconds(base, tmp_path, number, seconds):
    command = [sys.executable, "train_base.py", "--cfg", str(base / "tiny.yaml")]
    command += ["INPUT.DATA_ROOT", str(base / "data" / "CUHK-SYSU"), "OUTPUT_DIR", str(tmp_path)]
    program = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not hears(program.pid, signal.SIGTERM):
        assert program.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(program.pid, number)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 128 + number, said
    assert "Traceback" not in said


def _in_vain(answered: bool) -> None:
    """A rank that has been told to stop, in a call that does not return."""
    signals = Signals(patience=0.5)
    signals.answered = answered
    with signals.install(), signals.defer():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
    sys.exit(7)


@pytest.mark.parametrize("answered, code", [(False, 128 + signal.SIGTERM), (True, 7)])
def test_a_rank_waits_for_others_only_so_long(answered, code):
    rank = FORKS.Process(target=_in_vain, args=(answered,))
    rank.start()
    rank.join(60)
    assert rank.exitcode == code


def test_ranks_wait_less_than_torchrun(monkeypatch):
    assert patience() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert patience() == pytest.approx(20)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")
    assert patience() == pytest.approx(80)
