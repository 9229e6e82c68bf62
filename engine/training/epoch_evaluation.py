"""The evaluations between the epochs of a run, and the choice of the best checkpoint."""

from pathlib import Path

import torch
from yacs.config import CfgNode

from datasets.base import SearchDataset
from engine.distributed import from_first, rank, same_buffers
from engine.evaluation.evaluate import draw_scene, evaluate
from engine.evaluation.records import flat_metrics
from engine.training.curves import Curves
from engine.training.folder import CheckpointFolder
from engine.training.history import History
from models.search_net import SearchNet
from utils.signals import Signals, Stopped
from utils.states import state_digest


class EpochEvaluation:
    """The evaluations of the network, after the epochs in which one is due.

    Args:
        checkpoints: of the run; its folder also contains the evaluations.
        signals: those that end the run. An evaluation ends immediately, since the checkpoint of the
            epoch is already saved.
    """

    def __init__(
        self,
        cfg: CfgNode,
        net: SearchNet,
        dataset: SearchDataset,
        device: torch.device,
        checkpoints: CheckpointFolder,
        signals: Signals,
    ):
        self.cfg, self.net, self.dataset, self.device = cfg, net, dataset, device
        self.checkpoints, self.signals = checkpoints, signals
        self.history = History(checkpoints.folder)

    def run(self, epoch: int, checkpoint: Path, curves: Curves, done: int) -> None:
        """Evaluate a finished epoch if that is due, and keep the checkpoint with the highest mAP.

        If the epoch was evaluated before the run was killed, only its points are added to the
        curves.

        Args:
            epoch: number of finished epochs.
            checkpoint: the one that was saved after the epoch.
            done: finished steps of the run, the position of the points in the curves.
        """
        past = from_first(self.history.past)
        recorded = next((one for one in past if one["epoch"] == epoch), None)
        if recorded is None and not self.due(epoch):
            return
        try:
            with self.signals.released():
                results = self.evaluate(epoch) if recorded is None else {}
                if rank():
                    return
                picture = draw_scene(self.net, self.dataset, self.device, self.cfg.INPUT.MAX_PIXELS)
        except Stopped as stopped:
            raise Stopped(stopped.number, "stopped evaluating; continue with --resume") from None
        recorded = recorded or self.record(epoch, checkpoint, past, flat_metrics(results))
        curves.add({f"eval/{name}": v for name, v in recorded.items() if name != "epoch"}, done)
        curves.picture("detections", picture, done)

    def due(self, epoch: int) -> bool:
        """Return True if an epoch is evaluated: every SOLVER.EVAL_PERIOD-th one, and the last
        one."""
        solver = self.cfg.SOLVER
        return epoch % solver.EVAL_PERIOD == 0 or epoch == solver.MAX_EPOCHS

    def evaluate(self, epoch: int) -> dict:
        """Evaluate the network on all ranks. Return the results on rank 0."""
        same_buffers(self.net)
        digest = state_digest(self.net.state_dict())
        return evaluate(self.net, self.dataset, self.cfg, self.device, epoch, digest)

    def record(
        self, epoch: int, checkpoint: Path, past: list[dict], metrics: dict[str, float]
    ) -> dict:
        """Add an evaluation to the history. If its mAP is the highest, copy its checkpoint to
        best.pth."""
        if all(metrics["search/mAP"] > one["search/mAP"] for one in past):
            self.checkpoints.mark_best(checkpoint)
        new = {"epoch": epoch} | metrics
        self.history.add(new)
        return new
