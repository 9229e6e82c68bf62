"""The training loop, the same for a teacher and for a student under its distiller."""
import json
import random
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.base import SearchDataset
from datasets.loaders import SceneDataset, train_loader
from engine.checkpoint import CheckpointFolder, check_same_model, load_checkpoint, load_state
from engine.evaluate import draw_scene, evaluate, flat_metrics
from engine.schedule import learning_rate
from models.build import loss_weights
from models.outputs import Step
from models.search_net import SearchNet
from utils.errors import UserError


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator_states() -> dict:
    """Every random generator, as tensors and plain numbers (loadable with weights_only)."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_generators(states: dict) -> None:
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


@contextmanager
def noting_signals():
    """Yields a list that Ctrl-C and SIGTERM append to, so that the loop can save and leave."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float], where: str) -> Tensor:
    """Σ weight · loss; UserError naming the terms that are not finite, and all values."""
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    if not values.isfinite().all():
        bad = [n for n, ok in zip(losses, values.isfinite().tolist()) if not ok]
        all_values = ", ".join(f"{n} {v:.4g}" for n, v in zip(losses, values.tolist()))
        raise UserError(f"loss not finite: {', '.join(bad)} at {where} ({all_values})")
    return sum(weights[name] * loss for name, loss in losses.items())


