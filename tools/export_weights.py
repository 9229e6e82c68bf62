"""Write inference-only weights: one .safetensors file with weights, config and thresholds.

    python -m tools.export_weights --ckpt runs/.../best.pth --out student.safetensors [--half]

Every option that takes a checkpoint also takes this file, with two exceptions: --resume, and a
teacher for the terms cd and rkd. The file does not contain the optimizer, the distillation terms
and the OIM table of identities.
"""

import argparse
from pathlib import Path

import torch

from engine.checkpoint import Checkpoint
from engine.evaluation.records import thresholds_of
from engine.weights import SUFFIX, save_weights
from utils.arguments import program_parser
from utils.errors import UserError, run_main
from utils.files import check_target


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--ckpt", required=True, metavar="FILE", help="checkpoint of a training run"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar=f"FILE{SUFFIX}", help="file to write"
    )
    parser.add_argument(
        "--half", action="store_true", help="store float16 values: the file is half as large"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_target("--out", args.out, SUFFIX)
    if args.out.resolve() == Path(args.ckpt).resolve():
        raise UserError(f"--out {args.out}: expected another file than --ckpt")
    checkpoint = Checkpoint.read(args.ckpt)
    net, thresholds = checkpoint.own_net(torch.device("cpu")), thresholds_of(checkpoint)
    save_weights(net.state_dict(), checkpoint.cfg.dump(), thresholds, args.out, args.half)
    before, after = (Path(path).stat().st_size / 1e6 for path in (args.ckpt, args.out))
    inside = "config and thresholds" if thresholds else "config; the run has no thresholds yet"
    print(f"{args.ckpt}: {before:.1f} MB\n{args.out}: {after:.1f} MB, with {inside}")


if __name__ == "__main__":
    run_main(main)
