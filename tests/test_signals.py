"""Ctrl-C, SIGTERM and SIGHUP sent to a process group, as terminals and schedulers do."""

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
    """A folder with data, a config, and an uninterrupted run."""
    return make_whole_run(tmp_path_factory.mktemp("signals"))


class ToGroup:
    """Move the process to a new group, and send signals to the group before the n-th call of a
    function."""

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
    """Send a signal to the group while the run waits for a batch that never arrives.

    The process that reads the run's fifth image waits, or is stopped.
    """

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

        def send() -> None:
            while not self.marker.exists():
                time.sleep(0.05)
            time.sleep(0.5)
            os.killpg(0, self.number)

        SceneDataset.__getitem__ = stuck
        threading.Thread(target=send, daemon=True).start()


def sleep() -> None:
    time.sleep(1000)


def stop_process() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def all_gone(group: int) -> bool:
    """Return True if all processes of the group end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def ends(run: Run, number: int, saved: str = "") -> None:
    """Check that a signal ends the run, and that one line names the signal and the file `saved`."""
    assert run.wait() == 128 + number, run.text
    name = f"{signal.Signals(number).name}:"
    (line,) = [line for line in run.text.splitlines() if name in line]
    assert saved in line
    assert "Traceback" not in run.text and "Exception ignored" not in run.text
    assert all_gone(run.process.pid)


@pytest.mark.parametrize(
    "number, workers",
    [(signal.SIGTERM, "0"), (signal.SIGTERM, "2"), (signal.SIGINT, "2"), (signal.SIGHUP, "2")],
)
def test_a_signal_in_a_step_saves_a_checkpoint(base, tmp_path, number, workers):
    run = Run(
        base,
        tmp_path,
        "INPUT.NUM_WORKERS",
        workers,
        sabotage=ToGroup("train_step", "step", 3, number),
    )
    ends(run, number, f"{tmp_path}/epoch_00_step_000003.pth")
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


@pytest.mark.parametrize(
    "workers, act", [("0", sleep), ("1", sleep), ("2", sleep), ("2", stop_process)]
)
def test_a_signal_ends_the_run_while_it_waits_for_a_batch(base, tmp_path, workers, act):
    options = "INPUT.NUM_WORKERS", workers, "SOLVER.CKPT_PERIOD_STEPS", "1"
    stuck = WhileAwaited(act, signal.SIGTERM, tmp_path / "awaited")
    run = Run(base, tmp_path, *options, sabotage=stuck)
    ends(run, signal.SIGTERM)
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


@pytest.mark.parametrize(
    "place", [("run", "load_dataset", 1), ("workers", "_start", 1), ("workers", "_start", 2)]
)
def test_a_signal_ends_start_and_evaluation_at_once(base, tmp_path, place):
    run = Run(base, tmp_path, "INPUT.NUM_WORKERS", "2", sabotage=ToGroup(*place, signal.SIGINT))
    ends(run, signal.SIGINT)


def test_repeated_signals_of_launchers_are_one_signal(base, tmp_path):
    """`timeout -s INT` sends SIGINT twice. Launchers forward a SIGTERM that the group has already
    received."""
    numbers = signal.SIGINT, signal.SIGINT
    run = Run(base, tmp_path / "int", sabotage=ToGroup("train_step", "step", 3, *numbers))
    ends(run, signal.SIGINT, f"{tmp_path}/int/epoch_00_step_000003.pth")
    numbers = signal.SIGTERM, signal.SIGTERM, signal.SIGTERM
    run = Run(
        base, tmp_path / "term", sabotage=ToGroup("train_step", "step", 3, *numbers, apart=0.3)
    )
    ends(run, signal.SIGTERM, f"{tmp_path}/term/epoch_00_step_000003.pth")


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_ends_at_once(base, tmp_path, first):
    """The run is within a step, and does not save a checkpoint."""
    twice = ToGroup("train_step", "step", 3, first, signal.SIGINT, apart=0.5)
    run = Run(base, tmp_path, "INPUT.NUM_WORKERS", "2", sabotage=twice)
    ends(run, signal.SIGINT)
    assert not list(tmp_path.glob("*.pth"))


def has_handler(pid: int, number: signal.Signals) -> bool:
    """Return True if a process has a handler for the signal."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0, 0.7, 1.7])
def test_a_signal_in_the_first_seconds(base, tmp_path, number, seconds):
    command = [sys.executable, "train_base.py", "--cfg", str(base / "tiny.yaml")]
    command += ["INPUT.DATA_ROOT", str(base / "data" / "CUHK-SYSU"), "OUTPUT_DIR", str(tmp_path)]
    command += ["BACKBONE.NAME", "resnet18_x05"]
    program = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not has_handler(program.pid, signal.SIGTERM):
        assert program.poll() is None
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(program.pid, number)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 128 + number, said
    assert "Traceback" not in said


def _wait(answered: bool) -> None:
    """Receive a signal within a call that does not return; for `answered` see Signals."""
    signals = Signals(patience=0.5)
    signals.answered = answered
    with signals.install(), signals.defer():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(3)
    sys.exit(7)


@pytest.mark.parametrize("answered, code", [(False, 128 + signal.SIGTERM), (True, 7)])
def test_a_rank_waits_for_others_for_a_limited_time(answered, code):
    rank = FORKS.Process(target=_wait, args=(answered,))
    rank.start()
    rank.join(60)
    assert rank.exitcode == code


def test_ranks_wait_less_than_torchrun(monkeypatch):
    assert patience() is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert patience() == pytest.approx(20)
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")
    assert patience() == pytest.approx(80)
