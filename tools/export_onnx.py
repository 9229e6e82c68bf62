"""A network as one ONNX file that needs no code of this project: from an image of any size, and
boxes in it, to everyone's boxes, scores and embeddings, and those boxes' embeddings.

    python -m tools.export_onnx --cfg F --ckpt F --out student.onnx [--int8 student_int8.onnx]

Inputs: image, uint8 [height, width, 3], RGB; query_boxes, float32 [queries, 4], x1 y1 x2 y2 in its
pixels, none or many. Outputs: boxes, float32 [people, 4] in the same pixels, best first; scores
[people]; embeddings [people, D] and query_embeddings [queries, D], all of length 1. A person's
similarity to a query is their inner product times the person's score. Operators: ONNX's own, opset
18. The metadata hold this text, the config and, where an evaluation has found them, thresholds.

torch.onnx.export (the one over torch.export) makes the graph from models/onnx_graph.py; it cannot
take torchvision's detection itself, which branches on numbers of boxes. What was written is run in
onnxruntime beside PyTorch on three pictures of three sizes, and must find the same people, boxes
within 0.05 pixels, embeddings within 0.001.
"""

import argparse
import json
import re
import warnings
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from configs.defaults import load_cfg
from datasets.loaders import read_image
from engine.checkpoint import load_net, load_search_net
from engine.evaluation.records import thresholds_of
from engine.onnx_net import INPUTS, OUTPUTS, REQUIREMENTS, SUFFIX
from models.network import Network
from models.onnx_graph import SearchGraph
from models.search_net import SearchNet
from utils.errors import UserError, run_main
from utils.files import make_folder, written_beside
from utils.optional import optional

CPU = torch.device("cpu")
OPSET = 18
DEMO = Path(__file__).parents[1] / "demo_imgs"
PICTURES = [DEMO / "hall_1.jpg", DEMO / "street.jpg", DEMO / "plaza.jpg"]
PIXELS, NUMBERS = 0.05, 1e-3  # how far boxes and embeddings may be from PyTorch's


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    """The network's graph as an onnx.ModelProto with `notes` as its metadata."""
    side = 2 * net.transform.size_divisible
    image = torch.zeros(side, side + 16, 3, dtype=torch.uint8)  # any: sizes stay symbols
    boxes = torch.tensor([[0.0, 0, 9, 9], [9, 9, 19, 39]])
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries of each other
        program = torch.onnx.export(
            SearchGraph(net).eval(),
            (image, boxes),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: free, 1: free}, {0: free}),
            verbose=False,
        )
    model = program.model_proto
    _tidy(model.graph)
    model.producer_name, model.doc_string = "DDPS", __doc__
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return model


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
        quantization.quantize_dynamic(
            model, part, op_types_to_quantize=["Gemm", "MatMul"], per_channel=True
        )
        with written_beside(path) as file:
            file.write(part.read_bytes())


@dataclass(frozen=True)
class Difference:
    """How far two networks are apart on one picture: people that each finds, and the largest
    differences: of boxes (pixels), scores and embeddings between one's people and the nearest of
    the other, and of the query boxes' embeddings."""

    plain: int
    other: int
    boxes: float
    scores: float
    embeddings: float
    queries: float

    @property
    def same(self) -> bool:
        return (
            self.plain == self.other
            and self.boxes <= PIXELS
            and max(self.embeddings, self.queries) <= NUMBERS
        )


def compare(plain: Network, other: Network, image: Tensor) -> Difference:
    """Of one image [3, H, W], with three boxes in it: a person's place, all of it, one pixel."""
    height, width = image.shape[1:]
    places = [[0.2, 0.2, 0.4, 0.9], [0, 0, 1, 1], [0.5, 0.5, 0.5 + 1 / width, 0.5 + 1 / height]]
    boxes = torch.tensor(places) * torch.tensor([width, height, width, height])
    ((ours,), (query,)), ((theirs,), (other_query,)) = (
        net.detect_and_embed([image], [boxes]) for net in (plain, other)
    )
    counts, queries = (len(ours.boxes), len(theirs.boxes)), _largest(query - other_query)
    if not min(counts):
        return Difference(*counts, 0.0, 0.0, 0.0, queries)
    nearest = theirs[torch.cdist(ours.boxes, theirs.boxes, p=torch.inf).argmin(dim=1)]
    return Difference(
        *counts,
        _largest(ours.boxes - nearest.boxes),
        _largest(ours.scores - nearest.scores),
        _largest(ours.embeddings - nearest.embeddings),
        queries,
    )


def _largest(difference: Tensor) -> float:
    return difference.abs().max().item()


def check(net: SearchNet, cfg: CfgNode, path: Path, images: dict[str, Tensor]) -> bool:
    """Print how the file's network differs from `net` on each image; whether it is the same."""
    other = load_net(cfg, path, CPU)
    found = [compare(net, other, image) for image in images.values()]
    rows = [
        [f"{name} {image.shape[2]}×{image.shape[1]}", *astuple(one)]
        for (name, image), one in zip(images.items(), found)
    ]
    head = ["people", "in ONNX", "boxes, px", "scores", "embeddings", "of queries"]
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; largest differences from PyTorch")
    print(tabulate(rows, ["", *head], floatfmt=".1e"))
    return all(one.same for one in found)


def pictures(paths: list[Path]) -> dict[str, Tensor]:
    """Three of three sizes, whatever there is: as it is, upright, and small with odd sides."""
    images = {path.name: read_image(str(path)) for path in paths}
    if paths is not PICTURES:
        return images
    (first, as_is), (second, turned), (third, small) = images.items()
    small = F.interpolate(small[None], (203, 331), mode="bilinear", antialias=True)[0]
    small = small.mul(255).round() / 255  # the file takes whole numbers of 255
    return {first: as_is, second: turned.transpose(1, 2), third: small}


def main() -> None:
    args = parse_args()
    for package in ("onnx", "onnxscript", "onnxruntime"):
        optional(package, f"--out {args.out}", REQUIREMENTS)
    for option, path in (("--out", args.out), ("--int8", args.int8)):
        if path is not None and path.suffix != SUFFIX:
            raise UserError(f"{option} {path}: expected a name that ends in {SUFFIX}")
        if path is not None:
            make_folder(path.parent, option)
    cfg = load_cfg(args.cfg, args.overrides)
    images = pictures(args.check)
    net = load_search_net(cfg, args.ckpt, CPU)
    notes = {"config": cfg.dump(), "usage": __doc__}
    if thresholds := thresholds_of(args.ckpt):
        notes["thresholds"] = json.dumps(thresholds)
    model = to_onnx(net, notes)
    with written_beside(args.out) as file:
        file.write(model.SerializeToString())
    if not check(net, cfg, args.out, images):
        raise UserError(
            f"{args.out}: written, but not the same network: expected the same people, boxes "
            f"within {PIXELS} pixels and embeddings within {NUMBERS}"
        )
    if args.int8 is not None:
        quantize(model, args.int8)
        check(net, cfg, args.int8, images)


if __name__ == "__main__":
    run_main(main)
