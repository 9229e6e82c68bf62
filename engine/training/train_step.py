"""One training step: the gradient of a whole batch, computed in one or more parts."""

import math
import warnings
from collections.abc import Callable, Collection
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from engine.device import precision_of
from engine.distributed import gather_rows, ranks, total
from engine.training.batch_losses import BatchRows
from engine.training.batching import Part
from engine.training.term_limit import TermLimit
from models.backbones import FrozenNormStatistics
from models.distill import check_terms
from models.distiller import Rows, only_own
from models.outputs import BATCH, TrainingOutput
from models.search_net import SearchNet
from models.timm_networks import synchronise_norms
from utils.errors import UserError


def loss_weights(cfg: CfgNode, epoch: int = 0) -> dict[str, float]:
    """Return the weight of every loss, by the name under which the model returns it.

    Args:
        epoch: number of finished epochs. From DISTILLER.STOP_EPOCH on, the weights of the terms are
            0; with DISTILLER.DECAY they decrease before that. After the last epoch, all weights are
            those of this epoch.
    """
    epochs = cfg.SOLVER.MAX_EPOCHS
    epoch = min(epoch, epochs - 1)
    own = {name.lower(): weight for name, weight in cfg.SOLVER.LOSS_WEIGHTS.items()}
    stopped = 0 < cfg.DISTILLER.STOP_EPOCH <= epoch
    left = 1 - epoch / epochs
    factors = {
        name: 0.0 if stopped else left if name in cfg.DISTILLER.DECAY else 1.0
        for name in cfg.DISTILLER.TERMS
    }
    return own | {
        name: factor * cfg.DISTILLER[name.upper()].WEIGHT for name, factor in factors.items()
    }


def check_decay(cfg: CfgNode) -> None:
    """Check that the terms whose weights decrease are terms of the run.

    Raises:
        UserError: if one is not.
    """
    for name in cfg.DISTILLER.DECAY:
        if name not in cfg.DISTILLER.TERMS:
            raise UserError(
                f"DISTILLER.DECAY: expected names out of DISTILLER.TERMS {cfg.DISTILLER.TERMS}, "
                f"found {name}"
            )


def check_finite(losses: dict[str, Tensor], where: str) -> None:
    """Check that all losses are finite.

    Raises:
        UserError: naming the losses that are not, and all values.
    """
    if not losses:
        return
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    if not values.isfinite().all():
        bad = [n for n, ok in zip(losses, values.isfinite().tolist()) if not ok]
        all_values = ", ".join(f"{n} {v:.4g}" for n, v in zip(losses, values.tolist()))
        raise UserError(f"loss not finite: {', '.join(bad)} at {where} ({all_values})")


