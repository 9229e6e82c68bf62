"""A file that contains a network, read and checked once: weights, config, thresholds and other
facts."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from yacs.config import CfgNode

from engine.device import precision_of
from engine.metadata import (
    MODEL_KEYS,
    QUEUE,
    Thresholds,
    check_same_model,
    check_thresholds,
    inference_keys,
    parse_stored,
)
from engine.onnx_net import SUFFIX as ONNX
from engine.onnx_net import OnnxFile, OnnxNet, read_onnx
from engine.runtimes.openvino_session import PRECISIONS, OpenVinoSession
from engine.weights import SUFFIX, TABLE, load_weights
from models.build import build_net, detection_limits
from models.network import Network
from models.search_net import SearchNet
from utils.errors import DamagedError, UserError, first_of
from utils.files import load_file
from utils.states import load_state, not_finite, state_digest

LUT = TABLE + "lut"
RUNTIMES = ("onnxruntime", "openvino")  # of an ONNX file


def check_default_precision(cfg: CfgNode, where: str) -> None:
    """Check that EVAL_AMP and EVAL_FAST have their defaults.

    Args:
        where: an exported file, for the message.

    Raises:
        UserError: if they have not.
    """
    for key in ("EVAL_AMP", "EVAL_FAST"):
        if cfg[key]:
            raise UserError(
                f"{key} {cfg[key]}: expected the default with {where}, whose precision is chosen "
                "at its export"
            )


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, of inference-only weights (.safetensors) or of an ONNX file.

    Args:
        path: of the file.
        option: the option or config key that named it.
        content: "model" (not in an ONNX file) and "config"; a run's checkpoint contains more.
        graph: of an ONNX file.
    """

    path: Path
    option: str
    content: dict
    graph: OnnxFile | None = None

    @staticmethod
    def read(path: str | Path, option: str = "--ckpt") -> "Checkpoint":
        """Read and check a file.

        Raises:
            UserError: if it is missing, damaged or of another kind.
        """
        if Path(path).suffix == ONNX:
            graph = read_onnx(path, option)
            return Checkpoint(Path(path), option, graph.metadata, graph)
        return Checkpoint(Path(path), option, load_checkpoint(path, option))

    @property
    def where(self) -> str:
        """The option and the path, for messages."""
        return f"{self.option} {self.path}"

    @cached_property
    def cfg(self) -> CfgNode:
        """The config in the file.

        Raises:
            UserError: if it cannot be read.
        """
        return parse_stored(self.content["config"], self.where)

    @cached_property
    def digest(self) -> str:
        """A digest of the weights."""
        return self.graph.digest if self.graph else state_digest(self.content["model"])

    @property
    def epoch(self) -> int | None:
        """The number of finished epochs; None if the file was written within an epoch or does not
        record it."""
        return None if self.content.get("step") else self.content.get("epoch")

    @property
    def thresholds(self) -> Thresholds | None:
        """The similarity thresholds in the file, if there are any."""
        stored = self.content.get("thresholds")
        return check_thresholds(stored, self.where) if stored else None

    @property
    def has_table(self) -> bool:
        """True if the file contains an OIM table; inference-only weights have none."""
        return any(str(name).startswith(TABLE) for name in self.content["model"])

    def network(self, cfg: CfgNode, device: torch.device) -> Network:
        """Build the network for inference.

        Raises:
            UserError: if the config describes another model.
        """
        if cfg.RUNTIME not in RUNTIMES:
            raise UserError(f"RUNTIME: expected {' or '.join(RUNTIMES)}, found {cfg.RUNTIME}")
        if self.graph:
            check_same_model(self.cfg, cfg, self.where, inference_keys(cfg))
            if cfg.RUNTIME == "openvino":
                return self._openvino_net(cfg, self.graph)
            return self._onnx_net(cfg, self.graph, device)
        if RUNTIMES[0] != cfg.RUNTIME:
            raise UserError(f"RUNTIME {cfg.RUNTIME}: expected an ONNX file, found {self.where}")
        return self.search_net(cfg, device)

    def search_net(self, cfg: CfgNode, device: torch.device) -> SearchNet:
        """Build the network as a module in eval mode.

        Raises:
            UserError: if the config describes another model, or the file is an ONNX file.
        """
        if self.graph:
            raise _not_a_checkpoint(self.where)
        keys = [key for key in MODEL_KEYS if key != QUEUE or self.has_table]
        check_same_model(self.cfg, cfg, self.where, keys)
        return self._restore(cfg, device)

    def own_net(self, device: torch.device) -> SearchNet:
        """Build the network as a module in eval mode, with the config in the file."""
        return self.search_net(self.cfg, device)

    def _restore(self, cfg: CfgNode, device: torch.device) -> SearchNet:
        """Build the config's network with the weights of the file.

        If the file has no OIM table, the network's table has no rows.
        """
        state, rows = self.content["model"], getattr(self.content["model"].get(LUT), "shape", ())
        if self.has_table and len(rows) != 2:
            raise UserError(f"{self.where}: {LUT}: expected a table of identities, found none")
        net = build_net(cfg, num_pids=rows[0] if self.has_table else 0, pretrained=False)
        if not self.has_table:
            state = state | _table_of(net)
        load_state(net, state, self.where)
        return net.to(device).eval()

    def _onnx_net(self, cfg: CfgNode, graph: OnnxFile, device: torch.device) -> OnnxNet:
        limits = detection_limits(cfg)
        net = OnnxNet(graph, lambda file: file.session(device), limits)
        providers = net.session.get_providers()
        if cfg.DEVICE.startswith("cuda") and "CUDAExecutionProvider" not in providers:
            raise UserError(
                f"DEVICE {cfg.DEVICE}: the installed onnxruntime does not support GPUs; expected "
                "cpu or auto, or the package onnxruntime-gpu"
            )
        check_default_precision(cfg, self.where)
        return net

    def _openvino_net(self, cfg: CfgNode, graph: OnnxFile) -> OnnxNet:
        amp = precision_of("EVAL_AMP", cfg.EVAL_AMP)
        if amp not in PRECISIONS or cfg.EVAL_FAST or cfg.DEVICE.startswith("cuda"):
            raise UserError(
                "RUNTIME openvino: expected EVAL_AMP '' or bf16, EVAL_FAST False and the CPU; "
                f"found {cfg.EVAL_AMP!r}, {cfg.EVAL_FAST} and DEVICE {cfg.DEVICE}"
            )
        return OnnxNet(
            graph,
            lambda file: OpenVinoSession(file.data, amp, file.where),
            detection_limits(cfg),
            amp,
        )


