"""The training loop, the same for a teacher and for a student under its distiller."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.base import SearchDataset
from datasets.loaders import SceneDataset, part_of, train_loader
from engine.checkpoint import (
    CheckpointFolder,
    compare_configs,
    load_checkpoint,
    load_optimizer,
    load_state,
)
from engine.distributed import from_all, from_first, rank, ranks, same_buffers
from engine.evaluation.evaluate import draw_scene, evaluate
from engine.evaluation.records import EVALUATIONS, flat_metrics
from engine.generators import generator_states, restore_generators
from engine.learner import Learner
from engine.schedule import learning_rate, scaled_lr
from engine.weights import SUFFIX
from models.search_net import SearchNet
from utils.errors import UserError
from utils.files import make_folder, write_text


@contextmanager
def on_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `act` with their number."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda number, _: act(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous):
            signal.signal(number, handler)


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
    ):
        self.cfg, self.model, self.net, self.dataset, self.device = cfg, model, net, dataset, device
        self.scenes = SceneDataset(
            dataset.train, train=True, seed=cfg.SEED, skip_damaged=cfg.INPUT.SKIP_DAMAGED
        )
        self.learner = Learner(cfg, model, net, device)
        self.base_lr = scaled_lr(
            cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_BATCH, cfg.INPUT.BATCH_SIZE_TRAIN
        )
        self.folder = Path(cfg.OUTPUT_DIR)
        self.checkpoints = CheckpointFolder(self.folder, cfg.SOLVER.CKPT_KEEP)
        self.evaluations = self.folder / EVALUATIONS
        self.steps_per_epoch = -(-len(self.scenes) // cfg.INPUT.BATCH_SIZE_TRAIN)
        self.epoch = self.step = 0  # finished epochs, and finished steps of the next one
        self.checkpoint: Path | None = None  # that holds the state of finished epochs and steps
        self.signals: list[int] = []

    @property
    def done(self) -> int:
        """Finished steps of the whole run."""
        return self.epoch * self.steps_per_epoch + self.step

    # --- state ---

    def save(self) -> None:
        """Rank 0 writes; every rank must come here, since each has random generators."""
        terms = getattr(self.model, "terms", None)
        state = {
            "model": self.net.state_dict(),
            "terms": terms.state_dict() if terms is not None else {},
            "optimizer": self.learner.optimizer.state_dict(),
            "scaler": self.learner.scaler.state_dict(),
            "generators": from_all(generator_states()),
            "epoch": self.epoch,
            "step": self.step,
            "config": self.cfg.dump(),
        }
        self.checkpoint = from_first(lambda: self.checkpoints.save(state))

    def resume(self, path: str | None) -> None:
        """Go on from `path`, or from the newest whole checkpoint of OUTPUT_DIR, or from the start
        where there is none."""
        found = from_first(lambda: self.find(path))
        if found is None:
            print(f"no checkpoint in {self.folder}; starting from the beginning")
            return
        path, saved = found
        kinds = {
            "terms": dict,
            "optimizer": dict,
            "scaler": dict,
            "generators": list,
            "epoch": int,
            "step": int,
        }
        missing = [key for key, kind in kinds.items() if not isinstance(saved.get(key), kind)]
        if missing:
            raise UserError(f"{path}: cannot be resumed, without {', '.join(missing)}")
        changes = compare_configs(saved, self.cfg, str(path))
        if changes:
            print(f"config changed since {path}: {'; '.join(changes)}")
        for change in changes:
            if saved["step"] and change.startswith(("INPUT.BATCH_SIZE_TRAIN", "SEED")):
                raise UserError(f"{path}: lies within an epoch, whose order is another: {change}")
            if change.startswith("SOLVER.OPTIMIZER"):
                raise UserError(f"{path}: its optimizer's state is of another kind: {change}")
        load_state(self.net, saved["model"], str(path))
        terms = getattr(self.model, "terms", nn.ModuleDict())
        load_state(terms, saved["terms"], f"{path} (distillation terms)")
        load_optimizer(self.learner.optimizer, saved["optimizer"], str(path))
        if saved["scaler"]:
            self.learner.scaler.load_state_dict(saved["scaler"])
        if len(saved["generators"]) != ranks():
            print(
                f"{path}: written by {len(saved['generators'])} ranks, going on with {ranks()}: "
                "other random regions will be drawn"
            )
        if rank() < len(saved["generators"]):
            restore_generators(saved["generators"][rank()])
        self.epoch, self.step, self.checkpoint = saved["epoch"], saved["step"], path
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
        """Train to SOLVER.MAX_EPOCHS, evaluating and saving after epochs; leaves with 128 + signal
        after saving when Ctrl-C or SIGTERM comes."""
        try:
            from_first(lambda: self.prepare(resume))
            if resume:
                self.resume(checkpoint)
            from_first(self.tidy)
            with on_signals(self.signals.append), self.writer() as writer:
                if self.epoch and not self.step:
                    self.evaluate(writer)
                while self.epoch < self.cfg.SOLVER.MAX_EPOCHS:
                    self.train_epoch(writer)
                    self.save()
                    if stop := self.stop():
                        self.leave(stop, f"saved {self.checkpoint}")
                    self.evaluate(writer)
        except OSError as error:  # of TensorBoard, mostly; checkpoints have errors of their own
            raise UserError(
                f"OUTPUT_DIR {self.folder}: cannot be written ({error.strerror or error})"
                "; checkpoints there are whole, continue with --resume"
            ) from None

    def prepare(self, resume: bool) -> None:
        make_folder(self.folder, "OUTPUT_DIR")
        if not resume and self.checkpoints.newest_first():
            raise UserError(
                f"OUTPUT_DIR {self.folder}: holds checkpoints of an earlier run; "
                "give --resume to continue it, or another OUTPUT_DIR"
            )
        for part in self.folder.glob("*.part*"):  # of a run that was killed while it wrote
            part.unlink()

    def tidy(self) -> None:
        if not self.done:
            self.evaluations.unlink(missing_ok=True)
        write_text(self.cfg.dump(), self.folder / "config.yaml")

    @contextmanager
    def writer(self) -> Iterator[SummaryWriter | None]:
        """TensorBoard's, on rank 0. What it cannot write is raised again with the next scalar, so
        its thread need not print a traceback."""
        if rank():
            yield None
            return
        before = threading.excepthook
        threading.excepthook = lambda args: issubclass(args.exc_type, OSError) or before(args)
        try:
            with SummaryWriter(self.folder, purge_step=self.done + 1) as writer:
                yield writer
        finally:
            threading.excepthook = before

    def stop(self) -> int:
        """The signal that any rank has received, 0 for none: the same answer on all of them."""
        mine = self.signals[0] if self.signals else 0
        return max(from_all(mine)) if ranks() > 1 else mine

    def leave(self, number: int, what: str) -> None:
        name = signal.Signals(number).name
        print(f"{name}: {what}; continue with --resume", file=sys.stderr)
        sys.exit(128 + number)

    def train_epoch(self, writer: SummaryWriter | None) -> None:
        """The rest of one epoch, or until a signal comes."""
        self.model.train()
        loader = train_loader(
            self.scenes,
            self.cfg.INPUT.BATCH_SIZE_TRAIN,
            self.cfg.INPUT.NUM_WORKERS,
            seed=self.cfg.SEED,
            epoch=self.epoch,
            start_step=self.step,
            part=(rank(), ranks()),
        )
        title = f"epoch {self.epoch + 1}/{self.cfg.SOLVER.MAX_EPOCHS}"
        with tqdm(
            total=self.steps_per_epoch,
            initial=self.step,
            desc=title,
            unit="step",
            mininterval=1,
            dynamic_ncols=True,
        ) as bar:
            start = time.perf_counter()
            for images, targets in loader:
                size, losses = self.batch_size(), self.train_step(images, targets)
                self.step += 1
                self.log(writer, losses, size, time.perf_counter() - start)
                bar.set_postfix(loss=f"{losses['total']:.3f}", refresh=False)
                bar.update()
                if self.stop():
                    break
                period = self.cfg.SOLVER.CKPT_PERIOD_STEPS
                if period and self.step % period == 0 and self.step < self.steps_per_epoch:
                    self.save()
                start = time.perf_counter()
        self.report_data()
        if self.step == self.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0

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

    def batch_size(self) -> int:
        """Images of the step to come, on all ranks; an epoch's last batch may be smaller."""
        size = self.cfg.INPUT.BATCH_SIZE_TRAIN
        return min(size, len(self.scenes) - self.step * size)

    def train_step(self, images: list, targets: list) -> dict[str, float]:
        solver = self.cfg.SOLVER
        rate = learning_rate(
            self.done,
            self.steps_per_epoch,
            self.base_lr,
            solver.WARMUP_FACTOR,
            solver.MILESTONES,
            solver.GAMMA,
        )
        mine = part_of(self.batch_size(), rank(), ranks())
        where = f"epoch {self.epoch + 1}, step {self.step + 1}"
        return self.learner.step(images, targets, mine.stop - mine.start, rate, where)

    def log(
        self, writer: SummaryWriter | None, losses: dict[str, float], size: int, seconds: float
    ) -> None:
        """TensorBoard scalars of the step just done, on `size` images: losses (unweighted), total,
        rate, speed."""
        if writer is None:
            return
        for name, loss in losses.items():
            writer.add_scalar(f"loss/{name}", loss, self.done)
        rate = self.learner.optimizer.param_groups[0]["lr"]
        writer.add_scalar("train/learning_rate", rate, self.done)
        writer.add_scalar("train/seconds_per_step", seconds, self.done)
        writer.add_scalar("train/images_per_second", size / seconds, self.done)

    # --- evaluation ---

    def recorded(self) -> list[dict]:
        """Evaluations of this run so far, each {"epoch", "recall", "ap", "mAP", ...}; a last line
        that a killed run has not finished does not count."""
        if not self.evaluations.is_file():
            return []
        lines = self.evaluations.read_bytes().splitlines(keepends=True)
        try:
            past = [json.loads(line) for line in lines if line.endswith(b"\n")]
            if all(past_one.keys() >= {"epoch", "search/mAP"} for past_one in past):
                return past
        except (ValueError, AttributeError):
            pass
        raise UserError(
            f"{self.evaluations}: expected lines of JSON, each with epoch and "
            "search/mAP; found others"
        ) from None

    def evaluate(self, writer: SummaryWriter | None) -> None:
        """Evaluate the finished epoch if it is due and has not been; keep the best by mAP. Its
        checkpoint is there, so a signal ends the run at once."""
        solver = self.cfg.SOLVER
        past = from_first(self.recorded)
        due = self.epoch % solver.EVAL_PERIOD == 0 or self.epoch == solver.MAX_EPOCHS
        if not due or any(past_one["epoch"] == self.epoch for past_one in past):
            return
        same_buffers(self.net)
        with on_signals(lambda number: self.leave(number, "stopped evaluating")):
            results = evaluate(self.net, self.dataset, self.cfg, self.device, self.epoch)
            if rank():
                return
            metrics = flat_metrics(results)
            picture = draw_scene(self.net, self.dataset, self.device)
        for name, value in metrics.items():
            writer.add_scalar(f"eval/{name}", value, self.epoch)
        writer.add_image("detections", picture, self.epoch, dataformats="HWC")
        if all(metrics["search/mAP"] > past_one["search/mAP"] for past_one in past):
            self.checkpoints.mark_best(self.checkpoint)
        lines = [json.dumps(one) for one in [*past, {"epoch": self.epoch} | metrics]]
        write_text("\n".join(lines) + "\n", self.evaluations)