def make_optimizer(cfg: CfgNode, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return SGD, as published, or AdamW. Both are fused: one pass over each weight for the whole
    update.

    If fp16's scaler skips the first step, fused SGD keeps uninitialised memory as its momentum
    (findings/fused_sgd_skipped_step.sh). With fp16, SGD is therefore not fused.
    """
    name, rate, decay = cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    if name == "sgd":
        fused = cfg.SOLVER.AMP != "fp16"
        return torch.optim.SGD(
            parameters, rate, cfg.SOLVER.MOMENTUM, weight_decay=decay, fused=fused
        )
    if name == "adamw":
        betas = (cfg.SOLVER.MOMENTUM, 0.999)
        return torch.optim.AdamW(parameters, rate, betas, weight_decay=decay, fused=True)
    raise UserError(f"SOLVER.OPTIMIZER: expected sgd or adamw, found {name}")


def check_sync_bn(cfg: CfgNode, device: torch.device) -> None:
    """Check that SOLVER.SYNC_BN is False on a CPU.

    Raises:
        UserError: if it is not.
    """
    if cfg.SOLVER.SYNC_BN and device.type == "cpu":
        raise UserError("SOLVER.SYNC_BN: PyTorch's SyncBatchNorm needs GPUs; found the CPU")


class TrainStep:
    """A model, its optimizer, and the step that updates the model and the OIM table.

    `model` returns losses: it is the network itself, or a Distiller around it. `net` is the network
    in it, which is trained. However the batch is divided (ranks, SOLVER.ACCUMULATE), the gradients
    of the parts add up to that of the whole batch: the loss of a part counts by its share of the
    images, regions or labelled people over which the loss is a mean, or is computed from the rows
    of all parts. Only BatchNorm differs: its statistics are those of one part (with SOLVER.SYNC_BN,
    of all ranks).

    Terms of weight 0 are not computed, and without other terms the teacher does not run. The
    network's own losses of weight 0 are not part of the total, even if they are not finite. Weights
    on which no other loss depends get gradients of zero, so that the optimizer has the same state
    for all weights.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, net: SearchNet, device: torch.device):
        self.solver, self.model, self.net, self.device = cfg.SOLVER, model, net, device
        self.terms: nn.ModuleDict = getattr(model, "terms", nn.ModuleDict())
        self.dtype = precision_of("SOLVER.AMP", self.solver.AMP)
        check_sync_bn(cfg, device)
        if self.solver.SYNC_BN:
            synchronise_norms(net)
            synchronise_norms(self.terms)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(cfg, self.parameters)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.solver.AMP == "fp16")
        check_terms(cfg.DISTILLER.TERMS)  # a network alone has the weights of terms too
        check_decay(cfg)
        self.weights = loss_weights(cfg)
        self.limit = self._make_limit(cfg.DISTILLER.GRADIENT_SHARE)
        self.parallel = model
        if ranks() > 1:  # buffers stay: OIM's are equal by their updates, norms' are rank 0's
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of the argument's next name
                self.parallel = DistributedDataParallel(model, broadcast_buffers=False)

    def step(self, parts: list[Part], rate: float, where: str) -> dict[str, float]:
        """Train on a batch, and return the losses of the whole batch.

        The step consists of forward and backward passes, clipping, and the update of weights and
        OIM table.

        Args:
            parts: this rank's share of the batch, see `engine.training.batching`.
            rate: the learning rate.
            where: the step, for messages.
        """
        parts = [self._on_device(part) for part in parts]
        size = self._size_of_batch(parts) if len(parts) * ranks() > 1 else None
        whole, rows = self._run_ahead(parts, size) if len(parts) > 1 else (None, None)
        self.optimizer.zero_grad()
        if self.limit:
            self.limit.reset()
        sums, people, labels = 0, [], []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1 or ranks() == 1
            with nullcontext() if last or self.limit else self.parallel.no_sync():
                join = partial(_join, rows, number, part.live)
                model = self.model if self.limit else self.parallel
                out = self._forward(model, part, size, self.active_terms(), join)
                check_finite({n: v for n, v in out.losses.items() if self.weights[n]}, where)
                whole = whole or {name: total(n * part.live) for name, n in out.counts.items()}
                shares = _shares(out, whole, part.live)
                weighted = self._weighted(shares)
                shares["total"] = sum(weighted.values(), torch.zeros((), device=self.device))
                self._backward(weighted)
            sums = sums + torch.stack([loss.detach().float() for loss in shares.values()])
            people.append(out.embeddings)
            labels.append(out.labels * part.live)
        if self.limit:
            self.limit.write()
        self._update(torch.cat(people), torch.cat(labels), rate)
        return dict(zip(shares, total(sums).tolist()))

    def active_terms(self) -> list[str]:
        """Return the terms that are computed: those whose weight is not 0."""
        return [name for name in self.terms if self.weights[name]]

    def gradient_norms(self, images: list[Tensor], targets: list) -> dict[str, float]:
        """Return the norm of the gradient of each weighted loss on the network's weights, and of
        their "total".

        They are those of one undivided batch. No weight is changed.
        """
        weights = [p for p in self.net.parameters() if p.requires_grad]
        part = self._on_device(Part(images, targets))
        with FrozenNormStatistics(self.net):
            losses = self._forward(self.model, part, None, self.active_terms()).losses
        norms = dict.fromkeys(losses, 0.0)
        losses = self._weighted(losses)
        losses["total"] = sum(losses.values(), self._no_loss())
        return norms | {name: self._norm(loss, weights) for name, loss in losses.items()}

    def _norm(self, loss: Tensor, weights: list[nn.Parameter]) -> float:
        """Return the norm of a loss's gradient. The graph is kept.

        The scale that prevents underflow in fp16 is halved until the gradient does not overflow.
        """
        scale = self.scaler.get_scale()
        while True:
            gradients = torch.autograd.grad(
                loss * scale, weights, retain_graph=True, allow_unused=True
            )
            squares = sum(float(g.double().square().sum()) for g in gradients if g is not None)
            if math.isfinite(squares) or scale <= 1:
                return squares**0.5 / scale
            scale /= 2

    def _weighted(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses whose weight is not 0, multiplied by their weights."""
        weights = self.weights
        return {name: weights[name] * loss for name, loss in losses.items() if weights[name]}

    def _make_limit(self, share: float) -> TermLimit | None:
        """Return the limit of DISTILLER.GRADIENT_SHARE; None without a limit, and for a network
        alone."""
        if not share or self.model is self.net:
            return None
        own = [p for p in self.net.parameters() if p.requires_grad]
        known = set(map(id, own))
        return TermLimit(own, [p for p in self.parameters if id(p) not in known], share)

    def _backward(self, weighted: dict[str, Tensor]) -> None:
        """Compute the gradient of one part.

        Args:
            weighted: its losses.
        """
        if self.limit is None:
            # DistributedDataParallel computes the mean over ranks; the parts need the sum
            self.scaler.scale(sum(weighted.values()) * ranks() + self._no_loss()).backward()
            return
        kinds = [torch.zeros((), device=self.device)] * 2
        for name, loss in weighted.items():
            kinds[name in self.terms] = kinds[name in self.terms] + loss
        self.limit.add(*map(self.scaler.scale, kinds))

    def _no_loss(self) -> Tensor:
        """Return zero, with gradients of zero for all weights on which only losses of weight 0 may
        depend."""
        idle = [term for name, term in self.terms.items() if name not in self.active_terms()]
        if not all(self.weights[name.lower()] for name in self.solver.LOSS_WEIGHTS):
            idle.append(self.net)
        weights = [p for module in idle for p in module.parameters() if p.requires_grad]
        return sum((0 * p.sum() for p in weights), torch.zeros((), device=self.device))

    def _on_device(self, part: Part) -> Part:
        return Part(
            [image.to(self.device, non_blocking=True) for image in part.images],
            [{k: v.to(self.device) for k, v in target.items()} for target in part.targets],
            part.live,
        )

    def _forward(
        self,
        model: nn.Module,
        part: Part,
        size: tuple[int, int] | None,
        terms: Collection[str],
        join: Callable[[str, Rows], Rows] = only_own,
    ) -> TrainingOutput:
        """Run `model` as in Distiller.forward. A network alone has no terms."""
        options = (terms, join) if len(self.terms) else ()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return model(part.images, part.targets, size, *options)

    def _size_of_batch(self, parts: list[Part]) -> tuple[int, int]:
        """Return the largest height and width of the resized images of the whole batch, on all
        ranks."""
        sizes = [self.net.resized_size(image) for part in parts for image in part.images]
        return tuple(gather_rows(torch.tensor(sizes, device=self.device)).amax(dim=0).tolist())

    @torch.no_grad()
    def _run_ahead(
        self, parts: list[Part], size: tuple[int, int]
    ) -> tuple[dict[str, Tensor], BatchRows]:
        """Compute the counts over which the whole batch's losses are means, and the rows of its
        terms.

        This happens before any part is trained: all parts run in advance, with the same random
        numbers and without gradients.
        """
        names = [n for n in self.active_terms() if self.terms[n].mean_over == BATCH]
        sums, rows = {}, [{} for _ in parts]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), FrozenNormStatistics(self.net):
            for part, own in zip(parts, rows):
                out = self._forward(self.model, part, size, names, partial(_record, own, part.live))
                for name, count in out.counts.items():
                    sums[name] = sums.get(name, 0) + count * part.live
        return {name: total(count) for name, count in sums.items()}, BatchRows(rows)

    def _update(self, people: Tensor, labels: Tensor, rate: float) -> None:
        """Update the weights, then the OIM table. Every rank writes all ranks' people in the same
        order."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        if self.solver.CLIP_GRADIENTS > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.solver.CLIP_GRADIENTS)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # a gradient was not finite, and the step was skipped
            return
        known = labels > 0
        self.net.oim.update(gather_rows(people[known]), gather_rows(labels[known]))


def _shares(out: TrainingOutput, whole: dict[str, Tensor], live: bool) -> dict[str, Tensor]:
    """Return the share of a part in each loss of the whole batch, whose counts are `whole`.

    A BATCH loss already is the loss of the whole batch. Its value is divided among the parts by
    their numbers of images; its gradient is that of the part's own rows, and counts in full.
    """
    share = {name: count * live / whole[name].clamp(min=1) for name, count in out.counts.items()}
    return {
        name: loss.detach() * share["images"] + (loss - loss.detach())
        if out.mean_over[name] == BATCH
        else loss * share[out.mean_over[name]]
        for name, loss in out.losses.items()
    }


def _live(rows: Rows, live: bool) -> Rows:
    """Return the rows of a part; none for a part that only replaces an empty one."""
    return rows if live else tuple(some[:0] for some in rows)


def _join(known: BatchRows | None, number: int, live: bool, name: str, own: Rows) -> Rows:
    """Return the rows of the whole batch.

    Args:
        known: None if the batch is one part on a single rank.
    """
    own = _live(own, live)
    return (known or BatchRows([{name: own}])).join(number, name, own)


def _record(found: dict[str, Rows], live: bool, name: str, own: Rows) -> Rows:
    """Store the rows of a part in `found`, and return them."""
    found[name] = _live(own, live)
    return own
