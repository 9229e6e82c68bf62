"""The training loop, the same for a teacher and for a student under its distiller."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.augment import check_augmentations
from datasets.base import SearchDataset, digest
from datasets.loaders import Batch, Loader, SceneDataset, epoch_length, train_loader
from engine.checkpoint import load_checkpoint
from engine.distributed import from_all, from_first, rank, ranks, same_buffers
from engine.evaluation.evaluate import draw_scene, evaluate
from engine.evaluation.records import flat_metrics
from engine.training.batching import Batching
from engine.training.curves import Curves, curves_in
from engine.training.folder import CONFIG, CheckpointFolder
from engine.training.generators import generator_states, restore_generators
from engine.training.history import History
from engine.training.resume import check_place
from engine.training.schedule import learning_rate, scaled_lr
from engine.training.train_step import TrainStep, loss_weights
from engine.weights import SUFFIX
from models.search_net import SearchNet
from utils.errors import UserError, first_of, no_memory
from utils.files import write_text
from utils.signals import Signals, Stopped
from utils.states import load_optimizer, load_scaler, load_state, not_finite


class Trainer:
    """One run in one folder: `model` returns losses (the network itself, or a Distiller around
    it), `net` is the network that is trained, evaluated and saved."""

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
        )
        check_augmentations(cfg.INPUT.AUGMENT)
        self.batching = Batching.of(cfg)
        self.train_step = TrainStep(cfg, model, net, device)
        self.base_lr = scaled_lr(
            cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_BATCH, cfg.INPUT.BATCH_SIZE_TRAIN
        )
        self.folder = Path(cfg.OUTPUT_DIR)
        self.checkpoints = CheckpointFolder(self.folder, cfg.SOLVER.CKPT_KEEP)
        self.history = History(self.folder)
        self.data = {
            "images": len(dataset.train),
            "identities": dataset.num_pids,
            "annotations": digest(dataset.train),
        }
        self.epoch_scenes = epoch_length(self.scenes.shares)
        self.steps_per_epoch = self.batching.steps(self.epoch_scenes)
        self.epoch = self.step = 0  # finished epochs, and finished steps of the next one
        self.done = 0  # finished steps of the whole run, whose epochs may have had other lengths
        self.checkpoint: Path | None = None  # the newest
        self.saved = 0  # finished steps that it holds
        self.signals = signals or Signals()

    # --- state ---

    def save(self) -> None:
        """Rank 0 writes; every rank must come here, since each has random generators."""
        terms = getattr(self.model, "terms", None)
        state = {
            "model": self.net.state_dict(),
            "terms": terms.state_dict() if terms is not None else {},
            "optimizer": self.train_step.optimizer.state_dict(),
            "scaler": self.train_step.scaler.state_dict(),
            "generators": from_all(generator_states()),
            "epoch": self.epoch,
            "step": self.step,
            "done": self.done,
            "data": self.data,
            "config": self.cfg.dump(),
        }
        self.checkpoint = from_first(lambda: self.write(state))
        self.saved = self.done

    def write(self, state: dict) -> Path:
        """What is not finite is not saved: no run could go on from there."""
        if name := not_finite(state):
            raise UserError(
                f"{name} is not finite after epoch {self.epoch}, step {self.step}, and not saved; "
                f"{self.checkpoint or 'nothing'} was saved before, with {self.saved} steps; "
                "SOLVER.BASE_LR and SOLVER.CLIP_GRADIENTS make steps smaller"
            )
        return self.checkpoints.save(state)

    def resume(self, path: str | None) -> None:
        """Go on from `path`, or from the newest whole checkpoint of OUTPUT_DIR, or from the start
        where nothing is there yet."""
        found = from_first(lambda: self.find(path))
        if found is None:
            print(f"no checkpoint in {self.folder}; starting from the beginning")
            return
        path, saved = found
        for change in check_place(saved, self.cfg, self.data, self.steps_per_epoch, str(path)):
            print(change)
        load_state(self.net, saved["model"], str(path))
        terms = getattr(self.model, "terms", nn.ModuleDict())
        load_state(terms, saved["terms"], f"{path} (distillation terms)")
        load_optimizer(self.train_step.optimizer, saved["optimizer"], str(path))
        load_scaler(self.train_step.scaler, saved["scaler"], str(path))
        if rank() < len(saved["generators"]):
            restore_generators(saved["generators"][rank()], str(path))
        self.epoch, self.step, self.checkpoint = saved["epoch"], saved["step"], path
        self.done = saved.get("done", self.epoch * self.steps_per_epoch + self.step)
        self.saved = self.done
        from_first(lambda: self.history.forget_after(self.epoch))
        print(f"resumed from {path}: {self.epoch} epochs and {self.step} steps done")

    def find(self, path: str | None) -> tuple[Path, dict] | None:
        """The checkpoint to go on from."""
        if not path:
            return self.checkpoints.load_newest(tqdm.write)
        newest = self.checkpoints.newest_first()[:1]
        if newest and newest[0].resolve() != Path(path).resolve():
            raise UserError(
                f"--ckpt {path}: OUTPUT_DIR {self.folder} holds {newest[0].name}, which "
                "it would lead to or past; move that away, or give another OUTPUT_DIR"
            )
        if Path(path).suffix == SUFFIX:
            raise UserError(
                f"--ckpt {path}: weights to hand on, from which no run can go on; expected a "
                "checkpoint of the run"
            )
        return Path(path), load_checkpoint(path)

    # --- the run ---

    def run(self, resume: bool, checkpoint: str | None) -> None:
        """Train to SOLVER.MAX_EPOCHS, evaluating and saving after epochs; Stopped after saving
        when Ctrl-C or SIGTERM comes."""
        from_first(lambda: self.prepare(resume, checkpoint))
        if resume:
            self.resume(checkpoint)
        from_first(lambda: write_text(self.cfg.dump(), self.folder / CONFIG))
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

    def prepare(self, resume: bool, checkpoint: str | None) -> None:
        """What an earlier run has left is not overwritten."""
        left = self.checkpoints.files_of_earlier_run()
        if left and not resume:
            raise UserError(
                f"OUTPUT_DIR {self.folder}: holds {first_of(left)} of an earlier run; "
                "give --resume to continue it, or another OUTPUT_DIR"
            )
        if left and not checkpoint and not self.checkpoints.newest_first():
            raise UserError(
                f"OUTPUT_DIR {self.folder}: holds {first_of(left)}, but no checkpoint to continue "
                "from; give --ckpt FILE, or another OUTPUT_DIR"
            )

    def kept(self) -> str:
        if self.checkpoint is None:
            return "stopped before the first step"
        return f"saved {self.checkpoint}"

    def stop(self) -> int:
        """The signal that any rank has received, 0 for none: the same answer on all of them."""
        number = max(from_all(self.signals.number)) if ranks() > 1 else self.signals.number
        self.signals.answered = bool(number)
        return number

    def start_epoch(self) -> Loader:
        """Make model and loss weights ready for the rest of this epoch, whose batches it gives."""
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
        """The rest of one epoch, or until a signal comes."""
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
                self.log(curves, losses, time.perf_counter() - start)
                self.step, self.done = self.step + 1, self.done + 1
                bar.set_postfix(loss=f"{losses['total']:.3f}", refresh=False)
                bar.update()
                period = self.cfg.SOLVER.CKPT_PERIOD_STEPS
                if period and self.step % period == 0 and self.step < self.steps_per_epoch:
                    curves.flush()
                    self.save()
        self.report_data()
        if self.step == self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0

    def next_batch(self, batches: Iterator[Batch]) -> Batch | None:
        """None where a signal came before or meanwhile."""
        try:
            with self.signals.released():
                return next(batches)
        except Stopped:
            return None

    def report_data(self) -> None:
        """What the images read so far, on all ranks, had that training does not see."""
        damaged, outside = {}, {}
        for images, boxes in from_all((self.scenes.damaged, self.scenes.outside)):
            damaged |= images
            outside |= boxes
        if damaged:
            print(
                f"damaged images skipped so far: {len(damaged)}, the last: "
                f"{list(damaged.values())[-1]}"
            )
        if outside:
            print(
                f"boxes outside their image dropped so far: {sum(outside.values())}, in "
                f"{len(outside)} images, the last {list(outside)[-1]}"
            )

    def run_step(self, images: list, targets: list) -> dict[str, float]:
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

    def log(self, curves: Curves, losses: dict[str, float], seconds: float) -> None:
        """Add the points of the step just done to the curves: losses (unweighted), their total, the
        learning rate and the speed. Their position is the number of steps done before this one."""
        values = {f"loss/{name}": loss for name, loss in losses.items()}
        values["train/learning_rate"] = self.train_step.optimizer.param_groups[0]["lr"]
        values["train/seconds_per_step"] = seconds
        values["train/images_per_second"] = (
            self.batching.count(self.step, self.epoch_scenes) / seconds
        )
        curves.add(values, self.done)

    # --- evaluation ---

    def evaluate(self, curves: Curves) -> None:
        """Evaluate the finished epoch if it is due and has not been; keep the best by mAP. Its
        checkpoint is there, so a signal ends the run at once. What has been recorded is drawn:
        curves tell no more and no less, whenever a run was killed."""
        solver = self.cfg.SOLVER
        past = from_first(self.history.past)
        known = next((one for one in past if one["epoch"] == self.epoch), None)
        due = self.epoch % solver.EVAL_PERIOD == 0 or self.epoch == solver.MAX_EPOCHS
        if known is None and not due:
            return
        try:
            with self.signals.released():
                if known is None:
                    same_buffers(self.net)
                    results = evaluate(self.net, self.dataset, self.cfg, self.device, self.epoch)
                if rank():
                    return
                picture = draw_scene(self.net, self.dataset, self.device)
        except Stopped as stopped:
            raise Stopped(stopped.number, "stopped evaluating; continue with --resume") from None
        known = known or self.record(past, flat_metrics(results))
        curves.add({f"eval/{name}": v for name, v in known.items() if name != "epoch"}, self.done)
        curves.picture("detections", picture, self.done)

    def record(self, past: list[dict], metrics: dict[str, float]) -> dict:
        """Add the finished epoch to the evaluations of this run; it may be the best."""
        if all(metrics["search/mAP"] > one["search/mAP"] for one in past):
            self.checkpoints.mark_best(self.checkpoint)
        new = {"epoch": self.epoch} | metrics
        self.history.add(new)
        return new
