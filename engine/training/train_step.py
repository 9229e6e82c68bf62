"""One training step: the gradient of a whole batch, computed in one or more parts."""

import warnings
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from engine.device import precision_of
from engine.distributed import gather_rows, ranks, total
from engine.training.batching import Part
from engine.training.term_limit import TermLimit
from models.backbones import FrozenNormStatistics
from models.distill import check_terms
from models.outputs import TrainingOutput
from models.search_net import SearchNet
from utils.errors import UserError


def loss_weights(cfg: CfgNode, epoch: int = 0) -> dict[str, float]:
    """The weight of every loss, by the name under which the model returns it.

    Args:
        epoch: finished epochs; from DISTILLER.STOP_EPOCH on the weights of the terms are 0, and
            those of DISTILLER.DECAY fall.
    """
    own = {name.lower(): weight for name, weight in cfg.SOLVER.LOSS_WEIGHTS.items()}
    stopped = 0 < cfg.DISTILLER.STOP_EPOCH <= epoch
    left = 1 - epoch / max(cfg.SOLVER.MAX_EPOCHS, 1)
    factors = {
        name: 0.0 if stopped else left if name in cfg.DISTILLER.DECAY else 1.0
        for name in cfg.DISTILLER.TERMS
    }
    return own | {
        name: factor * cfg.DISTILLER[name.upper()].WEIGHT for name, factor in factors.items()
    }


def check_finite(losses: dict[str, Tensor], where: str) -> None:
    """Check that all losses are finite.

    Raises:
        UserError: naming the losses that are not, and all values.
    """
    values = torch.stack([loss.detach().float() for loss in losses.values()])
    if not values.isfinite().all():
        bad = [n for n, ok in zip(losses, values.isfinite().tolist()) if not ok]
        all_values = ", ".join(f"{n} {v:.4g}" for n, v in zip(losses, values.tolist()))
        raise UserError(f"loss not finite: {', '.join(bad)} at {where} ({all_values})")


