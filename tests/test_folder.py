"""OUTPUT_DIR: its lock, removal of files, damaged checkpoints, resuming, full disks."""

import builtins
import errno
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import engine.run
from engine.evaluation.records import EVALUATIONS
from engine.training.train_step import TrainStep
from tests.training import Run, children, die, differences, evaluations, make_whole_run, scalars
from utils.errors import UserError
from utils.files import save_file

pytestmark = pytest.mark.slow
PERIOD = ("SOLVER.CKPT_PERIOD_STEPS", "1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config and two runs.

    One run was not interrupted. The other one was killed in its 7th step, the third of its second
    epoch.
    """
    folder = make_whole_run(tmp_path_factory.mktemp("folder"))
    run = Run(folder, "killed", *PERIOD, sabotage=InStep(7, die))
    assert run.wait() == -signal.SIGKILL, run.text
    return folder


class InStep:
    """Call a function before the n-th step."""

    def __init__(self, n: int, act: Callable[[], None]):
        self.n, self.act = n, act

    def __call__(self) -> None:
        step, calls = TrainStep.step, iter(range(1, 1000))

        def replaced(*args):
            if next(calls) == self.n:
                self.act()
            return step(*args)

        TrainStep.step = replaced


def killed(base: Path, out: Path) -> Path:
    """Copy the killed run to `out`, and return `out`."""
    shutil.copytree(base / "killed", out)
    return out


def refused(run: Run, *said: str) -> None:
    """Check that a run ends with exit code 2 and one error line, which contains `said`."""
    assert run.wait() == 2, run.text
    errors = [line for line in run.text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and all(part in errors[0] for part in said), run.text
    assert "Traceback" not in run.text


def content(out: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.is_file() and path.name != ".lock" and "tfevents" not in path.name
    }


# --- one run at a time ---


class Wait:
    """Create a marker file, and then wait."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __call__(self) -> None:
        self.marker.touch()
        time.sleep(100)


def test_two_runs_do_not_share_it(base, tmp_path):
    """A second run or evaluation is refused until the first one has ended, even if its workers
    continue."""
    out = killed(base, tmp_path / "out")
    waits = InStep(1, Wait(tmp_path / "waits"))
    first = Run(base, out, "--resume", "INPUT.NUM_WORKERS", "1", sabotage=waits)
    while not (tmp_path / "waits").exists():
        assert first.process.is_alive()
        time.sleep(0.1)
    before = content(out)
    for arguments in (
        ("--resume",),
        (),
        ("--eval", "--ckpt", out / "best.pth"),
        ("--eval", "EVAL_USE_CACHE", "True"),
    ):
        other = Run(base, out, *arguments, name="other")
        refused(other, f"{first.process.pid}")
        assert content(out) == before
    worker = children(first.process.pid)[0]
    os.kill(worker, signal.SIGSTOP)  # it does not end with the run
    os.kill(first.process.pid, signal.SIGKILL)
    first.wait()
    run = Run(base, out, "--resume")
    assert run.wait() == 0, run.text
    assert differences(out, base / "whole") == []
    os.kill(worker, signal.SIGKILL)


# --- files in the folder ---


def test_only_incomplete_files_of_a_run_are_removed(base, tmp_path):
    out = killed(base, tmp_path / "out")
    users = ["my.participants.csv", "notes.part2.txt", "x.part", "epoch_00.pth.part.bak", "a.part0"]
    own = ["epoch_00.pth.part", "best.pth.2.part", "evaluations.jsonl.part", "eval_cache.part3"]
    own += ["eval_cache.pth.part", "config.yaml.part", "results.json.part", "thresholds.png.part"]
    for name in users + own:
        (out / name).write_text(name)
    run = Run(base, out, "--resume")
    assert run.wait() == 0, run.text
    assert all((out / name).read_text() == name for name in users)
    assert not any((out / name).exists() for name in own)


def test_a_resumed_run_does_not_read_initial_weights(base, tmp_path):
    """The file with the backbone's initial weights may be missing then."""
    out = killed(base, tmp_path / "out")
    run = Run(base, out, "--resume", "BACKBONE.WEIGHTS", "/no/such.pth")
    assert run.wait() == 0, run.text
    assert "BACKBONE.WEIGHTS was '', is '/no/such.pth'" in run.text
    assert evaluations(out) == evaluations(base / "whole")
    refused(Run(base, tmp_path / "new", "--resume", "BACKBONE.WEIGHTS", "/no/such.pth"), "such.pth")


class Refuse:
    """Simulate a system error when the newest checkpoint is opened."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self) -> None:
        opened = builtins.open

        def refused(path, *args, **options):
            if str(path).endswith("000002.pth") and args[:1] == ("rb",):
                raise OSError(self.number, os.strerror(self.number), str(path))
            return opened(path, *args, **options)

        builtins.open = refused


ERRORS = errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM


@pytest.mark.parametrize("number", ERRORS)
def test_a_checkpoint_that_cannot_be_read_is_not_treated_as_damaged(base, tmp_path, number):
    out = killed(base, tmp_path / "out")
    before = content(out)
    run = Run(base, out, "--resume", sabotage=Refuse(number))
    refused(run, "epoch_01_step_000002.pth: ")
    assert content(out) == before


def test_a_folder_in_place_of_a_checkpoint_is_an_error(base, tmp_path):
    out = killed(base, tmp_path / "out")
    (out / "epoch_01_step_000002.pth").unlink()
    (out / "epoch_01_step_000002.pth").mkdir()
    refused(Run(base, out, "--resume"), "epoch_01_step_000002.pth")


def test_a_run_without_an_undamaged_checkpoint_is_not_started_again(base, tmp_path):
    """Either all checkpoints are damaged, or only best.pth and the evaluations are left."""
    out = killed(base, tmp_path / "out")
    for path in out.glob("epoch_*.pth"):
        path.write_bytes(path.read_bytes()[:3000])
    before = content(out)
    for _ in range(2):
        refused(Run(base, out, "--resume"), f"OUTPUT_DIR {out}: ", "--ckpt FILE")
        assert content(out) == before
    for path in out.glob("epoch_*.pth"):
        path.unlink()
    refused(Run(base, out, "--resume"), "best.pth, evaluations.jsonl", "--ckpt FILE")
    refused(Run(base, out), "best.pth, evaluations.jsonl", "--resume")


def test_a_second_damaged_checkpoint_gets_another_name(base, tmp_path):
    out = killed(base, tmp_path / "out")
    newest = out / "epoch_01_step_000002.pth"
    newest.write_bytes(b"damaged")
    newest.with_name(newest.name + ".damaged").mkdir()
    run = Run(base, out, "--resume")
    assert run.wait() == 0, run.text
    assert (out / (newest.name + ".damaged.2")).read_bytes() == b"damaged"
    assert differences(out, base / "whole") == []


# --- NaN and Inf ---


class Poison:
    """Set one value of the run's state to infinity after the n-th step."""

    def __init__(self, n: int, what: str):
        self.n, self.what = n, what

    def __call__(self) -> None:
        step, calls = TrainStep.step, iter(range(1, 1000))

        def replaced(train_step, *args):
            losses = step(train_step, *args)
            if next(calls) == self.n:
                state = train_step.net.state_dict()
                buffers = next(iter(train_step.optimizer.state.values()))
                state["momentum"] = buffers["momentum_buffer"]
                name = next(name for name in state if name.endswith(self.what))
                state[name].view(-1)[-1] = torch.inf
            return losses

        TrainStep.step = replaced


@pytest.mark.parametrize("what", [".weight", "running_var", "oim.lut", "momentum"])
def test_a_state_that_is_not_finite_is_not_saved(base, tmp_path, what):
    run = Run(base, tmp_path / "out", *PERIOD, sabotage=Poison(3, what))
    refused(run, what, "epoch 0, step 3", "epoch_00_step_000002.pth")
    run = Run(base, tmp_path / "out", "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path / "out", base / "whole") == []


def gpu_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")


def test_a_batch_that_is_too_large(base, tmp_path):
    """The message names options that reduce memory, and earlier checkpoints remain."""
    run = Run(base, tmp_path, *PERIOD, sabotage=InStep(3, gpu_is_full))
    refused(run, "INPUT.BATCH_SIZE_TRAIN 3", "epoch 1, step 3", "SOLVER.ACCUMULATE")
    run = Run(base, tmp_path, "--resume", *PERIOD)
    assert run.wait() == 0 and "epoch_00_step_000002.pth" in run.text, run.text
    assert differences(tmp_path, base / "whole") == []


def test_a_rate_that_is_too_high(base, tmp_path):
    options = (
        "SOLVER.BASE_LR",
        "1e20",
        "SOLVER.CLIP_GRADIENTS",
        "0.0",
        "SOLVER.WARMUP_FACTOR",
        "1.0",
    )
    refused(Run(base, tmp_path / "out", *PERIOD, *options), "not finite")
    run = Run(base, tmp_path / "out", "--resume", "SOLVER.MAX_EPOCHS", "1")
    assert run.wait() in (0, 2) and "Traceback" not in run.text


def test_a_checkpoint_that_is_not_finite_is_damaged(base, tmp_path):
    out = killed(base, tmp_path / "out")
    newest = out / "epoch_01_step_000002.pth"
    saved = torch.load(newest, weights_only=True)
    saved["model"]["roi_heads.oim.lut"][0, 0] = torch.nan
    save_file(saved, newest)
    run = Run(base, out, "--resume")
    assert run.wait() == 0, run.text
    assert "roi_heads.oim.lut" in run.text and f"{newest.name}.damaged" in run.text
    assert differences(out, base / "whole") == []
    refused(Run(base, out, "--eval", "--ckpt", f"{newest}.damaged"), "roi_heads.oim.lut")


# --- resuming ---


@pytest.mark.parametrize(
    "change", [("INPUT.BATCH_SIZE_TRAIN", "4"), ("SEED", "2"), ("INPUT.BATCH_SIZE_TRAIN", "12")]
)
def test_another_order_within_an_epoch(base, tmp_path, change):
    out = killed(base, tmp_path / "out")
    before = content(out)
    key, value = change
    refused(
        Run(base, out, "--resume", *change),
        "epoch_01_step_000002.pth: ",
        f"{key} was",
        f"is {value}",
    )
    assert content(out) == before


class Fewer:
    """Remove images from the training data, except the first `left` ones."""

    def __init__(self, left: int):
        self.left = left

    def __call__(self) -> None:
        load = engine.run.load_dataset

        def smaller(*args):
            dataset = load(*args)
            del dataset.train[self.left :]
            return dataset

        engine.run.load_dataset = smaller


def test_a_dataset_that_lost_images(base, tmp_path):
    out = killed(base, tmp_path / "out")
    refused(
        Run(base, out, "--resume", sabotage=Fewer(6)),
        "epoch_01_step_000002.pth: ",
        "images were 12, are 6",
    )
    (out / "epoch_01_step_000002.pth").unlink()
    (out / "epoch_01_step_000001.pth").unlink()
    shutil.copy(base / "whole" / "epoch_00.pth", out)
    run = Run(base, out, "--resume", sabotage=Fewer(6))
    assert run.wait() == 0, run.text
    assert "images were 12, are 6" in run.text
    steps = [step for step, _ in scalars(out)["loss/total"]]
    assert steps == [0, 1, 2, 3, 4, 5]
    assert [step for step, _ in scalars(out)["eval/search/mAP"]] == [4, 6]


def test_evaluations_of_a_damaged_epoch_are_repeated(base, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(base / "whole", out)
    (out / "epoch_01.pth").write_bytes(b"damaged")
    first, second = evaluations(out)
    lines = [json.dumps(one) for one in (first, second | {"search/mAP": 2.0})]
    (out / EVALUATIONS).write_text("\n".join(lines) + "\n")
    run = Run(base, out, "--resume")
    assert run.wait() == 0, run.text
    assert evaluations(out) == [first, second]
    assert differences(out, base / "whole") == []


# --- full disks ---


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def test_an_evaluation_leaves_no_incomplete_file(base, tmp_path):
    evaluation = "--eval", "--ckpt", base / "whole" / "best.pth"
    refused(Run(base, tmp_path, *evaluation, sabotage=small_files), str(tmp_path), "too large")
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


def test_a_disk_that_became_read_only(tmp_path, monkeypatch):
    """The incomplete file cannot be removed either."""

    def read_only(*_, **__) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(UserError, match="a.pth: .*Read-only file system"):
        save_file({}, tmp_path / "a.pth")


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="a.pth: .*disk is full"):
        save_file({}, tmp_path / "a.pth")
    assert not list(tmp_path.iterdir())
