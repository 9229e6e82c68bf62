"""Export a network as one ONNX file, which can be run without the code of this project.

    python -m tools.export_onnx --cfg F --ckpt F --out student.onnx [--int8 student_int8.onnx]

The graph takes an image of any size and boxes in it. It returns the boxes, scores and embeddings of
all detections, and the embeddings of the given boxes. All operators are standard ONNX, opset 18.
The metadata of the file contain this text ("usage"), the config and, if an evaluation has set them,
the thresholds.

torch.onnx.export (based on torch.export) exports models/onnx_graph.py. It cannot export the
detection code of torchvision, which branches on numbers of boxes. The program then runs the file
in onnxruntime on three pictures of three sizes and compares it with PyTorch. It expects the same
detections, with boxes within 0.05 pixels and embeddings within 0.001.
"""

import argparse
import json
import re
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint, check_default_precision, load_net
from engine.evaluation.records import thresholds_of
from engine.onnx_net import (
    CHECKSUM,
    INPUTS,
    NO_CHECKSUM,
    OUTPUTS,
    REQUIREMENTS,
    SUFFIX,
    stamped,
)
from models.onnx_graph import SearchGraph
from models.search_net import SearchNet
from models.timm_networks import is_of_timm
from tools.export.parity import NUMBERS, PICTURES, PIXELS, check, pictures
from utils.arguments import add_overrides, nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import check_target, written_beside
from utils.logs import quiet_logs
from utils.optional import optional

ENDS = [f"  {name}: {text}" for name, text in (INPUTS | OUTPUTS).items()]
USAGE = "\n".join([__doc__ or "", "Inputs and outputs:", *ENDS])
CPU = torch.device("cpu")
OPSET = 18
TESTED = "2.14"  # version of torch; its exporter changes with every version


def parse_args() -> argparse.Namespace:
    parser = program_parser(USAGE)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of that config")
    parser.add_argument(
        "--out", required=True, type=nonempty_path, metavar=f"FILE{SUFFIX}", help="file to write"
    )
    parser.add_argument(
        "--int8",
        type=nonempty_path,
        metavar=f"FILE{SUFFIX}",
        help="also write a file whose fully connected layers have 8-bit weights (dynamic "
        "quantization); its differences from PyTorch are printed but not limited",
    )
    parser.add_argument(
        "--check",
        type=nonempty_path,
        nargs="+",
        default=PICTURES,
        metavar="IMAGE",
        help="pictures for the comparison, with people in them (default: three of demo_imgs)",
    )
    add_overrides(parser)
    return parser.parse_intermixed_args()


def to_onnx(net: SearchNet, notes: dict[str, str]) -> Any:
    """Export the network as an onnx.ModelProto with the metadata `notes`.

    Raises:
        UserError: if the export fails for a backbone of timm, or with a PyTorch older than TESTED.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries about one another
            model = _graph(SearchGraph(net).eval(), net.transform.size_divisible).model_proto
    except Exception as error:  # older exporters raise many kinds of errors
        of_timm = is_of_timm(net.backbone.body)
        if torch.__version__ >= TESTED and not of_timm:
            raise
        expected = "another backbone than this one of timm" if of_timm else f"{TESTED} or newer"
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"torch {torch.__version__}: cannot export this network; expected {expected} ({reason})"
        ) from None
    _tidy(model.graph)
    model.producer_name, model.doc_string = "DDPS", USAGE
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _graph(graph: SearchGraph, side: int) -> Any:
    """Run the exporter on an example.

    Args:
        side: a valid image side in pixels.
    """
    image = torch.zeros(side, 2 * side, 3, dtype=torch.uint8)  # an example: sizes stay symbolic
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
    """Name the symbolic sizes, and remove what the exporter has stored about this code and its
    path."""
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
    """Write the model with int8 weights in its fully connected layers (dynamic quantization)."""
    quantization = optional("onnxruntime.quantization", f"--int8 {path}", REQUIREMENTS)
    with TemporaryDirectory() as folder:  # the function does not write atomically
        part = Path(folder) / path.name
        with quiet_logs():  # advice on convolutions, which are not quantized
            quantization.quantize_dynamic(
                model, part, op_types_to_quantize=["Gemm", "MatMul"], per_channel=True
            )
        with written_beside(path) as file:
            file.write(stamped(part.read_bytes()))


def main() -> None:
    args = parse_args()
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package, f"--out {args.out}", REQUIREMENTS)
    for option, path in (("--out", args.out), ("--int8", args.int8)):
        if path is not None:
            check_target(option, path, SUFFIX)
    if args.int8 is not None and args.int8.resolve() == args.out.resolve():
        raise UserError(f"--int8 {args.int8}: expected another file than --out")
    cfg = load_cfg(args.cfg, args.overrides)
    check_default_precision(cfg, f"--out {args.out}")
    images = pictures(args.check)
    checkpoint = Checkpoint.read(args.ckpt)
    net = checkpoint.search_net(cfg, CPU)
    notes = {"config": cfg.dump(), "usage": USAGE, CHECKSUM: NO_CHECKSUM}
    if thresholds := thresholds_of(checkpoint):
        notes["thresholds"] = json.dumps(thresholds)
    model = to_onnx(net, notes)
    with written_beside(args.out) as file:
        file.write(stamped(model.SerializeToString()))
    if not check(net, load_net(cfg, args.out, CPU), args.out, images):
        raise UserError(
            f"{args.out}: written, but it differs from PyTorch: expected the same detections, "
            f"boxes within {PIXELS} pixels and embeddings within {NUMBERS}"
        )
    if args.int8 is not None:
        quantize(model, args.int8)
        check(net, load_net(cfg, args.int8, CPU), args.int8, images)


if __name__ == "__main__":
    run_main(main)