class Trainer:
    """One run in one folder: `model` returns losses (the network itself, or a Distiller around
    it), `net` is the network that is trained, evaluated and saved."""

    def __init__(
        self, cfg: CfgNode, model: nn.Module, net: SearchNet, dataset: SearchDataset,
        device: torch.device,
    ):
        self.cfg, self.model, self.net, self.dataset, self.device = cfg, model, net, dataset, device
        self.scenes = SceneDataset(
            dataset.train, train=True, seed=cfg.SEED, skip_damaged=cfg.INPUT.SKIP_DAMAGED
        )
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        solver = cfg.SOLVER
        self.optimizer = torch.optim.SGD(
            self.parameters, solver.BASE_LR, solver.MOMENTUM, weight_decay=solver.WEIGHT_DECAY
        )
        self.weights = loss_weights(cfg)
        self.folder = Path(cfg.OUTPUT_DIR)
        self.checkpoints = CheckpointFolder(self.folder, solver.CKPT_KEEP)
        self.evaluations = self.folder / "evaluations.jsonl"
        self.steps_per_epoch = -(-len(self.scenes) // cfg.INPUT.BATCH_SIZE_TRAIN)
        self.epoch = self.step = 0  # finished epochs, and finished steps of the next one

    # --- state ---

    def state(self) -> dict:
        terms = getattr(self.model, "terms", None)
        return {
            "model": self.net.state_dict(),
            "terms": terms.state_dict() if terms is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "generators": generator_states(),
            "epoch": self.epoch, "step": self.step, "config": self.cfg.dump(),
        }

    def resume(self, path: str | None) -> None:
        """Go on from `path`, or from the newest whole checkpoint of OUTPUT_DIR, or from the start
        where there is none."""
        if path:
            found = Path(path), load_checkpoint(path)
        else:
            found = self.checkpoints.load_newest(tqdm.write)
        if found is None:
            print(f"no checkpoint in {self.folder}; starting from the beginning")
            return
        path, saved = found
        missing = {"terms", "optimizer", "generators", "epoch", "step"} - set(saved)
        if missing:
            raise UserError(f"{path}: cannot be resumed, without {', '.join(sorted(missing))}")
        check_same_model(saved, self.cfg, str(path))
        load_state(self.net, saved["model"], str(path))
        if saved["terms"] or hasattr(self.model, "terms"):
            terms = getattr(self.model, "terms", nn.ModuleDict())
            load_state(terms, saved["terms"], f"{path} (distillation terms)")
        self.optimizer.load_state_dict(saved["optimizer"])
        restore_generators(saved["generators"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        print(f"resumed from {path}: {self.epoch} epochs and {self.step} steps done")

    # --- one step ---

    def train_step(
        self, images: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> dict[str, float]:
        """Forward, backward, clip, update of weights and of the OIM table; the losses' values."""
        self.set_learning_rate()
        out: Step = self.model(images, targets)
        total = weighted_sum(
            out.losses, self.weights, f"epoch {self.epoch + 1}, step {self.step + 1}"
        )
        self.optimizer.zero_grad()
        total.backward()
        if self.cfg.SOLVER.CLIP_GRADIENTS > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.cfg.SOLVER.CLIP_GRADIENTS)
        self.optimizer.step()
        self.net.oim.update(out.embeddings, out.labels)
        return {name: loss.item() for name, loss in (out.losses | {"total": total}).items()}

    def set_learning_rate(self) -> None:
        solver = self.cfg.SOLVER
        rate = learning_rate(
            self.epoch * self.steps_per_epoch + self.step, self.steps_per_epoch, solver.BASE_LR,
            solver.WARMUP_FACTOR, solver.MILESTONES, solver.GAMMA,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    # --- the run ---

    def run(self, resume: bool, checkpoint: str | None) -> None:
        """Train to SOLVER.MAX_EPOCHS, evaluating and saving after epochs; leaves with 128 + signal
        after saving when Ctrl-C or SIGTERM comes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if resume:
            self.resume(checkpoint)
        elif self.checkpoints.newest_first():
            raise UserError(f"OUTPUT_DIR {self.folder}: holds checkpoints of an earlier run; "
                            "give --resume to continue it, or another OUTPUT_DIR")
        else:
            self.evaluations.unlink(missing_ok=True)
        (self.folder / "config.yaml").write_text(self.cfg.dump(), encoding="utf-8")
        done = self.epoch * self.steps_per_epoch + self.step
        with noting_signals() as signals, SummaryWriter(self.folder, purge_step=done) as writer:
            if self.epoch and not self.step:
                self.evaluate(writer)
            while self.epoch < self.cfg.SOLVER.MAX_EPOCHS:
                self.train_epoch(writer, signals)
                path = self.checkpoints.save(self.state())
                if signals:
                    name = signal.Signals(signals[0]).name
                    print(f"{name}: saved {path}; continue with --resume", file=sys.stderr)
                    sys.exit(128 + signals[0])
                self.evaluate(writer)

    def train_epoch(self, writer: SummaryWriter, signals: list[int]) -> None:
        """The rest of one epoch, or until a signal comes."""
        self.model.train()
        loader = train_loader(
            self.scenes, self.cfg.INPUT.BATCH_SIZE_TRAIN, self.cfg.INPUT.NUM_WORKERS,
            seed=self.cfg.SEED, epoch=self.epoch, start_step=self.step,
        )
        title = f"epoch {self.epoch + 1}/{self.cfg.SOLVER.MAX_EPOCHS}"
        with tqdm(total=self.steps_per_epoch, initial=self.step, desc=title, unit="step",
                  mininterval=1, dynamic_ncols=True) as bar:
            start = time.perf_counter()
            for images, targets in loader:
                losses = self.train_step(*self.to_device(images, targets))
                self.step += 1
                start, seconds = time.perf_counter(), time.perf_counter() - start
                self.log(writer, losses, seconds, len(images))
                bar.set_postfix(loss=f"{losses['total']:.3f}", refresh=False)
                bar.update()
                if signals:
                    break
                period = self.cfg.SOLVER.CKPT_PERIOD_STEPS
                if period and self.step % period == 0 and self.step < self.steps_per_epoch:
                    self.checkpoints.save(self.state())
        if self.scenes.damaged:
            print(f"damaged images skipped so far: {len(self.scenes.damaged)}, the last: "
                  f"{list(self.scenes.damaged.values())[-1]}")
        if self.step == self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0

    def to_device(self, images, targets) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        return (
            [image.to(self.device, non_blocking=True) for image in images],
            [{key: value.to(self.device) for key, value in t.items()} for t in targets],
        )

    def log(
        self, writer: SummaryWriter, losses: dict[str, float], seconds: float, images: int
    ) -> None:
        """TensorBoard scalars of one step: losses (unweighted), total, rate, speed."""
        done = self.epoch * self.steps_per_epoch + self.step
        for name, loss in losses.items():
            writer.add_scalar(f"loss/{name}", loss, done)
        writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], done)
        writer.add_scalar("train/seconds_per_step", seconds, done)
        writer.add_scalar("train/images_per_second", images / seconds, done)

    # --- evaluation ---

    def recorded(self) -> list[dict]:
        """Evaluations of this run so far, each {"epoch", "recall", "ap", "mAP", ...}."""
        if not self.evaluations.is_file():
            return []
        lines = self.evaluations.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def evaluate(self, writer: SummaryWriter) -> None:
        """Evaluate the finished epoch if it is due and has not been; keep the best by mAP."""
        solver, past = self.cfg.SOLVER, self.recorded()
        due = self.epoch % solver.EVAL_PERIOD == 0 or self.epoch == solver.MAX_EPOCHS
        if not due or any(past_one["epoch"] == self.epoch for past_one in past):
            return
        metrics = flat_metrics(evaluate(self.net, self.dataset, self.cfg, self.device))
        for name, value in metrics.items():
            writer.add_scalar(f"eval/{name}", value, self.epoch)
        writer.add_image("detections", draw_scene(self.net, self.dataset, self.device), self.epoch,
                         dataformats="HWC")
        if all(metrics["search/mAP"] > past_one["search/mAP"] for past_one in past):
            self.checkpoints.mark_best(self.checkpoints.newest_first()[0])
        with open(self.evaluations, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": self.epoch} | metrics) + "\n")
