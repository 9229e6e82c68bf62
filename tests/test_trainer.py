"""The state of a run in one process: best and newest checkpoints, resuming, due evaluations."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from configs.defaults import load_cfg
from datasets.base import SearchDataset
from engine.training import epoch_evaluation
from engine.training.build import build_alone
from engine.training.folder import BEST
from engine.training.generators import generator_states, restore_generators
from engine.training.train import Trainer
from models.build import build_net
from tests.tiny import TINY, pairs

CPU = torch.device("cpu")
SETTINGS = TINY | {
    "INPUT.BATCH_SIZE_TRAIN": 1,
    "MODEL.ROI.BATCH_SIZE": 8,
    "MODEL.ANCHOR_SIZES": [8, 16, 24, 32, 48],
    "SOLVER.MAX_EPOCHS": 3,
    "SOLVER.EVAL_PERIOD": 2,
}


def make_trainer(dataset: SearchDataset, folder: Path) -> Trainer:
    torch.manual_seed(0)
    cfg = load_cfg(None, pairs(SETTINGS | {"OUTPUT_DIR": folder}))
    net = build_net(cfg, dataset.num_pids)
    return Trainer(cfg, net, net, dataset, CPU)


@pytest.fixture
def trainer(dataset: SearchDataset, tmp_path: Path) -> Trainer:
    return make_trainer(dataset, tmp_path)


def finish_epoch(trainer: Trainer, score: float) -> None:
    """Save the end of an epoch and record its evaluation."""
    trainer.epoch += 1
    trainer.save()
    evaluation = trainer.evaluation
    evaluation.record(
        trainer.epoch, trainer.checkpoint, evaluation.history.past(), {"search/mAP": score}
    )


def test_the_best_checkpoint_is_the_first_with_the_highest_score(trainer):
    best = []
    for score in (0.5, 0.5, 0.4, 0.6, 0.6):
        finish_epoch(trainer, score)
        best.append(torch.load(trainer.folder / BEST, weights_only=True)["epoch"])
    assert best == [1, 1, 1, 4, 4]


def test_the_newest_checkpoints_are_kept(trainer):
    for _ in range(4):
        finish_epoch(trainer, 0.5)
    names = sorted(path.name for path in trainer.folder.glob("*.pth"))
    assert names == [BEST, "epoch_02.pth", "epoch_03.pth"]


@pytest.mark.parametrize("epoch, due", [(1, False), (2, True), (3, True)])
def test_every_second_and_the_last_epoch_are_evaluated(trainer, monkeypatch, epoch, due):
    evaluated = []
    monkeypatch.setattr(epoch_evaluation, "evaluate", lambda *_: evaluated.append(trainer.epoch))
    monkeypatch.setattr(epoch_evaluation, "flat_metrics", lambda _: {"search/mAP": 0.5})
    monkeypatch.setattr(epoch_evaluation, "draw_scene", lambda *_: np.zeros((4, 4, 3), np.uint8))
    trainer.epoch, trainer.checkpoint = epoch, trainer.folder / "epoch_00.pth"
    torch.save({}, trainer.checkpoint)
    points = {}
    trainer.evaluate(SimpleNamespace(add=lambda v, _: points.update(v), picture=lambda *_: None))
    assert evaluated == ([epoch] if due else [])
    assert points == ({"eval/search/mAP": 0.5} if due else {})


def train_epoch(trainer: Trainer) -> list[dict[str, float]]:
    """Return the losses of the steps."""
    trainer.step = 0
    losses = [trainer.run_step(images, targets) for images, targets in trainer.start_epoch()]
    trainer.epoch += 1
    return losses


def test_a_resumed_run_continues_as_an_uninterrupted_one(dataset, tmp_path):
    """Weights, optimizer, generators and position are restored."""
    whole = make_trainer(dataset, tmp_path / "whole")
    train_epoch(whole)
    (tmp_path / "whole").mkdir()
    whole.done = 1
    whole.save()
    expected = train_epoch(whole)
    resumed = make_trainer(dataset, tmp_path / "whole")
    resumed.resume(None)
    assert (resumed.epoch, resumed.step, resumed.done) == (1, 0, 1)
    assert train_epoch(resumed) == expected
    for ours, theirs in zip(resumed.net.state_dict().values(), whole.net.state_dict().values()):
        assert torch.equal(ours, theirs)


def test_the_generator_of_the_gpu_of_the_run_is_restored(monkeypatch):
    """Not that of the current GPU, which is another one with DEVICE cuda:1."""
    states = {0: "current", 1: "own"}

    def number(device: str | torch.device) -> int:
        return torch.device(device).index or 0

    def change(state: str, device: str | torch.device = "cuda") -> None:
        states[number(device)] = state

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device="cuda": states[number(device)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", change)
    saved = generator_states(torch.device("cuda", 1))
    change("another", "cuda:1")
    restore_generators(saved, torch.device("cuda", 1), "a test")
    assert states == {0: "current", 1: "own"}
    assert generator_states(CPU)["cuda"] is None
    restore_generators(saved, CPU, "a test")


@pytest.mark.parametrize("teacher, lines", [("", 0), ("teacher.pth", 1)])
def test_a_teacher_that_is_not_used_is_reported(dataset, capsys, teacher, lines):
    cfg = load_cfg(None, pairs(TINY | {"DISTILLER.TEACHER_CKPT": teacher}))
    build_alone(cfg, dataset, CPU)
    assert capsys.readouterr().err.count("DISTILLER.TEACHER_CKPT") == lines
