"""A network as one ONNX file that needs no code of this project: from an image of any size, and
boxes in it, to everyone's boxes, scores and embeddings, and those boxes' embeddings.

    python -m tools.export_onnx --cfg F --ckpt F --out student.onnx [--int8 student_int8.onnx]

Operators are ONNX's own, opset 18. The file's metadata hold this text ("usage"), the config and,
where an evaluation has found them, thresholds.

torch.onnx.export (the one over torch.export) makes the graph from models/onnx_graph.py; it cannot
take torchvision's detection itself, which branches on numbers of boxes. What was written is run in
onnxruntime beside PyTorch on three pictures of three sizes, and must find the same people, boxes
within 0.05 pixels, embeddings within 0.001.
"""

import argparse
import json
import logging
import re
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from configs.defaults import load_cfg
from engine.checkpoint import load_net, load_search_net
from engine.evaluation.records import thresholds_of
from engine.onnx_net import INPUTS, OUTPUTS, REQUIREMENTS, SUFFIX
from models.onnx_graph import SearchGraph
from models.search_net import SearchNet
from tools.export.parity import NUMBERS, PICTURES, PIXELS, check, pictures
from utils.errors import UserError, run_main
from utils.files import check_target, written_beside
from utils.optional import optional

ENDS = [f"  {name}: {text}" for name, text in (INPUTS | OUTPUTS).items()]
USAGE = "\n".join([__doc__, "Inputs and outputs:", *ENDS])
CPU = torch.device("cpu")
OPSET = 18
TESTED = "2.14"  # of torch, whose exporter changes with every version


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of that config")
    parser.add_argument("--out", required=True, type=Path, metavar=f"FILE{SUFFIX}")
    parser.add_argument(
        "--int8",
        type=Path,
        metavar=f"FILE{SUFFIX}",
        help="also write it with the fully connected layers' weights in 8 bits (dynamic "
        "quantisation), which is not held to PyTorch's numbers",
    )
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        default=PICTURES,
        metavar="IMAGE",
        help="pictures to compare on, best with people (default: three of demo_imgs)",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config values")
    return parser.parse_intermixed_args()


def to_onnx(net: SearchNet, notes: dict[str, str]) -> Any:
    """The network's graph as an onnx.ModelProto with `notes` as its metadata. UserError where
    PyTorch is too old for it."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries of each other
            model = _graph(SearchGraph(net).eval(), net.transform.size_divisible).model_proto
    except Exception as error:  # an older exporter fails in many ways
        if torch.__version__ >= TESTED:
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"torch {torch.__version__}: cannot export the network, expected {TESTED} or newer "
            f"({reason})"
        ) from None
    _tidy(model.graph)
    model.producer_name, model.doc_string = "DDPS", USAGE
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _graph(graph: SearchGraph, side: int) -> Any:
    image = torch.zeros(side, 2 * side, 3, dtype=torch.uint8)  # any: sizes stay symbols
    boxes = torch.tensor([[0.0, 0, 9, 9], [9, 9, 19, 39]])
    free = torch.export.Dim.DYNAMIC
    return torch.onnx.export(
        graph,
        (image, boxes),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: free, 1: free}, {0: free}),
        verbose=False,
    )


def _tidy(graph: Any) -> None:
    """Sizes get names; what the exporter remembers of our code and its place goes."""
    for value in (*graph.input, *graph.output):
        names = re.findall(r"\w+", (INPUTS | OUTPUTS)[value.name].split("]")[0])[1:]
        for side, name in zip(value.type.tensor_type.shape.dim, names):
            if side.dim_param:
                side.dim_param = name
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


def quantize(model: Any, path: Path) -> None:
    """Write the model with its fully connected layers' weights in int8, their inputs quantised as
    they come."""
    quantization = optional("onnxruntime.quantization", f"--int8 {path}", REQUIREMENTS)
    with TemporaryDirectory() as folder:  # it writes where it likes
        part = Path(folder) / path.name
        logging.disable(logging.WARNING)  # advice on convolutions, which stay as they are
        try:
            quantization.quantize_dynamic(
                model, part, op_types_to_quantize=["Gemm", "MatMul"], per_channel=True
            )
        finally:
            logging.disable(logging.NOTSET)
        with written_beside(path) as file:
            file.write(part.read_bytes())


def main() -> None:
    args = parse_args()
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package, f"--out {args.out}", REQUIREMENTS)
    for option, path in (("--out", args.out), ("--int8", args.int8)):
        if path is not None:
            check_target(option, path, SUFFIX)
    if args.int8 is not None and args.int8.resolve() == args.out.resolve():
        raise UserError(f"--int8 {args.int8}: is --out; expected another file")
    cfg = load_cfg(args.cfg, args.overrides)
    images = pictures(args.check)
    net = load_search_net(cfg, args.ckpt, CPU)
    notes = {"config": cfg.dump(), "usage": USAGE}
    if thresholds := thresholds_of(args.ckpt):
        notes["thresholds"] = json.dumps(thresholds)
    model = to_onnx(net, notes)
    with written_beside(args.out) as file:
        file.write(model.SerializeToString())
    if not check(net, load_net(cfg, args.out, CPU), args.out, images):
        raise UserError(
            f"{args.out}: written, but not the same network: expected the same people, boxes "
            f"within {PIXELS} pixels and embeddings within {NUMBERS}"
        )
    if args.int8 is not None:
        quantize(model, args.int8)
        check(net, load_net(cfg, args.int8, CPU), args.int8, images)


if __name__ == "__main__":
    run_main(main)