def _table_of(net: SearchNet) -> dict[str, torch.Tensor]:
    return {name: v for name, v in net.state_dict().items() if name.startswith(TABLE)}


def load_checkpoint(path: str | Path, option: str = "--ckpt") -> dict:
    """Read the content of a checkpoint or of inference-only weights.

    Returns:
        A dict with at least "model", a state dict, and "config", YAML.

    Raises:
        UserError: if the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    where = f"{option} {path}"
    if Path(path).suffix == ONNX:
        raise _not_a_checkpoint(where)
    content = load_weights(path, option) if Path(path).suffix == SUFFIX else load_file(path, option)
    if not isinstance(content.get("model"), dict) or "config" not in content:
        raise UserError(
            f"{where}: expected the keys model and config, found {first_of(content)}; "
            "python -m tools.convert_release converts checkpoints of the published release"
        )
    if name := not_finite(content):
        raise DamagedError(f"{where}: {name} is not finite")
    return content


def _not_a_checkpoint(where: str) -> UserError:
    return UserError(
        f"{where}: an ONNX file can only detect and embed people; expected the checkpoint "
        "that it was exported from"
    )


def load_net(cfg: CfgNode, path: str | Path, device: torch.device) -> Network:
    """Read a file and build its network for inference, see `Checkpoint.network`."""
    return Checkpoint.read(path).network(cfg, device)


def load_initial_weights(net: SearchNet, cfg: CfgNode) -> None:
    """Copy the network of MODEL.WEIGHTS into `net`, except for its OIM table and queue.

    Raises:
        UserError: if the file is missing, damaged or of another kind, or contains another network
            than that of the config.
    """
    checkpoint = Checkpoint.read(cfg.MODEL.WEIGHTS, "MODEL.WEIGHTS")
    if checkpoint.graph:
        raise _not_a_checkpoint(checkpoint.where)
    keys = [key for key in MODEL_KEYS if key != QUEUE]
    check_same_model(checkpoint.cfg, cfg, checkpoint.where, keys)
    model = checkpoint.content["model"]
    state = {name: v for name, v in model.items() if not str(name).startswith(TABLE)}
    load_state(net, state | _table_of(net), checkpoint.where)


def load_teacher(path: str | Path, device: torch.device) -> tuple[SearchNet, CfgNode]:
    """Read the checkpoint of DISTILLER.TEACHER_CKPT, and build its network with its own config."""
    if not path:
        raise UserError(
            "DISTILLER.TEACHER_CKPT: expected the checkpoint of a trained teacher, "
            "found none; train one with train_base.py"
        )
    checkpoint = Checkpoint.read(path, "DISTILLER.TEACHER_CKPT")
    return checkpoint.own_net(device), checkpoint.cfg
