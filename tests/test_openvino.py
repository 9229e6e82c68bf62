"""OpenVINO as the runtime of an ONNX file: settings that differ from onnxruntime by default."""

import sys

import numpy as np
import pytest
import torch

from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint
from engine.runtimes.openvino_session import OpenVinoSession
from models.build import build_net
from tests.tiny import TINY, pairs
from utils.errors import UserError
from utils.files import save_file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def model(nodes: list, inputs: dict, output: tuple, constants: dict) -> bytes:
    """Return a serialized graph of the nodes from the inputs to one output."""
    info = onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(np.array(v), name) for name, v in constants.items()]
    given = [info(name, FLOAT, shape) for name, shape in inputs.items()]
    graph = onnx.helper.make_graph(nodes, "test", given, [info(*output)], tensors)
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def both(data: bytes, feed: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the first output in onnxruntime and in OpenVINO."""
    session = onnxruntime.InferenceSession(data)
    (name,) = (output.name for output in session.get_outputs())
    return session.run(None, feed)[0], OpenVinoSession(data, None, "a test").run([name], feed)[0]


@pytest.mark.parametrize("overlap", [0.5, 0.499])
def test_boxes_whose_overlap_equals_the_threshold_are_kept(overlap):
    names = ["boxes", "scores", "count", "overlap"]
    node = onnx.helper.make_node("NonMaxSuppression", names, ["kept"])
    constants = {"count": np.array([9]), "overlap": np.array([overlap], np.float32)}
    inputs = {"boxes": [1, 2, 4], "scores": [1, 1, 2]}
    data = model([node], inputs, ("kept", INT64, ["n", 3]), constants)
    boxes = np.array([[[0, 0, 1, 2], [0, 0, 1, 1]]], np.float32)  # IoU 0.5
    expected, found = both(data, {"boxes": boxes, "scores": np.array([[[0.9, 0.8]]], np.float32)})
    assert found.tolist() == expected.tolist()
    assert len(found) == (2 if overlap == 0.5 else 1)


def test_sizes_are_computed_in_float64():
    """For a picture of 61×47, float32 arithmetic gives another size."""
    node = onnx.helper.make_node
    nodes = [
        node("Shape", ["image"], ["shape"], end=2),
        node("Cast", ["shape"], ["sides"], to=onnx.TensorProto.DOUBLE),
        node("ReduceMin", ["sides"], ["shorter"], keepdims=0),
        node("Reciprocal", ["shorter"], ["inverse"]),
        node("Mul", ["inverse", "side"], ["scale"]),
        node("Mul", ["sides", "scale"], ["resized"]),
        node("Floor", ["resized"], ["size"]),
        node("ReduceMax", ["image"], ["brightest"], keepdims=0),
        node("Cast", ["brightest"], ["zero"], to=onnx.TensorProto.DOUBLE),
        node("Add", ["size", "zero"], ["sum"]),
        node("Cast", ["sum"], ["output"], to=INT64),
    ]
    data = model(nodes, {"image": ["h", "w", 3]}, ("output", INT64, [2]), {"side": np.float64(64)})
    expected, found = both(data, {"image": np.zeros((61, 47, 3), np.float32)})
    assert found.tolist() == expected.tolist() == [83, 64]
    assert np.floor(np.float32(47) * (1 / np.float32(47) * np.float32(64))) == 63


def test_regions_without_area_are_pooled_as_in_onnxruntime():
    node = onnx.helper.make_node(
        "RoiAlign",
        ["map", "boxes", "images"],
        ["pooled"],
        output_height=7,
        output_width=7,
        sampling_ratio=2,
        spatial_scale=0.0625,
        coordinate_transformation_mode="output_half_pixel",
    )
    inputs = {"map": [1, 2, 8, 8], "boxes": [2, 4]}
    data = model([node], inputs, ("pooled", FLOAT, [2, 2, 7, 7]), {"images": np.zeros(2, np.int64)})
    level = np.random.default_rng(0).random((1, 2, 8, 8), np.float32)
    boxes = np.array([[40, 40, 40, 40], [16, 0, 80, 64]], np.float32)
    expected, found = both(data, {"map": level, "boxes": boxes})
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_precision_is_float32_unless_requested():
    data = model(
        [onnx.helper.make_node("MatMul", ["a", "b"], ["c"])],
        {"a": [64, 512]},
        ("c", FLOAT, [64, 64]),
        {"b": np.random.default_rng(1).random((512, 64), np.float32)},
    )
    a = np.random.default_rng(0).random((64, 512), np.float32)
    expected, found = both(data, {"a": a})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bad_settings_are_one_line(tmp_path, monkeypatch):
    cfg = load_cfg(None, pairs(TINY))
    net = build_net(cfg, num_pids=1)
    save_file({"model": net.state_dict(), "config": cfg.dump()}, tmp_path / "net.pth")
    checkpoint = Checkpoint.read(tmp_path / "net.pth")
    for value, expected in (
        ("tensorrt", "^RUNTIME: expected"),
        ("openvino", "^RUNTIME openvino: "),
    ):
        with pytest.raises(UserError, match=expected):
            checkpoint.network(
                load_cfg(None, pairs(TINY | {"RUNTIME": value})), torch.device("cpu")
            )
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"package openvino .*requirements-openvino\.txt") as error:
        OpenVinoSession(b"", None, "--ckpt net.onnx")
    assert "\n" not in str(error.value)
