"""Checkpoints: strict about the model, and about where a run goes on."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
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
from utils.errors import DamagedError, UserError, reason_of, shown
from utils.files import load_file, open_file, remove, save_file, written_beside
from utils.states import load_state, not_finite

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
EVALUATIONS = "evaluations.jsonl"


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
            f"{what} {path}: expected the keys model and config, found {shown(checkpoint)}; "
            "tools/convert_release.py converts checkpoints of the published release"
        )
    if name := not_finite(checkpoint):
        raise DamagedError(f"{what} {path}: {name} is not finite")
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
    except Exception as error:  # of YAML, of yacs, of ranges
        raise UserError(f"{where}: its config cannot be read ({reason_of(error)})") from None
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


def _restore_net(checkpoint: dict, cfg: CfgNode, where: str, device: torch.device) -> SearchNet:
    """In eval mode; where the checkpoint has no OIM table at all, the network's has no rows."""
    state, table = checkpoint["model"], TABLE + "lut"
    handed_on = not any(str(name).startswith(TABLE) for name in state)
    rows = getattr(state.get(table), "shape", ())
    if len(rows) != 2 and not handed_on:
        raise UserError(f"{where}: {table} is missing, or no table of identities")
    net = build_net(cfg, num_pids=0 if handed_on else rows[0], pretrained=False)
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
    if cfg.DEVICE.startswith("cuda") and "CUDAExecutionProvider" not in session.get_providers():
        raise UserError(
            f"DEVICE {cfg.DEVICE}: the onnxruntime that is installed knows no GPU; expected cpu or "
            "auto, or the package onnxruntime-gpu"
        )
    for key in ("EVAL_AMP", "EVAL_FAST"):
        if cfg[key]:
            raise UserError(f"{key} {cfg[key]}: not for --ckpt {path}, whose form is its own")
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

    def traces(self) -> list[str]:
        """Names of what an earlier run has left."""
        named = [self.folder / BEST, self.folder / EVALUATIONS]
        found = [*self.newest_first(), *self.folder.glob("epoch_*.pth.damaged*")]
        return [path.name for path in [*found, *named] if path.exists()]

    def save(self, content: dict) -> Path:
        """content["epoch"] epochs are finished and content["step"] steps of the next one."""
        epoch, step = content["epoch"], content["step"]
        name = f"epoch_{epoch:02d}_step_{step:06d}.pth" if step else f"epoch_{epoch - 1:02d}.pth"
        save_file(content, self.folder / name)
        for old in self.newest_first()[self.keep :]:
            remove(old)
        return self.folder / name

    def mark_best(self, path: Path) -> None:
        """Copy a checkpoint to best.pth."""
        with open_file(path, BEST) as source, written_beside(self.folder / BEST) as target:
            shutil.copyfileobj(source, target)

    def load_newest(self, say: Callable[[str], None]) -> tuple[Path, dict] | None:
        """The newest whole checkpoint, None where there is none at all; `say` names each damaged
        one before it, which is put aside as NAME.damaged. UserError where all are damaged, or one
        cannot be read."""
        damaged = []
        for path in self.newest_first():
            try:
                found = path, load_checkpoint(path, "--resume")
            except DamagedError as error:
                damaged.append((path, error))
                continue
            for bad, error in damaged:
                say(f"{error}; put aside as {put_aside(bad).name}, going on with {path.name}")
            return found
        if damaged:
            raise UserError(
                f"OUTPUT_DIR {self.folder}: no checkpoint there is whole ({damaged[0][1]}); give "
                "--ckpt FILE, or another OUTPUT_DIR to start anew"
            )
        return None


def put_aside(path: Path) -> Path:
    """Rename to NAME.damaged, or to the first NAME.damaged.N that is free."""
    names = itertools.chain([".damaged"], (f".damaged.{n}" for n in itertools.count(2)))
    aside = next(new for end in names if not (new := path.with_name(path.name + end)).exists())
    try:
        return path.rename(aside)
    except OSError as error:
        raise UserError(f"{path}: damaged, cannot be renamed ({reason_of(error)})") from None
