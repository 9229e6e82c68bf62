"""The training loop, for networks with and without distillation."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.augment import check_augmentations
from datasets.base import SearchDataset
from datasets.loaders import Batch, Loader, SceneDataset, epoch_length, train_loader
from engine.device import precision_of
from engine.distributed import from_all, from_first, rank, ranks
from engine.training.batching import Batching
from engine.training.curves import Curves, curves_in
from engine.training.epoch_evaluation import EpochEvaluation
from engine.training.folder import CONFIG, CheckpointFolder
from engine.training.inputs import INITIAL, describe_data, describe_files, write_inputs
from engine.training.resume import check_place
from engine.training.schedule import learning_rate, scaled_lr
from engine.training.state import collect, restore
from engine.training.train_step import (
    TrainStep,
    check_decay,
    check_sync_bn,
    loss_weights,
    make_optimizer,
)
from models.build import build_terms
from models.search_net import SearchNet
from utils.errors import UserError, no_memory
from utils.files import write_text
from utils.signals import Signals, Stopped
from utils.states import not_finite


def check_values(cfg: CfgNode, device: torch.device) -> None:
    """Check the values of a training that depend on no teacher.

    Raises:
        UserError: if values do not fit each other, or are unknown names.
    """
    node = cfg.DISTILLER
    if node.INIT_STUDENT and cfg.MODEL.WEIGHTS:
        raise UserError(
            "MODEL.WEIGHTS: expected '' with DISTILLER.INIT_STUDENT True, found "
            f"{cfg.MODEL.WEIGHTS}"
        )
    Batching.of(cfg)
    check_augmentations(cfg.INPUT.AUGMENT)
    check_decay(cfg)
    check_sync_bn(cfg, device)
    with torch.random.fork_rng([]):  # the initial weights of the run do not depend on this
        build_terms(cfg, cfg)  # checks the options of the terms
        make_optimizer(cfg, [nn.Parameter(torch.zeros(1))])
    precision_of("SOLVER.AMP", cfg.SOLVER.AMP)
    precision_of("DISTILLER.TEACHER_AMP", node.TEACHER_AMP)


class Trainer:
    """A run in OUTPUT_DIR.

    Args:
        model: returns losses; the network itself, or a Distiller that contains it.
        net: the network that is trained, evaluated and saved.
        signals: those that end the run.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        net: SearchNet,
        dataset: SearchDataset,
        device: torch.device,
        signals: Signals | None = None,
    ):
        self.cfg, self.model, self.net, self.dataset, self.device = cfg, model, net, dataset, device
        self.scenes = SceneDataset(
            dataset.train,
            train=True,
            seed=cfg.SEED,
            skip_damaged=cfg.INPUT.SKIP_DAMAGED,
            augmentations=cfg.INPUT.AUGMENT,
            shares=dataset.shares,
            max_pixels=cfg.INPUT.MAX_PIXELS,
            min_score=cfg.INPUT.MIN_SCORE,
        )
        self.batching = Batching.of(cfg)
        self.train_step = TrainStep(cfg, model, net, device)
        self.base_lr = scaled_lr(
            cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_BATCH, cfg.INPUT.BATCH_SIZE_TRAIN
        )
        self.folder = Path(cfg.OUTPUT_DIR)
        self.checkpoints = CheckpointFolder(self.folder, cfg.SOLVER.CKPT_KEEP)
        self.inputs = from_first(
            lambda: describe_data(dataset) | describe_files(cfg, model is not net)
        )
        self.epoch_scenes = epoch_length(self.scenes.shares)
        self.steps_per_epoch = self.batching.steps(self.epoch_scenes)
        self.epoch = self.step = 0  # finished epochs, and finished steps of the next one
        self.done = 0  # finished steps of the run; earlier epochs may have had another length
        self.checkpoint: Path | None = None  # the newest
        self.saved = 0  # finished steps in it
        self.signals = signals or Signals()
        self.terms = getattr(model, "terms", nn.ModuleDict())
        self.evaluation = EpochEvaluation(cfg, net, dataset, device, self.checkpoints, self.signals)

    # --- state ---

    def save(self) -> None:
        """Write a checkpoint on rank 0.

        Every rank must call this, since each has its own random generators.
        """
        state = collect(self.net, self.terms, self.train_step) | {
            "epoch": self.epoch,
            "step": self.step,
            "done": self.done,
            "data": self.inputs,
            "config": self.cfg.dump(),
        }
        self.checkpoint = from_first(lambda: self.write(state))
        self.saved = self.done

    def write(self, state: dict) -> Path:
        """Write the file of `save`.

        Raises:
            UserError: if a value is NaN or infinite; such a checkpoint is never written.
        """
        if name := not_finite(state):
            raise UserError(
                f"{name} is not finite after epoch {self.epoch}, step {self.step}; the last "
                f"checkpoint is {self.checkpoint or 'none'}, after {self.saved} steps; expected a "
                "smaller SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS"
            )
        return self.checkpoints.save(state)

    def resume(self, path: str | None) -> None:
        """Restore the state of the run from `path`, or from the newest undamaged checkpoint in
        OUTPUT_DIR.

        Without a checkpoint the run starts from the beginning.
        """
        found = from_first(lambda: self.checkpoints.find(path, tqdm.write))
        if found is None:
            print(f"no checkpoint in {self.folder}; starting from the beginning")
            return
        self.continue_from(*found)
        from_first(lambda: self.evaluation.history.forget_after(self.epoch))

    def continue_from(self, path: Path, saved: dict) -> None:
        """Restore the state of the run from the content of the checkpoint `path`."""
        for change in check_place(saved, self.cfg, self.inputs, self.steps_per_epoch, str(path)):
            print(change)
        self.inputs |= {key: saved["data"][key] for key in INITIAL if key in saved.get("data", {})}
        restore(saved, self.net, self.terms, self.train_step, str(path))
        self.epoch, self.step, self.checkpoint = saved["epoch"], saved["step"], path
        self.done = saved.get("done", self.epoch * self.steps_per_epoch + self.step)
        self.saved = self.done
        print(f"resumed from {path}: {self.epoch} epochs and {self.step} steps done")

    # --- the run ---

    def run(self, resume: bool, checkpoint: str | None) -> None:
        """Train to SOLVER.MAX_EPOCHS; save and evaluate after epochs.

        Args:
            resume, checkpoint: --resume and --ckpt.

        Raises:
            Stopped: after a checkpoint was saved, if a signal has come.
        """
        if resume:
            self.resume(checkpoint)
        from_first(self.describe)
        sync = self.cfg.SOLVER.SYNC_BN
        for line in (self.batching.norm_note(sync), self.batching.norm_warning(sync)):
            if line:
                print(line)
        with curves_in(self.folder, self.done, rank() == 0) as curves, self.signals.defer():
            if self.epoch and not self.step:
                self.evaluate(curves)
            while self.epoch < self.cfg.SOLVER.MAX_EPOCHS:
                self.train_epoch(curves)
                if self.done > self.saved:
                    curves.flush()
                    self.save()
                if stop := self.stop():
                    raise Stopped(stop, f"{self.kept()}; continue with --resume")
                self.evaluate(curves)

    def describe(self) -> None:
        """Write the config and the inputs of the run into its folder."""
        write_text(self.cfg.dump(), self.folder / CONFIG)
        write_inputs(self.inputs, self.folder)

    def kept(self) -> str:
        """Return which checkpoint a stopped run leaves, for the message."""
        if self.checkpoint is None:
            return "stopped before the first step"
        return f"saved {self.checkpoint}"

    def stop(self) -> int:
        """Return the number of a signal that any rank has received, or 0. The result is the same on
        all ranks."""
        number = max(from_all(self.signals.number)) if ranks() > 1 else self.signals.number
        self.signals.answered = bool(number)
        return number

    def start_epoch(self) -> Loader:
        """Set the train mode and the loss weights of this epoch. Return the loader of its remaining
        batches."""
        self.model.train()
        self.train_step.weights = loss_weights(self.cfg, self.epoch)
        return train_loader(
            self.scenes,
            self.cfg.INPUT.BATCH_SIZE_TRAIN,
            self.cfg.INPUT.NUM_WORKERS,
            seed=self.cfg.SEED,
            epoch=self.epoch,
            start_step=self.step,
            own=self.batching.own,
            pin=self.device.type == "cuda",
        )

    def train_epoch(self, curves: Curves) -> None:
        """Train the rest of an epoch, or until a signal comes."""
        loader = self.start_epoch()
        title = f"epoch {self.epoch + 1}/{self.cfg.SOLVER.MAX_EPOCHS}"
        with (
            tqdm(
                total=self.steps_per_epoch,
                initial=self.step,
                desc=title,
                unit="step",
                mininterval=1,
                dynamic_ncols=True,
            ) as bar,
            closing(iter(loader)) as batches,
        ):
            while self.step < self.steps_per_epoch:
                start = time.perf_counter()
                batch = self.next_batch(batches)
                if self.stop() or batch is None:
                    break
                losses = self.run_step(*batch)
                curves.add(self.points(losses, time.perf_counter() - start), self.done)
                self.step, self.done = self.step + 1, self.done + 1
                bar.set_postfix(loss=f"{losses['total']:.3f}", refresh=False)
                bar.update()
                period = self.cfg.SOLVER.CKPT_PERIOD_STEPS
                if period and self.step % period == 0 and self.step < self.steps_per_epoch:
                    curves.flush()
                    self.save()
        report_left_out(self.scenes)
        if self.step == self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0

    def next_batch(self, batches: Iterator[Batch]) -> Batch | None:
        """Return the next batch, or None if a signal was received."""
        try:
            with self.signals.released():
                return next(batches)
        except Stopped:
            return None

    def run_step(self, images: list, targets: list) -> dict[str, float]:
        """Train on one batch, and return its losses.

        Args:
            images: those that this rank has read.

        Raises:
            UserError: if there is not enough memory.
        """
        solver = self.cfg.SOLVER
        rate = learning_rate(
            self.epoch * self.steps_per_epoch + self.step,
            self.steps_per_epoch,
            self.base_lr,
            solver.WARMUP_FACTOR,
            solver.MILESTONES,
            solver.GAMMA,
        )
        count = self.batching.count(self.step, self.epoch_scenes)
        parts = self.batching.parts(images, targets, count)
        where = f"epoch {self.epoch + 1}, step {self.step + 1}"
        try:
            return self.train_step.step(parts, rate, where)
        except (RuntimeError, MemoryError) as error:
            if not no_memory(error):
                raise
            raise UserError(
                f"INPUT.BATCH_SIZE_TRAIN {self.cfg.INPUT.BATCH_SIZE_TRAIN}: not enough memory at "
                f"{where} ({self.device}); a larger SOLVER.ACCUMULATE, SOLVER.AMP or "
                "BACKBONE.CHECKPOINT needs less (docs/training.md)"
            ) from None

    def points(self, losses: dict[str, float], seconds: float) -> dict[str, float]:
        """Return the points of the finished step in the curves.

        They are the unweighted losses, their total, the learning rate and the speed.
        """
        images = self.batching.count(self.step, self.epoch_scenes)
        return {f"loss/{name}": loss for name, loss in losses.items()} | {
            "train/learning_rate": self.train_step.optimizer.param_groups[0]["lr"],
            "train/seconds_per_step": seconds,
            "train/images_per_second": images / seconds,
        }

    def evaluate(self, curves: Curves) -> None:
        """Evaluate the finished epoch if an evaluation is due and was not done yet."""
        self.evaluation.run(self.epoch, self.checkpoint, curves, self.done)


def report_left_out(scenes: SceneDataset) -> None:
    """Print what was left out of the images that the ranks have read so far."""
    damaged, outside = {}, {}
    for images, boxes in from_all((scenes.damaged, scenes.outside)):
        damaged |= images
        outside |= boxes
    if damaged:
        last = list(damaged.values())[-1]
        print(f"damaged images skipped so far: {len(damaged)}, the last: {last}")
    if outside:
        print(
            f"boxes outside their image dropped so far: {sum(outside.values())}, in "
            f"{len(outside)} images, the last {list(outside)[-1]}"
        )
