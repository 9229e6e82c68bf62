"""Checkpoints: strict about the model, and about where a run goes on."""

import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from configs.defaults import get_cfg
from configs.files import parse
from configs.ranges import check_ranges, flatten
from configs.values import merge
from engine.onnx_net import SUFFIX as ONNX
from engine.onnx_net import OnnxNet, open_onnx
from engine.weights import SUFFIX, TABLE, load_weights
from models.build import build_net
from models.network import Network
from models.search_net import SearchNet
from utils.errors import UserError
from utils.files import load_file, save_file, written_beside

# The keys that change which tensors a model has, or what they mean.
MODEL_KEYS = (
    "BACKBONE.NAME",
    "BACKBONE.FROZEN_BN",
    "MODEL.FPN_CHANNELS",
    "MODEL.FC_SIZE",
    "MODEL.EMBEDDING_SIZE",
    "MODEL.ANCHOR_SIZES",
    "MODEL.OIM.QUEUE_SIZE",
)
# Keys of MODEL that training alone reads; an .onnx file has all others built in.
TRAINING_KEYS = (
    "MODEL.RPN.BATCH_SIZE",
    "MODEL.ROI.BATCH_SIZE",
    "MODEL.ROI.POSITIVE_FRACTION",
    "MODEL.OIM.QUEUE_SIZE",
    "MODEL.OIM.MOMENTUM",
    "MODEL.OIM.SCALE",
)
BEST = "best.pth"


def load_checkpoint(path: str | Path, what: str = "--ckpt") -> dict:
    """A checkpoint of this project: a dict with at least "model" and "config". Weights to hand on
    (engine.weights) are one that has little else."""
    if Path(path).suffix == SUFFIX:
        return load_weights(path, what)
    if Path(path).suffix == ONNX:
        raise UserError(
            f"{what} {path}: a network as an ONNX file finds and compares people, no more; "
            "expected the checkpoint that it was made from"
        )
    checkpoint = load_file(path, what)
    if not isinstance(checkpoint.get("model"), dict) or "config" not in checkpoint:
        raise UserError(
            f"{what} {path}: expected the keys model and config, found "
            f"{', '.join(map(str, checkpoint)) or 'none'}; tools/convert_release.py converts "
            "checkpoints of the published release"
        )
    return checkpoint


def load_facts(path: str | Path, what: str = "--ckpt") -> dict:
    """What a checkpoint, or a file made from one, says of its network: "config", and "thresholds",
    "epoch" and "step" where it knows."""
    if Path(path).suffix == ONNX:
        return open_onnx(path, what, torch.device("cpu"))[1]
    return load_checkpoint(path, what)


def stored_cfg(checkpoint: dict, where: str = "checkpoint") -> CfgNode:
    """The config that a checkpoint was trained with, over today's defaults."""
    cfg = get_cfg()
    try:
        merge(cfg, parse(str(checkpoint["config"]), ""), "", unknown=True)
        check_ranges(cfg)
    except UserError as error:
        raise UserError(f"{where}: its config cannot be read ({error})") from None
    return cfg


def compare_configs(checkpoint: dict, cfg: CfgNode, where: str) -> list[str]:
    """Each key that differs, "KEY was ..., is ..."; UserError where the model would be another."""
    check_same_model(checkpoint, cfg, where)
    was = flatten(stored_cfg(checkpoint, where))
    return [
        f"{key} was {was[key]!r}, is {value!r}"
        for key, value in flatten(cfg).items()
        if was[key] != value
    ]


def check_same_model(
    checkpoint: dict, cfg: CfgNode, where: str, keys: Iterable[str] = MODEL_KEYS
) -> None:
    """UserError naming every key by which the checkpoint's model differs from the config's."""
    stored, given = flatten(stored_cfg(checkpoint, where)), flatten(cfg)
    differ = [
        f"{key} is {stored[key]!r} there and {given[key]!r} in the config"
        for key in keys
        if stored[key] != given[key]
    ]
    if differ:
        raise UserError(f"{where}: another model: {'; '.join(differ)}")


def misfits(module: nn.Module, state: dict) -> list[str]:
    """What keeps `state` from loading into `module`, tensor by tensor."""
    own = module.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in own]
    return wrong + [
        f"{k} is {list(state[k].shape)} there and {list(own[k].shape)} in the model"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]


def load_state(module: nn.Module, state: dict, where: str) -> None:
    """Strict load_state_dict; the first misfit in one line."""
    if wrong := misfits(module, state):
        raise UserError(f"{where}: {len(wrong)} tensors do not fit, the first: {wrong[0]}")
    module.load_state_dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict, where: str) -> None:
    """load_state_dict; UserError where the state is of other parameters."""
    try:
        optimizer.load_state_dict(state)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: the optimizer's state is of other parameters ({error})"
        ) from None


