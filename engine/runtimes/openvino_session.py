"""OpenVINO as the runtime of an ONNX file, with the same results as onnxruntime."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.onnx_net import REQUIREMENTS as ONNX_REQUIREMENTS
from engine.onnx_net import onnx_session
from utils.files import content_of
from utils.optional import optional

REQUIREMENTS = "requirements-openvino.txt"
PRECISIONS = {None: "f32", torch.bfloat16: "bf16"}  # of the inference


class OpenVinoSession:
    """A compiled model with the `run` method of an onnxruntime session.

    By default OpenVINO computes in bfloat16 on processors that support it, which moves boxes by
    pixels; here it computes in float32 unless bfloat16 is requested. OpenVINO suppresses boxes
    whose IoU equals the threshold, which torchvision and onnxruntime keep; `keep_equal_overlaps`
    changes the thresholds accordingly. OpenVINO computes in float32 what the graph computes in
    float64, the size of the resized picture, which is then off by a pixel for a quarter of all
    picture sizes; onnxruntime computes this part of the graph.

    Args:
        data: the ONNX file.
        amp: torch.bfloat16, or None for float32.
        where: the option and the path of the file, for messages.

    Raises:
        UserError: if OpenVINO is not installed, or cannot read the model.
    """

    def __init__(self, data: bytes, amp: torch.dtype | None, where: str):
        openvino = optional("openvino", f"RUNTIME openvino, {where}", REQUIREMENTS)
        core = openvino.Core()
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[amp],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.sizes, data = without_sizes(data, where)
        with content_of(where, "an ONNX file that OpenVINO reads"):
            model = core.read_model(io.BytesIO(data))
            keep_equal_overlaps(model, openvino)
            self.request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(self, names: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the outputs with these names from the inputs by name."""
        if self.sizes:
            (size,) = self.sizes.get_outputs()
            given = {one.name: feed[one.name] for one in self.sizes.get_inputs()}
            feed = feed | {size.name: self.sizes.run([size.name], given)[0]}
        self.request.infer(feed)
        return [self.request.get_tensor(name).data.copy() for name in names]


def without_sizes(data: bytes, where: str) -> tuple[Any, bytes]:
    """Separate the computation of the size of the resized picture, whose last operator is the
    graph's first Floor.

    Returns:
        An onnxruntime session for it, and the rest of the graph, which has one input more; None and
        the whole graph if it has no Floor.
    """
    onnx, utils = (optional(name, where, ONNX_REQUIREMENTS) for name in ("onnx", "onnx.utils"))
    model = onnx.load_from_string(data)
    found = next((node.output[0] for node in model.graph.node if node.op_type == "Floor"), None)
    if found is None:
        return None, data
    size = onnx.helper.make_tensor_value_info(found, onnx.TensorProto.DOUBLE, [2])
    model.graph.value_info.append(size)
    inputs, outputs = ([one.name for one in e] for e in (model.graph.input, model.graph.output))
    parts = utils.Extractor(model)
    sizes = parts.extract_model(inputs[:1], [found]).SerializeToString()
    rest = parts.extract_model([*inputs, found], outputs).SerializeToString()
    return onnx_session(sizes, torch.device("cpu"), where), rest


def keep_equal_overlaps(model: Any, openvino: Any) -> None:
    """Replace each constant IoU threshold of non-maximum suppression by the next larger float32."""
    for operation in model.get_ops():
        if operation.get_type_name() != "NonMaxSuppression":
            continue
        threshold = operation.input_value(3).get_node()
        if threshold.get_type_name() == "Constant":
            value = np.nextafter(np.float32(threshold.get_data()).reshape(()), np.float32(2))
            constant = openvino.opset8.constant(value, dtype=np.float32)
            operation.input(3).replace_source_output(constant.output(0))
