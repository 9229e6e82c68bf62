"""A network as an ONNX file: what stands in it, and onnxruntime as the network that runs it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.filtering import DetectionLimits
from models.network import Network
from models.outputs import Detections
from utils.errors import UserError
from utils.files import content_of, open_file
from utils.optional import optional

SUFFIX = ".onnx"
REQUIREMENTS = "requirements-onnx.txt"
INPUTS = {
    "image": "uint8 [height, width, 3], RGB, any size",
    "query_boxes": "float32 [queries, 4], x1 y1 x2 y2 in the image's pixels; queries may be 0",
}
OUTPUTS = {
    "boxes": "float32 [people, 4], everyone found, best first: x1 y1 x2 y2 in the image's pixels",
    "scores": "float32 [people], 0 to 1",
    "embeddings": "float32 [people, D], of length 1: two people's similarity is their inner\n"
    "    product, for ranking times the score of the one who was found",
    "query_embeddings": "float32 [queries, D], of length 1",
}


class OnnxNet(Network):
    """The graph of models.onnx_graph in an onnxruntime session, which runs it image by image.

    Args:
        session: onnxruntime's.
        limits: those that the graph was exported with.
    """

    def __init__(self, session: Any, limits: DetectionLimits):
        self.session = session
        self._limits = limits

    @property
    def limits(self) -> DetectionLimits:
        return self._limits

    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """On the images' device. amp must be None: the file has a precision of its own."""
        assert amp is None
        found, embedded = zip(*map(self._run, images, boxes))
        return list(found), list(embedded)

    def _run(self, image: Tensor, boxes: Tensor) -> tuple[Detections, Tensor]:
        if image.is_floating_point():
            image = (image * 255).round().to(torch.uint8)
        values = image.permute(1, 2, 0).contiguous(), boxes.reshape(-1, 4).float()
        feed = {name: value.cpu().numpy() for name, value in zip(INPUTS, values)}
        outputs = self.session.run(list(OUTPUTS), feed)
        *people, queries = (torch.from_numpy(value).to(image.device) for value in outputs)
        return Detections(*people), queries


def open_onnx(path: str | Path, what: str, device: torch.device) -> tuple[Any, dict]:
    """An onnxruntime session of a file that tools.export_onnx wrote, and what stands in its
    metadata: {"config": YAML, "thresholds": dict or None}. It runs on a GPU where onnxruntime
    knows one. UserError where missing, damaged, or of another kind."""
    open_file(path, what).close()
    runtime = optional("onnxruntime", f"{what} {path}", REQUIREMENTS)
    providers: list[tuple[str, dict]] = [("CPUExecutionProvider", {})]
    if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads without work leave the cores to others, PyTorch's among them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it raises need not be printed too
    with content_of(f"{what} {path}", "an ONNX file"):
        session = runtime.InferenceSession(path, options, providers)
    header = session.get_modelmeta().custom_metadata_map
    names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if "config" not in header or names != [*INPUTS, *OUTPUTS]:
        raise UserError(
            f"{what} {path}: expected a network written by tools.export_onnx; found an ONNX file "
            f"of another kind, with {', '.join(names)}"
        )
    thresholds = json.loads(header["thresholds"]) if "thresholds" in header else None
    return session, {"config": header["config"], "thresholds": thresholds}
