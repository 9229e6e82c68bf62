"""The stored record of a finished run: one small JSON file."""

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path

import torch

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from datasets import load_dataset
from engine.checkpoint import load_net
from engine.device import choose_device
from engine.evaluation.evaluate import evaluate
from engine.evaluation.records import evaluations_of
from tools.experiments.runs import ROOT, SCORES, SECONDS, Run, teachers_of, values_of
from tools.measure.machine import machine_name
from tools.measure.network import count_flops, count_parameters, make_net
from utils.files import file_digest, read_text, write_text
from utils.memory import keep_freed_memory


def config_hash(run: Run) -> str:
    """Return a hash of the config values on which the scores depend.

    Values equal to the defaults are left out, so that an option that is added later does not change
    the hash of runs that leave it at its default.
    """
    defaults = flatten(get_cfg())
    own = {key: value for key, value in values_of(run).items() if value != defaults[key]}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


@cache
def file_hash(path: str) -> str:
    """Return the first 12 digits of the SHA-256 of a checkpoint."""
    return file_digest(path, "checkpoint")[:12]


def commit() -> str:
    """Return the abbreviated commit of HEAD, with "+" if files other than docs/ have changed
    since."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    try:
        head = git("rev-parse", "--short", "HEAD")
    except OSError:  # git is not installed
        return "unknown"
    if head.returncode:  # no repository
        return "unknown"
    same = git("diff", "--quiet", "HEAD", "--", ":!docs").returncode == 0
    return head.stdout.strip() + ("" if same else "+")


@cache
def cost(path: str) -> dict[str, float]:
    """Return the parameters of a config's network, and the GFLOP of a detection pass of one
    image."""
    cfg = load_cfg(path)
    net = make_net(cfg, torch.device("cpu"))  # also seeds the random image
    flops = count_flops(net, torch.rand(3, cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE))
    return {"parameters": count_parameters(cfg), "gflop": round(flops / 1e9, 3)}


def checkpoint_of(run: Run) -> str:
    """Return the path of the checkpoint of the last epoch."""
    return str(run.folder / f"epoch_{run.cfg.SOLVER.MAX_EPOCHS - 1:02}.pth")


def given_boxes(run: Run) -> float:
    """Return the mAP in per cent with ground-truth boxes, which measures re-id without
    detection."""
    values = ["EVAL_USE_GT", "True", "OUTPUT_DIR", str(run.folder / "given_boxes")]
    cfg = load_cfg(run.cfg_path, [*run.overrides, *values])
    device = choose_device(cfg.DEVICE)
    keep_freed_memory(device.type)
    net = load_net(cfg, checkpoint_of(run), device)
    results = evaluate(net, load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT), cfg, device)
    return 100 * results["search"]["mAP"]


def map_by_epoch(run: Run) -> dict[int, float]:
    """Return the mAP in per cent of every evaluated epoch."""
    past = evaluations_of(run.folder)
    return {one["epoch"]: round(100 * one["search/mAP"], 2) for one in past}


def make_record(run: Run, scores: dict) -> dict:
    """Return the record of a finished run with these scores."""
    found = json.loads(read_text(run.folder / "results.json", "results"))
    teacher = "+".join(file_hash(path) for _, path in teachers_of(run.cfg)) or None
    return {
        "seed": run.seed,
        "config": config_hash(run),
        "teacher": teacher,
        "commit": commit(),
        "machine": machine_name(choose_device(run.cfg.DEVICE)),
        "torch": torch.__version__,
        "seconds": round(scores[SECONDS]),
        **cost(run.cfg_path),
        "scores": {name: round(scores[name], 3) for name in SCORES},
        "mAP of given boxes": round(given_boxes(run), 3),
        "mAP by epoch": map_by_epoch(run),
        "detection_errors": {k: round(v, 5) for k, v in found["detection_errors"].items()},
        "query_ap": [round(query["ap"], 4) for query in found["queries"]],
    }


def write_record(path: Path, content: dict) -> None:
    """Write a dict as JSON with one line per key."""
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(v)}" for key, v in content.items())
    write_text(f"{{\n{lines}\n}}\n", path)
