"""From a checkpoint, or what was made of one, to its network: strict about the model."""

from collections.abc import Iterable
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
from models.build import build_net, detection_limits
from models.network import Network
from models.search_net import SearchNet
from utils.errors import DamagedError, UserError, first_of, reason_of
from utils.files import load_file
from utils.states import load_state, not_finite

QUEUE = "MODEL.OIM.QUEUE_SIZE"
# The keys that change which tensors a model has, or what they mean.
MODEL_KEYS = (
    "BACKBONE.NAME",
    "BACKBONE.FROZEN_BN",
    "MODEL.FPN_CHANNELS",
    "MODEL.FC_SIZE",
    "MODEL.EMBEDDING_SIZE",
    "MODEL.ANCHOR_SIZES",
    QUEUE,
)
# Keys of MODEL that training alone reads; an .onnx file has all others built in.
TRAINING_KEYS = (
    "MODEL.RPN.BATCH_SIZE",
    "MODEL.ROI.BATCH_SIZE",
    "MODEL.ROI.POSITIVE_FRACTION",
    QUEUE,
    "MODEL.OIM.MOMENTUM",
    "MODEL.OIM.SCALE",
)


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
            f"{what} {path}: expected the keys model and config, found {first_of(checkpoint)}; "
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


def _handed_on(state: dict) -> bool:
    """Are these weights without anything of OIM, as tools.export_weights writes them?"""
    return not any(str(name).startswith(TABLE) for name in state)


def _restore_net(checkpoint: dict, cfg: CfgNode, where: str, device: torch.device) -> SearchNet:
    """In eval mode; where the checkpoint has no OIM table at all, the network's has no rows."""
    state, table = checkpoint["model"], TABLE + "lut"
    handed_on = _handed_on(state)
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
    keys = [key for key in MODEL_KEYS if key != QUEUE or not _handed_on(checkpoint["model"])]
    check_same_model(checkpoint, cfg, f"--ckpt {path}", keys)
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
    return OnnxNet(session, detection_limits(cfg))


def load_with_config(
    path: str | Path, what: str, device: torch.device
) -> tuple[SearchNet, CfgNode]:
    """A checkpoint's network in eval mode and its config, both out of the file; what: the option
    that named it."""
    checkpoint, where = load_checkpoint(path, what), f"{what} {path}"
    cfg = stored_cfg(checkpoint, where)
    return _restore_net(checkpoint, cfg, where, device), cfg


def load_initial_weights(net: SearchNet, cfg: CfgNode) -> None:
    """Copy the network of MODEL.WEIGHTS into `net`, except for its OIM table and queue.

    Raises:
        UserError: the file is missing, damaged or of another kind, or its network differs from the
            config's.
    """
    path, what = cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS"
    checkpoint, where = load_checkpoint(path, what), f"{what} {path}"
    check_same_model(checkpoint, cfg, where, [key for key in MODEL_KEYS if key != QUEUE])
    state = {k: v for k, v in checkpoint["model"].items() if not str(k).startswith(TABLE)}
    own = {k: v for k, v in net.state_dict().items() if k.startswith(TABLE)}
    load_state(net, state | own, where)


def load_teacher(path: str | Path, device: torch.device) -> tuple[SearchNet, CfgNode]:
    """A teacher and its config, both out of its own checkpoint."""
    if not path:
        raise UserError(
            "DISTILLER.TEACHER_CKPT: expected the checkpoint of a trained teacher, "
            "found none; train one with train_base.py"
        )
    return load_with_config(path, "DISTILLER.TEACHER_CKPT", device)
