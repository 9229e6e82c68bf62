"""A run that is killed and resumed equals an uninterrupted run, bit by bit."""

import resource
import signal
from pathlib import Path

import pytest
import torch

import engine.training.folder
from engine.training.train_step import TrainStep
from tests.interruptions import At
from tests.training import Run, die, differences, evaluations, make_data, same, state

pytestmark = pytest.mark.slow

PERIOD = ("SOLVER.CKPT_PERIOD_STEPS", "3")  # within the epochs of four steps


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config, and uninterrupted runs."""
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


class InWrite:
    """Kill the process when half of the n-th checkpoint is written."""

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


# An epoch calls torch.save and os.replace three times (checkpoint, evaluation cache, best.pth), and
# os.replace once more for evaluations.jsonl.
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
    "evaluation, at its start": At("epochs", "evaluate", 1, "before"),
    "evaluation, cache half written": InWrite(2),
    "evaluation, scored": At("eval", "score", 1, "after"),
    "evaluation, written": At("epochs", "evaluate", 2, "after"),
    "before best.pth": At("checkpoints", "mark_best", 1, "before"),
    "best.pth half written": At("os", "replace", 3, "before"),
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
    """The run is killed twice and resumed with another number of workers; one of the terms has
    parameters."""
    options = *under_teacher(base), *PERIOD, "INPUT.NUM_WORKERS"
    for workers, n, arguments in (("1", 4, ()), ("2", 5, ("--resume",))):
        sabotage = At("train_step", "step", n, "before")
        run = Run(base, tmp_path, *options, workers, *arguments, program="ddps", sabotage=sabotage)
        assert run.wait() == -signal.SIGKILL, run.text
    assert "epoch_00_step_000003.pth" in run.text
    run = Run(base, tmp_path, "--resume", *options, "0", program="ddps")
    assert run.wait() == 0, run.text
    assert "epoch_01_step_000003.pth" in run.text
    assert differences(tmp_path, base / "ddps") == []


@pytest.mark.parametrize(
    "number, place, said",
    [
        (signal.SIGTERM, ("train_step", "step", 2), "{}/epoch_00_step_000002.pth"),
        (signal.SIGINT, ("train_step", "step", 4), "{}/epoch_00.pth"),
        (signal.SIGTERM, ("eval", "score", 1), ""),
    ],
)
def test_signals_save_and_end_the_run(base, tmp_path, number, place, said):
    run = Run(base, tmp_path, sabotage=At(*place, "before", number))
    assert run.wait() == 128 + number, run.text
    (line,) = [line for line in run.text.splitlines() if f"{signal.Signals(number).name}:" in line]
    assert said.format(tmp_path) in line and "--resume" in line
    assert "Traceback" not in run.text
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def flip_a_weight(path: Path) -> None:
    """Change a bit of the largest weight, which torch.load does not notice."""
    content, weights = bytearray(path.read_bytes()), torch.load(path, weights_only=True)["model"]
    largest = max(weights.values(), key=torch.numel)
    content[content.index(largest.numpy().tobytes())] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


@pytest.mark.parametrize("damage", [truncate, flip_a_weight])
def test_a_damaged_newest_checkpoint_is_reported_and_skipped(base, tmp_path, damage):
    run = Run(base, tmp_path, sabotage=KILLS["evaluation, written"])
    assert run.wait() == -signal.SIGKILL, run.text
    damage(tmp_path / "epoch_01.pth")
    with open(tmp_path / "evaluations.jsonl", "a") as file:
        file.write('{"epoch": 2, "sea')  # an incomplete last line
    run = Run(base, tmp_path, "--resume", "SOLVER.CKPT_KEEP", "1")
    assert run.wait() == 0, run.text
    assert f"{tmp_path}/epoch_01.pth: " in run.text and "epoch_00.pth" in run.text
    assert differences(tmp_path, base / "whole") == []
    assert {path.name for path in tmp_path.glob("*.pth*")} == {
        "epoch_01.pth",
        "epoch_01.pth.damaged",
        "best.pth",
        "eval_cache.pth",
    }


def limit_files() -> None:
    """Simulate a disk that becomes full after half of the second checkpoint."""
    save, calls = engine.training.folder.CheckpointFolder.save, iter(range(1, 1000))

    def replaced(self, content):
        if next(calls) == 2:
            size = (self.folder / "epoch_00.pth").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        return save(self, content)

    engine.training.folder.CheckpointFolder.save = replaced


def limit_events() -> None:
    """Simulate a disk that is full when TensorBoard writes in the second epoch."""
    step, calls = TrainStep.step, iter(range(1, 1000))

    def replaced(self, *args):
        if next(calls) == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        return step(self, *args)

    TrainStep.step = replaced


@pytest.mark.parametrize("full", [limit_files, limit_events])
def test_a_full_disk_is_one_error_line_and_damages_no_checkpoint(base, tmp_path, full):
    run = Run(base, tmp_path, sabotage=full)
    assert run.wait() == 2, run.text
    errors = [line for line in run.text.splitlines() if "rror" in line]
    assert len(errors) == 1 and errors[0].startswith("error: ") and str(tmp_path) in errors[0]
    assert "Traceback" not in run.text
    assert not list(tmp_path.glob("*.part"))
    run = Run(base, tmp_path, "--resume")
    assert run.wait() == 0, run.text
    assert differences(tmp_path, base / "whole") == []


def test_only_the_newest_and_the_best_are_kept(base):
    names = {path.name for path in (base / "whole").glob("*.pth")}
    assert names == {"epoch_00.pth", "epoch_01.pth", "best.pth", "eval_cache.pth"}
    scores = {one["epoch"]: one["search/mAP"] for one in evaluations(base / "whole")}
    best = max(scores, key=scores.get)
    assert state(base / "whole" / "best.pth")["epoch"] == best


def test_an_older_checkpoint_needs_another_folder(base, tmp_path):
    run = Run(base, "whole", "--resume", "--ckpt", base / "whole" / "epoch_00.pth")
    assert run.wait() == 2 and "epoch_01.pth" in run.text
    run = Run(base, tmp_path, "--resume", "--ckpt", base / "whole" / "epoch_00.pth")
    assert run.wait() == 0, run.text
    assert "last checkpoint" not in differences(tmp_path, base / "whole")


def test_stopped_terms_equal_terms_without_weight(base, tmp_path):
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
    again = tmp_path / "again", *under_teacher(base), *PERIOD, "DISTILLER.STOP_EPOCH", "1"
    killed = At("train_step", "step", 4, "before")
    run = Run(base, *again, "--resume", "--ckpt", first, program="ddps", sabotage=killed)
    assert run.wait() == -signal.SIGKILL, run.text
    run = Run(base, *again, "--resume", program="ddps")
    assert run.wait() == 0, run.text
    assert not differences(tmp_path / "stopped", tmp_path / "again")
    last = [state(tmp_path / name / "epoch_01.pth") for name in ("stopped", "later")]
    assert same(state(base / "ddps" / "epoch_01.pth"), last[1])
    assert not same(last[0]["model"], last[1]["model"])


def test_changed_configs_are_named(base, tmp_path):
    start = "--resume", "--ckpt", base / "whole" / "epoch_00.pth"
    model = "MODEL.ANCHOR_SIZES", "[8,16,24,32,64]", "MODEL.FC_SIZE", "16"
    run = Run(base, tmp_path, *start, *model)
    assert run.wait() == 2
    assert "MODEL.FC_SIZE" in run.text and "MODEL.ANCHOR_SIZES" in run.text
    others = "SOLVER.MAX_EPOCHS", "1", "SOLVER.GAMMA", "0.5", "EVAL_USE_GT", "False"
    run = Run(base, tmp_path, *start, *others)
    assert run.wait() == 0, run.text
    assert "SOLVER.GAMMA" in run.text
