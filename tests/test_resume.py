"""A run that is killed and resumed is, to the bit, the run that was never stopped."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

import engine.evaluation.evaluate
import engine.training.folder
import engine.training.train
from engine.training.train_step import TrainStep
from tests.training import Run, die, differences, evaluations, make_data, same, state

pytestmark = pytest.mark.slow

PERIOD = ("SOLVER.CKPT_PERIOD_STEPS", "3")  # within the epochs of four steps


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with data, a config, and runs that were never stopped."""
    folder = tmp_path_factory.mktemp("resume")
    make_data(folder)
    run = Run(folder, "whole")
    assert run.wait() == 0, run.text
    run = Run(folder, "ddps", *under_teacher(folder), program="ddps")
    assert run.wait() == 0, run.text
    return folder


def under_teacher(folder: Path) -> tuple[str, ...]:
    return (
        "DISTILLER.TEACHER_CKPT",
        str(folder / "whole" / "best.pth"),
        "DISTILLER.TERMS",
        "['dfd','ld','cd','reviewkd']",
    )


# --- ways to end, each in the n-th call of something (they travel to the process by name) ---


class At:
    """Send a signal in the n-th call of `owner.name`, before or after its work."""

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


class InWrite:
    """Die when the n-th checkpoint is half written."""

    def __init__(self, n: int):
        self.n = n

    def __call__(self) -> None:
        save, calls = torch.save, iter(range(1, 1000))

        def half(content, file):
            if next(calls) == self.n:
                file.write(b"x" * 10_000)
                file.flush()
                die()
            save(content, file)

        torch.save = half