def _restore_net(checkpoint: dict, cfg: CfgNode, where: str, device: torch.device) -> SearchNet:
    """In eval mode; where the checkpoint has no OIM table at all, the network's has no rows."""
    state, table = checkpoint["model"], TABLE + "lut"
    handed_on = not any(str(name).startswith(TABLE) for name in state)
    if table not in state and not handed_on:
        raise UserError(f"{where}: {table} is missing")
    net = build_net(cfg, num_pids=0 if handed_on else len(state[table]), pretrained=False)
    if handed_on:
        state = state | {k: v for k, v in net.state_dict().items() if k.startswith(TABLE)}
    load_state(net, state, where)
    return net.to(device).eval()


def load_net(cfg: CfgNode, path: str | Path, device: torch.device) -> Network:
    """The network in a checkpoint, in weights to hand on or in an .onnx file, ready for inference;
    it must be the config's model."""
    load = _load_onnx if Path(path).suffix == ONNX else load_search_net
    return load(cfg, path, device)


def load_search_net(cfg: CfgNode, path: str | Path, device: torch.device) -> SearchNet:
    """The checkpoint's network in eval mode; it must be the config's model."""
    checkpoint = load_checkpoint(path)
    check_same_model(checkpoint, cfg, f"--ckpt {path}")
    return _restore_net(checkpoint, cfg, f"--ckpt {path}", device)


def _load_onnx(cfg: CfgNode, path: str | Path, device: torch.device) -> OnnxNet:
    """UserError also where the config asks for what is built into the file."""
    session, header = open_onnx(path, "--ckpt", device)
    model = [key for key in flatten(cfg) if key.startswith("MODEL.") and key not in TRAINING_KEYS]
    built_in = ["BACKBONE.NAME", "INPUT.MIN_SIZE", "INPUT.MAX_SIZE", *model]
    check_same_model(header, cfg, f"--ckpt {path}", built_in)
    if cfg.EVAL_FAST:
        raise UserError(f"EVAL_FAST True: not for --ckpt {path}, which onnxruntime makes fast")
    for key, built_in in (("EVAL_AMP", "precision"), ("EVAL_FAST", "form")):
        if cfg[key]:
            raise UserError(
                f"{key} {cfg[key]}: not for --ckpt {path}, which has its {built_in} built in"
            )
    roi = cfg.MODEL.ROI
    return OnnxNet(session, (roi.SCORE_THRESH, roi.NMS_THRESH, roi.DETECTIONS_PER_IMAGE))


def load_with_config(
    path: str | Path, what: str, device: torch.device
) -> tuple[SearchNet, CfgNode]:
    """A checkpoint's network in eval mode and its config, both out of the file; what: the option
    that named it."""
    checkpoint, where = load_checkpoint(path, what), f"{what} {path}"
    cfg = stored_cfg(checkpoint, where)
    return _restore_net(checkpoint, cfg, where, device), cfg


def load_teacher(path: str | Path, device: torch.device) -> tuple[SearchNet, CfgNode]:
    """A teacher and its config, both out of its own checkpoint."""
    if not path:
        raise UserError(
            "DISTILLER.TEACHER_CKPT: expected the checkpoint of a trained teacher, "
            "found none; train one with train_base.py"
        )
    return load_with_config(path, "DISTILLER.TEACHER_CKPT", device)


class CheckpointFolder:
    """The checkpoints of one run: epoch_EE.pth at an epoch's end (the first is 00),
    epoch_EE_step_SSSSSS.pth inside one, best.pth."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        self.keep = keep

    def newest_first(self) -> list[Path]:
        """Checkpoints by progress; a finished epoch E comes after every step within it."""

        def progress(path: Path) -> tuple[int, float]:
            epoch, step = re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?", path.stem).groups()
            return int(epoch), float("inf") if step is None else int(step)

        found = [
            p
            for p in self.folder.glob("epoch_*.pth")
            if re.fullmatch(r"epoch_\d+(_step_\d+)?", p.stem)
        ]
        return sorted(found, key=progress, reverse=True)

    def save(self, content: dict) -> Path:
        """content["epoch"] epochs are finished and content["step"] steps of the next one."""
        epoch, step = content["epoch"], content["step"]
        name = f"epoch_{epoch:02d}_step_{step:06d}.pth" if step else f"epoch_{epoch - 1:02d}.pth"
        save_file(content, self.folder / name)
        for old in self.newest_first()[self.keep :]:
            old.unlink()
        return self.folder / name

    def mark_best(self, path: Path) -> None:
        """Copy a checkpoint to best.pth."""
        with open(path, "rb") as source, written_beside(self.folder / BEST) as target:
            shutil.copyfileobj(source, target)

    def load_newest(self, say: Callable[[str], None]) -> tuple[Path, dict] | None:
        """The newest whole checkpoint; `say` names each damaged one, which is put aside as
        NAME.damaged."""
        for path in self.newest_first():
            try:
                return path, load_checkpoint(path, "--resume")
            except UserError as error:
                aside = path.rename(path.with_name(path.name + ".damaged"))
                say(f"{error}; put aside as {aside.name}, trying the one before it")
        return None
