"""A network in an ONNX file: the format of the file, and inference with onnxruntime."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.metadata import parse_thresholds
from models.filtering import DetectionLimits
from models.network import Network
from models.outputs import Detections
from utils.errors import DamagedError, UserError
from utils.files import content_of, open_file
from utils.optional import optional

SUFFIX = ".onnx"
REQUIREMENTS = "requirements-onnx.txt"
CHECKSUM, NO_CHECKSUM = "crc32", "00000000"  # key and initial value in the metadata
INPUTS = {
    "image": "uint8 [height, width, 3], RGB, any size",
    "query_boxes": "float32 [queries, 4], x1 y1 x2 y2 in the image's pixels; queries may be 0",
}
QUERIES = "query_embeddings"
OUTPUTS = {
    "boxes": "float32 [people, 4], all detections, best first: x1 y1 x2 y2 in the image's pixels",
    "scores": "float32 [people], 0 to 1",
    "embeddings": "float32 [people, D], of length 1: the similarity of two people is the inner\n"
    "    product of their embeddings; for ranking, multiply it by the score of the detection",
    QUERIES: "float32 [queries, D], of length 1",
}


class OnnxNet(Network):
    """The graph of models.onnx_graph in an onnxruntime session, which processes one image at a
    time.

    Args:
        file: the graph.
        open_session: creates a session for it: onnxruntime's, or an OpenVinoSession.
        limits: those with which the graph was exported.
        amp: the precision of the session; None: that of the file.
    """

    def __init__(
        self,
        file: "OnnxFile",
        open_session: Callable[["OnnxFile"], Any],
        limits: DetectionLimits,
        amp: torch.dtype | None = None,
    ):
        self.file = file
        self.open_session = open_session
        self.session = open_session(file)
        self._limits = limits
        self.amp = amp

    @cached_property
    def query_session(self) -> Any:
        """A session that computes the embeddings of given boxes without the detector."""
        return self.open_session(self.file.of_queries())

    @property
    def limits(self) -> DetectionLimits:
        return self._limits

    def detect_and_embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> tuple[list[Detections], list[Tensor]]:
        """Detect and embed as Network.detect_and_embed does. The results are on the device of the
        images.

        Args:
            amp: must be the precision of the session.
        """
        assert amp == self.amp
        found, embedded = zip(*map(self._run, images, boxes))
        return list(found), list(embedded)

    def embed(
        self, images: list[Tensor], boxes: Sequence[Tensor], amp: torch.dtype | None = None
    ) -> list[Tensor]:
        """Embed boxes as Network.embed does, without the detector."""
        assert amp == self.amp
        found = []
        for image, given in zip(images, boxes):
            (embeddings,) = self.query_session.run([QUERIES], feed(image, given))
            found.append(torch.from_numpy(embeddings).to(image.device))
        return found

    def _run(self, image: Tensor, boxes: Tensor) -> tuple[Detections, Tensor]:
        outputs = self.session.run(list(OUTPUTS), feed(image, boxes))
        *people, queries = (torch.from_numpy(value).to(image.device) for value in outputs)
        return Detections(*people), queries


def feed(image: Tensor, boxes: Tensor) -> dict[str, np.ndarray]:
    """Return the inputs of the graph of an image [3, H, W] and boxes [m, 4]."""
    if image.is_floating_point():
        image = (image * 255).round().to(torch.uint8)
    values = image.permute(1, 2, 0).contiguous(), boxes.reshape(-1, 4).float()
    return {name: value.cpu().numpy() for name, value in zip(INPUTS, values)}


@dataclass(frozen=True)
class OnnxFile:
    """The content of a file that tools.export_onnx wrote.

    Attributes:
        metadata: contains "config" and "thresholds".
    """

    where: str  # the option and the path
    data: bytes
    metadata: dict

    @cached_property
    def digest(self) -> str:
        """A digest of the file."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    def of_queries(self) -> "OnnxFile":
        """Return the part of the graph from which the embeddings of given boxes are computed.

        In files of earlier exports it includes the detector.
        """
        onnx, utils = (optional(m, self.where, REQUIREMENTS) for m in ("onnx", "onnx.utils"))
        whole = onnx.load_from_string(self.data)
        part = utils.Extractor(whole).extract_model(list(INPUTS), [QUERIES])
        return replace(self, data=part.SerializeToString())

    def session(self, device: torch.device) -> Any:
        """Create an onnxruntime session on a device; on the CPU if onnxruntime has no GPU."""
        return onnx_session(self.data, device, self.where)


def read_onnx(path: str | Path, option: str) -> OnnxFile:
    """Read and check a file that tools.export_onnx wrote.

    Raises:
        UserError: if the file is missing, damaged or of another kind, or onnxruntime is missing.
    """
    where = f"{option} {path}"
    with open_file(path, option) as file, content_of(where, "an ONNX file"):
        data = file.read()
    optional("onnxruntime", where, REQUIREMENTS)
    check_checksum(data, where)
    session = onnx_session(data, torch.device("cpu"), where)
    header = session.get_modelmeta().custom_metadata_map
    names = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if "config" not in header or names != [*INPUTS, *OUTPUTS]:
        raise UserError(
            f"{where}: expected a network written by tools.export_onnx, found an ONNX file "
            f"of another kind, with {', '.join(names)}"
        )
    text = header.get("thresholds")
    thresholds = None if text is None else parse_thresholds(text, where)
    return OnnxFile(where, data, {"config": header["config"], "thresholds": thresholds})


def onnx_session(data: bytes, device: torch.device, where: str) -> Any:
    runtime = optional("onnxruntime", where, REQUIREMENTS)
    providers: list[tuple[str, dict]] = [("CPUExecutionProvider", {})]
    if device.type == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads must not occupy the cores that other threads need, for example PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    with content_of(where, "an ONNX file"):
        return runtime.InferenceSession(data, options, providers)


def stamped(data: bytes) -> bytes:
    """Return a serialized model with its checksum.

    Args:
        data: the model, whose metadata contain the key CHECKSUM with the value NO_CHECKSUM.
    """
    place = _place_of_checksum(data)
    assert place
    return data[: place.start] + _checksum(data, place).encode() + data[place.stop :]


def check_checksum(data: bytes, where: str) -> None:
    """Compare a serialized model with the checksum in its metadata, which files of earlier exports
    lack.

    Raises:
        DamagedError: if they differ.
    """
    place = _place_of_checksum(data)
    if place and data[place] != _checksum(data, place).encode():
        raise DamagedError(
            f"{where}: damaged, or changed by another program (the checksum does not match)"
        )


def _place_of_checksum(data: bytes) -> slice | None:
    """Return the position of the value of CHECKSUM in a serialized ModelProto.

    Metadata are field 14; in them, the key is field 1 and the value field 2.
    """
    entry = b"\x0a%c%b\x12%c" % (len(CHECKSUM), CHECKSUM.encode(), len(NO_CHECKSUM))
    start = data.rfind(entry)
    return None if start < 0 else slice(start + len(entry), start + len(entry) + len(NO_CHECKSUM))


def _checksum(data: bytes, place: slice) -> str:
    """Return the CRC-32 of a model with NO_CHECKSUM as its checksum."""
    view = memoryview(data)
    total = zlib.crc32(NO_CHECKSUM.encode(), zlib.crc32(view[: place.start]))
    return f"{zlib.crc32(view[place.stop :], total):08x}"
