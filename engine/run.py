"""The common program of train_base.py and train_ddps.py, which differ only in the model they
build."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.base import SearchDataset
from engine.checkpoint import RUNTIMES, Checkpoint, load_initial_weights, load_teacher
from engine.device import choose_device
from engine.distributed import from_first, own_device, patience, process_group, rank, ranks
from engine.evaluation.evaluate import check_settings, evaluate
from engine.evaluation.records import evaluated_epoch
from engine.training.folder import CheckpointFolder
from engine.training.generators import seed_everything
from engine.training.lock import sole_run
from engine.training.train import Trainer, check_values
from models.build import init_from_teacher
from models.search_net import SearchNet
from utils.arguments import add_overrides, nonempty
from utils.errors import UserError
from utils.memory import keep_freed_memory
from utils.signals import Signals, Stopped

# (config, dataset, device) -> the model, whose forward pass returns losses, and the network in it,
# which is evaluated and saved
Build = Callable[[CfgNode, SearchDataset, torch.device], tuple[nn.Module, SearchNet]]


def parse_args(description: str) -> argparse.Namespace:
    """Parse the command line.

    Args:
        description: the text of --help.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="YAML config")
    parser.add_argument("--eval", action="store_true", help="evaluate --ckpt instead of training")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from --ckpt, or from the newest checkpoint in OUTPUT_DIR",
    )
    parser.add_argument(
        "--ckpt", type=nonempty, metavar="FILE", help="checkpoint to evaluate or to resume from"
    )
    add_overrides(parser, "config values, for example SOLVER.BASE_LR 0.01")
    return parser.parse_intermixed_args()


def run(description: str, build: Build) -> None:
    """Train, resume or evaluate, on all ranks that torchrun has started."""
    args = parse_args(description)
    signals = Signals(patience())
    with signals.install():
        try:
            with process_group(), stopping(signals):
                work(args, build, signals)
        except Stopped as stopped:
            if int(os.environ.get("RANK", 0)) == 0:
                print(stopped, file=sys.stderr)
            raise


@contextmanager
def stopping(signals: Signals) -> Iterator[None]:
    """Convert the error of a lost rank to Stopped if a signal was received."""
    try:
        yield
    except RuntimeError:
        if signals.number and ranks() > 1:
            raise Stopped(signals.number) from None
        raise


def build_from(
    cfg: CfgNode, build: Build, dataset: SearchDataset, device: torch.device, continues: bool
) -> tuple[nn.Module, SearchNet]:
    """Build the model and the network of a run, with their initial weights.

    If MODEL.WEIGHTS is given, it contains the backbone, so BACKBONE.WEIGHTS is not read.

    Args:
        continues: whether the run continues from a checkpoint. The initial weights are then not
            read again, since their files may be missing.

    Raises:
        UserError: if the config contradicts itself, or a file cannot be used.
    """
    check_values(cfg, device)  # first, since a cached teacher may be computed for hours
    start = cfg.clone()
    start.defrost()
    if continues:
        start.MODEL.WEIGHTS = start.BACKBONE.WEIGHTS = ""
    elif cfg.MODEL.WEIGHTS:
        start.BACKBONE.WEIGHTS = ""
    model, net = build(start, dataset, device)
    if start.MODEL.WEIGHTS:
        load_initial_weights(net, start)
    if cfg.DISTILLER.INIT_STUDENT and not continues:
        teacher, _ = load_teacher(cfg.DISTILLER.TEACHER_CKPT, device)
        copied = init_from_teacher(net, teacher)
        print(f"network initialised with {len(copied)} teacher tensors: {', '.join(copied)}")
    return model, net


def work(args: argparse.Namespace, build: Build, signals: Signals) -> None:
    """Train, resume or evaluate, as the arguments say.

    Raises:
        UserError: if arguments contradict each other, or a file or value cannot be used.
    """
    cfg = load_cfg(args.cfg, args.overrides)
    if args.eval and args.resume:
        raise UserError("--eval and --resume: expected one of them")
    if args.ckpt and not (args.eval or args.resume):
        raise UserError(f"--ckpt {args.ckpt}: expected --eval or --resume with it")
    if args.eval and not args.ckpt and not cfg.EVAL_USE_CACHE:
        raise UserError("--eval: expected --ckpt FILE, or EVAL_USE_CACHE True")
    if cfg.EVAL_USE_CACHE and not args.eval:
        raise UserError("EVAL_USE_CACHE True: expected --eval, found training")
    if RUNTIMES[0] != cfg.RUNTIME and not args.eval:
        raise UserError(f"RUNTIME {cfg.RUNTIME}: expected --eval, found training")
    device = own_device(choose_device(cfg.DEVICE))
    keep_freed_memory(device.type)
    net = epoch = weights = None
    if args.eval and args.ckpt:
        checkpoint = Checkpoint.read(args.ckpt)
        epoch, weights = evaluated_epoch(checkpoint, cfg.OUTPUT_DIR), checkpoint.digest
        net = None if cfg.EVAL_USE_CACHE else checkpoint.network(cfg, device)
        del checkpoint  # the network has its own copy of the weights
    extra = () if args.eval else cfg.INPUT.EXTRA_TRAIN
    dataset = load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT, extra)
    for reason, count in dataset.dropped.items():
        print(f"{reason}: {count}")
    if args.eval:
        with sole_run(Path(cfg.OUTPUT_DIR)):
            evaluate(net, dataset, cfg, device, epoch, weights)
        return
    check_settings(dataset, cfg)
    dataset.check_training()
    seed_everything(cfg.SEED)
    with sole_run(Path(cfg.OUTPUT_DIR)):
        folder = CheckpointFolder(Path(cfg.OUTPUT_DIR), cfg.SOLVER.CKPT_KEEP)
        from_first(lambda: folder.check_unused(args.resume, args.ckpt))  # before hours of computing
        continues = args.resume and from_first(lambda: bool(args.ckpt or folder.newest_first()))
        model, net = build_from(cfg, build, dataset, device, continues)
        if rank():  # models start equal; each rank then draws regions of its own images
            seed_everything(cfg.SEED + rank())
        Trainer(cfg, model, net, dataset, device, signals).run(args.resume, args.ckpt)
