"""Weights to hand on: what inference needs of a checkpoint, its config and thresholds inside.

    python -m tools.export_weights --ckpt runs/.../best.pth --out student.safetensors [--half]

Everything that takes a checkpoint takes the file, except --resume and, as a teacher, the terms CD
and RKD: optimizer, distillation terms and the table of identities stay behind.
"""

import argparse
from pathlib import Path

import torch

from engine.checkpoint import load_with_config
from engine.evaluation.records import thresholds_of
from engine.weights import SUFFIX, save_weights
from utils.errors import UserError, run_main
from utils.files import check_target


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", required=True, metavar="FILE", help="checkpoint of a run")
    parser.add_argument("--out", required=True, type=Path, metavar=f"FILE{SUFFIX}")
    parser.add_argument(
        "--half", action="store_true", help="numbers in half precision: a file half as large"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_target("--out", args.out, SUFFIX)
    if args.out.resolve() == Path(args.ckpt).resolve():
        raise UserError(f"--out {args.out}: is --ckpt; expected another file")
    net, cfg = load_with_config(args.ckpt, "--ckpt", torch.device("cpu"))
    thresholds = thresholds_of(args.ckpt)
    save_weights(net.state_dict(), cfg.dump(), thresholds, args.out, args.half)
    before, after = (Path(path).stat().st_size / 1e6 for path in (args.ckpt, args.out))
    inside = "config and thresholds" if thresholds else "config; no evaluation has found thresholds"
    print(f"{args.ckpt}: {before:.1f} MB\n{args.out}: {after:.1f} MB, with its {inside}")


if __name__ == "__main__":
    run_main(main)
