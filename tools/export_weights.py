"""Write inference-only weights: one .safetensors file with weights, config and thresholds.

    python -m tools.export_weights --ckpt runs/.../best.pth --out student.safetensors [--half]
        [--evaluated FOLDER]

Every option that takes a checkpoint also takes this file, with two exceptions: --resume, and a
teacher for the terms cd and rkd. The file does not contain the optimizer, the distillation terms
and the OIM table of identities.

The input size in the file is that of the training, and the thresholds are those of the run's last
evaluation. --evaluated FOLDER, the OUTPUT_DIR of an evaluation at another size or on other images,
writes that evaluation's input size and thresholds instead.
"""

import argparse
from pathlib import Path

import torch
from yacs.config import CfgNode

from engine.checkpoint import Checkpoint
from engine.evaluation.cache import CACHE
from engine.evaluation.records import last_thresholds, thresholds_of
from engine.metadata import Thresholds
from engine.weights import SUFFIX, save_weights
from utils.arguments import nonempty_path, program_parser
from utils.errors import UserError, run_main
from utils.files import check_target, load_file


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--ckpt", required=True, metavar="FILE", help="checkpoint of a training run"
    )
    parser.add_argument(
        "--out", required=True, type=nonempty_path, metavar=f"FILE{SUFFIX}", help="file to write"
    )
    parser.add_argument(
        "--half", action="store_true", help="store float16 values: the file is half as large"
    )
    parser.add_argument(
        "--evaluated",
        type=nonempty_path,
        metavar="FOLDER",
        help="OUTPUT_DIR of an evaluation of these weights: write its input size and thresholds",
    )
    return parser.parse_args()


def evaluated_at(checkpoint: Checkpoint, folder: Path) -> tuple[CfgNode, Thresholds | None]:
    """Return the checkpoint's config with the input size of an evaluation, and its thresholds.

    Raises:
        UserError: if the folder has no evaluation, or one of other weights.
    """
    made = load_file(folder / CACHE, "--evaluated").get("made", {})
    if made.get("weights") != checkpoint.digest:
        raise UserError(
            f"--evaluated {folder}: expected an evaluation of {checkpoint.path}; found "
            "one of other weights"
        )
    cfg = checkpoint.cfg.clone()
    for key in ("MIN_SIZE", "MAX_SIZE"):
        cfg.INPUT[key] = made[f"INPUT.{key}"]
    return cfg, last_thresholds(folder)


def main() -> None:
    args = parse_args()
    check_target("--out", args.out, SUFFIX)
    if args.out.resolve() == Path(args.ckpt).resolve():
        raise UserError(f"--out {args.out}: expected another file than --ckpt")
    checkpoint = Checkpoint.read(args.ckpt)
    net = checkpoint.own_net(torch.device("cpu"))
    if args.evaluated:
        cfg, thresholds = evaluated_at(checkpoint, args.evaluated)
    else:
        cfg, thresholds = checkpoint.cfg, thresholds_of(checkpoint)
    save_weights(net.state_dict(), cfg.dump(), thresholds, args.out, args.half)
    before, after = (Path(path).stat().st_size / 1e6 for path in (args.ckpt, args.out))
    inside = "config and thresholds" if thresholds else "config; the run has no thresholds yet"
    print(f"{args.ckpt}: {before:.1f} MB\n{args.out}: {after:.1f} MB, with {inside}")


if __name__ == "__main__":
    run_main(main)