def make_optimizer(cfg: CfgNode, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """SGD as published, or AdamW; fused: one pass over each weight for the whole update."""
    name, rate, decay = cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY
    if name == "sgd":
        return torch.optim.SGD(
            parameters, rate, cfg.SOLVER.MOMENTUM, weight_decay=decay, fused=True
        )
    if name == "adamw":
        betas = (cfg.SOLVER.MOMENTUM, 0.999)
        return torch.optim.AdamW(parameters, rate, betas, weight_decay=decay, fused=True)
    raise UserError(f"SOLVER.OPTIMIZER: expected sgd or adamw, found {name}")


class TrainStep:
    """A model, its optimizer, and the step that moves both and the OIM table.

    `model` returns losses (the network itself, or a Distiller around it); `net` is the network in
    it that is trained. However the batch is cut (ranks, SOLVER.ACCUMULATE), each part's loss counts
    by its share of the images, regions or labelled people that the loss is a mean over, so that the
    parts' gradients add up to the whole batch's. What no cut can give: BatchNorm's statistics are
    of one part (of all ranks' with SOLVER.SYNC_BN), and CD relates the people of one part.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, net: SearchNet, device: torch.device):
        self.solver, self.model, self.net, self.device = cfg.SOLVER, model, net, device
        self.dtype = precision_of("SOLVER.AMP", self.solver.AMP)
        if self.solver.SYNC_BN:
            if device.type == "cpu":
                raise UserError("SOLVER.SYNC_BN: PyTorch's SyncBatchNorm needs GPUs; found the CPU")
            nn.SyncBatchNorm.convert_sync_batchnorm(net)
            nn.SyncBatchNorm.convert_sync_batchnorm(getattr(model, "terms", nn.ModuleDict()))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(cfg, self.parameters)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.solver.AMP == "fp16")
        check_terms(cfg.DISTILLER.TERMS)  # a network alone has the weights of terms too
        check_terms(cfg.DISTILLER.DECAY, "DISTILLER.DECAY")
        self.weights = loss_weights(cfg)
        self.limit = self._make_limit(cfg.DISTILLER.GRADIENT_SHARE)
        self.parallel = model
        if ranks() > 1:  # buffers stay: OIM's are equal by their updates, norms' are rank 0's
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of the argument's next name
                self.parallel = DistributedDataParallel(model, broadcast_buffers=False)

    def step(self, parts: list[Part], rate: float, where: str) -> dict[str, float]:
        """Forward, backward, clip, update of weights and of the OIM table; the whole batch's
        losses.

        parts: this rank's share of the batch, see `engine.training.batching`. where: the step, in
        words.
        """
        parts = [self._on_device(part) for part in parts]
        whole = self._count(parts) if len(parts) > 1 else None
        self.optimizer.zero_grad()
        if self.limit:
            self.limit.reset()
        sums, people, labels = 0, [], []
        for number, (images, targets, alive) in enumerate(parts, 1):
            last = number == len(parts) or ranks() == 1
            with nullcontext() if last or self.limit else self.parallel.no_sync():
                out = self._forward(self.model if self.limit else self.parallel, images, targets)
                check_finite(out.losses, where)
                whole = whole or {name: total(n * alive) for name, n in out.counts.items()}
                share = {n: out.counts[n] * alive / whole[n].clamp(min=1) for n in whole}
                shares = {
                    name: loss * share[out.mean_over[name]] for name, loss in out.losses.items()
                }
                weighted = {name: self.weights[name] * part for name, part in shares.items()}
                shares["total"] = sum(weighted.values())
                self._backward(weighted)
            sums = sums + torch.stack([part.detach().float() for part in shares.values()])
            people.append(out.embeddings)
            labels.append(out.labels * alive)
        if self.limit:
            self.limit.write()
        self._update(torch.cat(people), torch.cat(labels), rate)
        return dict(zip(shares, total(sums).tolist()))

    def gradient_norms(self, images: list[Tensor], targets: list) -> dict[str, float]:
        """Norm of the gradient of each weighted loss on the network's weights, and of their
        "total", on one batch that goes through whole; nothing is learnt from it."""
        weights = [p for p in self.net.parameters() if p.requires_grad]
        images = [image.to(self.device) for image in images]
        targets = [{k: v.to(self.device) for k, v in target.items()} for target in targets]
        with FrozenNormStatistics(self.net):
            losses = self._forward(self.model, images, targets).losses
        losses = {name: self.weights[name] * loss for name, loss in losses.items()}
        losses["total"] = sum(losses.values())
        norms, scale = {}, self.scaler.get_scale()
        for name, loss in losses.items():
            gradients = torch.autograd.grad(
                loss * scale, weights, retain_graph=True, allow_unused=True
            )
            squares = sum(g.square().sum() for g in gradients if g is not None)
            norms[name] = float(squares) ** 0.5 / scale
        return norms

    def _make_limit(self, share: float) -> TermLimit | None:
        """The limit of DISTILLER.GRADIENT_SHARE; None for no limit and for a network alone."""
        if not share or self.model is self.net:
            return None
        own = [p for p in self.net.parameters() if p.requires_grad]
        known = set(map(id, own))
        return TermLimit(own, [p for p in self.parameters if id(p) not in known], share)

    def _backward(self, weighted: dict[str, Tensor]) -> None:
        """The gradient of one part. weighted: its losses."""
        if self.limit is None:
            # DistributedDataParallel computes the mean over ranks; the parts need the sum
            self.scaler.scale(sum(weighted.values()) * ranks()).backward()
            return
        terms = getattr(self.model, "terms", nn.ModuleDict())
        kinds = [torch.zeros((), device=self.device)] * 2
        for name, loss in weighted.items():
            kinds[name in terms] = kinds[name in terms] + loss
        self.limit.add(*map(self.scaler.scale, kinds))

    def _on_device(self, part: Part) -> Part:
        return Part(
            [image.to(self.device, non_blocking=True) for image in part.images],
            [{k: v.to(self.device) for k, v in target.items()} for target in part.targets],
            part.live,
        )

    def _forward(self, model: nn.Module, images: list[Tensor], targets: list) -> TrainingOutput:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return model(images, targets)

    @torch.no_grad()
    def _count(self, parts: list[Part]) -> dict[str, Tensor]:
        """What the whole batch's losses are means over, before any part of it is trained: the
        sampled regions decide, so the network alone runs ahead with the same random numbers."""
        sums = {}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), FrozenNormStatistics(self.net):
            for images, targets, alive in parts:
                for name, count in self._forward(self.net, images, targets).counts.items():
                    sums[name] = sums.get(name, 0) + count * alive
        return {name: total(count) for name, count in sums.items()}

    def _update(self, people: Tensor, labels: Tensor, rate: float) -> None:
        """The gradient's step, then OIM's: every rank writes all ranks' people in one order."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        if self.solver.CLIP_GRADIENTS > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.solver.CLIP_GRADIENTS)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        known = labels > 0
        self.net.oim.update(gather_rows(people[known]), gather_rows(labels[known]))