OWNERS = {
    "train_step": TrainStep,
    "trainer": engine.training.train.Trainer,
    "train": engine.training.train,
    "checkpoints": engine.training.folder.CheckpointFolder,
    "os": os,
    "eval": engine.evaluation.evaluate,
    "sgd": torch.optim.SGD,
}
# torch.save and os.replace also write the evaluation's cache: an epoch makes 3 calls of each
# (checkpoint, cache, best), evaluations.jsonl one more os.replace
KILLS = {
    "first step": At("train_step", "step", 1, "before"),
    "step, after the gradient": At("sgd", "step", 6, "after"),
    "step, before OIM": At("train_step", "_update", 7, "before"),
    "save, file half written": InWrite(1),
    "second save, file half written": InWrite(3),
    "save, before the rename": At("os", "replace", 1, "before"),
    "second save, before the rename": At("os", "replace", 5, "before"),
    "epoch's end, after the save": At("checkpoints", "save", 1, "after"),
    "run's end, after the save": At("checkpoints", "save", 2, "after"),
    "evaluation, at its start": At("train", "evaluate", 1, "before"),
    "evaluation, cache half written": InWrite(2),
    "evaluation, scored": At("eval", "score", 1, "after"),
    "evaluation, written": At("train", "evaluate", 2, "after"),
    "before best.pth": At("checkpoints", "mark_best", 1, "before"),
    "best.pth half made": At("os", "replace", 3, "before"),
    "after best.pth": At("checkpoints", "mark_best", 1, "after"),
    "before evaluations.jsonl": At("os", "replace", 4, "before"),
    "after evaluations.jsonl": At("os", "replace", 4, "after"),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_resumed(base, tmp_path, moment):
    run = Run(base, tmp_path, sabotage=KILLS[moment])
    assert run.wait() == -signal.SIGKILL, run.text
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []
    assert not list(tmp_path.glob("*.part*"))


def test_checkpoints_within_an_epoch_and_workers(base, tmp_path):
    """Killed twice, resumed with another number of workers; terms with weights of their own."""
    options = *under_teacher(base), *PERIOD, "INPUT.NUM_WORKERS"
    for workers, n, arguments in (("1", 4, ()), ("2", 5, ("--resume",))):
        sabotage = At("train_step", "step", n, "before")
        run = Run(base, tmp_path, *options, workers, *arguments, program="ddps", sabotage=sabotage)
        assert run.wait() == -signal.SIGKILL, run.text
    assert "epoch_00_step_000003.pth: 0 epochs and 3 steps done" in run.text
    run = Run(base, tmp_path, "--resume", *options, "0", program="ddps")
    assert run.wait() == 0, run.text
    assert "epoch_01_step_000003.pth: 1 epochs and 3 steps done" in run.text
    assert differences(tmp_path, base / "ddps") == []


@pytest.mark.parametrize(
    "number, place, said",
    [
        (signal.SIGTERM, ("train_step", "step", 2), "SIGTERM: saved {}/epoch_00_step_000002.pth"),
        (signal.SIGINT, ("train_step", "step", 4), "SIGINT: saved {}/epoch_00.pth"),
        (signal.SIGTERM, ("eval", "score", 1), "SIGTERM: stopped evaluating"),
    ],
)
def test_signals_save_and_leave(base, tmp_path, number, place, said):
    run = Run(base, tmp_path, sabotage=At(*place, "before", number))
    assert run.wait() == 128 + number, run.text
    assert said.format(tmp_path) + "; continue with --resume" in run.text
    assert "Traceback" not in run.text
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flip_a_weight(path: Path) -> None:
    """A bit in the middle of the weights, which torch itself would load."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


@pytest.mark.parametrize("damage", [truncate, flip_a_weight])
def test_damaged_newest_is_named_and_passed_over(base, tmp_path, damage):
    run = Run(base, tmp_path, sabotage=KILLS["evaluation, written"])
    assert run.wait() == -signal.SIGKILL, run.text
    damage(tmp_path / "epoch_01.pth")
    with open(tmp_path / "evaluations.jsonl", "a") as file:
        file.write('{"epoch": 2, "sea')  # a last line cut short
    run = Run(base, tmp_path, "--resume", "SOLVER.CKPT_KEEP", "1")
    assert run.wait() == 0, run.text
    assert f"{tmp_path}/epoch_01.pth: damaged" in run.text
    assert "resumed from" in run.text and "epoch_00.pth" in run.text
    assert differences(tmp_path, base / "whole") == []
    assert {path.name for path in tmp_path.glob("*.pth*")} == {
        "epoch_01.pth",
        "epoch_01.pth.damaged",
        "best.pth",
        "eval_cache.pth",
    }


def limit_files() -> None:
    """A disk that takes half of a checkpoint, once the first one lies there."""
    save, calls = engine.training.folder.CheckpointFolder.save, iter(range(1, 1000))

    def replaced(self, content):
        if next(calls) == 2:
            size = (self.folder / "epoch_00.pth").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        return save(self, content)

    engine.training.folder.CheckpointFolder.save = replaced


def limit_events() -> None:
    """A disk that is full when TensorBoard writes in the second epoch, after its picture."""
    step, calls = TrainStep.step, iter(range(1, 1000))

    def replaced(self, *args):
        if next(calls) == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        return step(self, *args)

    TrainStep.step = replaced


@pytest.mark.parametrize("full", [limit_files, limit_events])
def test_full_disk_is_one_line_and_costs_no_checkpoint(base, tmp_path, full):
    run = Run(base, tmp_path, sabotage=full)
    assert run.wait() == 2, run.text
    errors = [line for line in run.text.splitlines() if "rror" in line]
    assert len(errors) == 1 and errors[0].startswith("error: ") and str(tmp_path) in errors[0]
    assert "Traceback" not in run.text
    assert not list(tmp_path.glob("*.part"))
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


def test_only_the_newest_and_the_best_stay(base):
    names = {path.name for path in (base / "whole").glob("*.pth")}
    assert names == {"epoch_00.pth", "epoch_01.pth", "best.pth", "eval_cache.pth"}
    scores = {one["epoch"]: one["search/mAP"] for one in evaluations(base / "whole")}
    best = max(scores, key=scores.get)
    assert state(base / "whole" / "best.pth")["epoch"] == best


def test_an_older_checkpoint_does_not_mix_with_newer_ones(base, tmp_path):
    run = Run(base, "whole", "--resume", "--ckpt", base / "whole" / "epoch_00.pth")
    assert run.wait() == 2 and "holds epoch_01.pth" in run.text
    run = Run(base, tmp_path, "--resume", "--ckpt", base / "whole" / "epoch_00.pth")
    assert run.wait() == 0, run.text
    assert not [d for d in differences(tmp_path, base / "whole") if d == "last checkpoint"]


def test_distillation_stops_after_its_last_epoch(base, tmp_path):
    """The second epoch is the one of terms without weight; the first was as it is."""
    first = base / "ddps" / "epoch_00.pth"
    zero = [f"DISTILLER.{t}.WEIGHT=0" for t in ("DFD", "LD", "CD", "REVIEWKD")]
    for name, values in (
        ("stopped", ["DISTILLER.STOP_EPOCH=1"]),
        ("zero", zero),
        ("later", ["DISTILLER.STOP_EPOCH=2"]),
    ):
        words = [word for value in values for word in value.split("=")]
        resumed = ("--resume", "--ckpt", first, *under_teacher(base), *words)
        run = Run(base, tmp_path / name, *resumed, program="ddps")
        assert run.wait() == 0, run.text
    assert not differences(tmp_path / "stopped", tmp_path / "zero")
    last = [state(tmp_path / name / "epoch_01.pth") for name in ("stopped", "later")]
    assert same(state(base / "ddps" / "epoch_01.pth"), last[1])
    assert not same(last[0]["model"], last[1]["model"])


def test_changed_configs_are_named(base, tmp_path):
    first = base / "whole" / "epoch_00.pth"
    run = Run(
        base,
        tmp_path,
        "--resume",
        "--ckpt",
        first,
        "MODEL.ANCHOR_SIZES",
        "[8,16,24,32,64]",
        "MODEL.FC_SIZE",
        "16",
    )
    assert run.wait() == 2
    assert "MODEL.FC_SIZE is 32 there and 16 in the config; MODEL.ANCHOR_SIZES is" in run.text
    run = Run(
        base,
        tmp_path,
        "--resume",
        "--ckpt",
        first,
        "SOLVER.MAX_EPOCHS",
        "1",
        "SOLVER.GAMMA",
        "0.5",
        "EVAL_USE_GT",
        "False",
    )
    assert run.wait() == 0, run.text
    assert "SOLVER.GAMMA was 0.1, is 0.5" in run.text
