"""Train one student by several methods under one teacher; compare them in a table and a plot.

python -m tools.compare --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
    --methods none dfd ld cd ddps pkd+ld+cd --seeds 1 2 3 SOLVER.MAX_EPOCHS 10

A method is none (the student alone, by the same config), a term, several joined by +, or one of
ddps, fgd, dkd, cd_contrastive. Each run has a folder OUTPUT_DIR/<terms>_seed<k>; the same command
again goes on where it was stopped. Writes OUTPUT_DIR/comparison.{md,csv,json,png}.
"""

import argparse
import json
import logging
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from yacs.config import CfgNode

from configs.defaults import load_cfg
from configs.ranges import flatten
from models.distill import known_terms
from tools.comparison import ALONE, GAINS, SECONDS, write
from tools.summarize import SCORES, count_parameters
from utils.errors import UserError, run_main

ROOT = Path(__file__).resolve().parents[1]
# Method -> its terms, and config values of its own.
METHODS = {term: ([term], []) for term in known_terms()} | {
    ALONE: ([], []),
    "ddps": (["dfd", "ld", "cd"], []),
    "fgd": (["dfd"], []),
    "dkd": (["ld"], []),
    "cd_contrastive": (["cd"], ["DISTILLER.CD.FORM", "contrastive"]),
}
# A run may go on under other values of these: no score depends on them.
FREE_KEYS = ("DEVICE", "INPUT.NUM_WORKERS", "SOLVER.CKPT_")


@dataclass(frozen=True)
class Run:
    """One student under `terms`; overrides: what makes its config of the given one."""

    name: str
    terms: list[str]
    seed: int
    overrides: list[str]
    cfg: CfgNode

    @property
    def folder(self) -> Path:
        return Path(self.cfg.OUTPUT_DIR)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


def make_run(path: str, overrides: list[str], method: str, seed: int) -> Run:
    """UserError for an unknown method, a missing teacher, or a folder with another run."""
    parts = method.split("+")
    if unknown := [part for part in parts if part not in METHODS]:
        raise UserError(
            f"--methods {method}: expected {', '.join(METHODS)}, or several joined "
            f"by +; found {unknown[0]}"
        )
    terms = [term for part in parts for term in METHODS[part][0]]
    options = [option for part in parts for option in METHODS[part][1]]
    name = "_".join(["+".join(terms) or ALONE, *options[1::2]])  # fgd is dfd: one run for both
    folder = Path(load_cfg(path, overrides).OUTPUT_DIR) / f"{name}_seed{seed}"
    overrides = [
        *overrides,
        *options,
        "DISTILLER.TERMS",
        str(terms),
        "SEED",
        str(seed),
        "OUTPUT_DIR",
        str(folder),
    ]
    run = Run(name, terms, seed, overrides, load_cfg(path, overrides))
    teacher = run.cfg.DISTILLER.TEACHER_CKPT
    if terms and not Path(teacher).is_file():
        raise UserError(
            f"DISTILLER.TEACHER_CKPT {teacher or 'is empty'}: expected the checkpoint "
            "of a trained teacher"
        )
    check_same_run(run)
    return run


def check_same_run(run: Run) -> None:
    """UserError where the folder holds a run that was trained with other values."""
    path = run.folder / "config.yaml"
    if not path.is_file():
        return
    ours, theirs = flatten(run.cfg), flatten(load_cfg(str(path)))
    others = tuple(f"DISTILLER.{t.upper()}." for t in known_terms() if t not in run.terms)
    unread = FREE_KEYS + (others if run.terms else ("DISTILLER.",))
    for key, value in ours.items():
        if value != theirs[key] and not key.startswith(unread):
            raise UserError(
                f"{run.folder}: holds a run with {key} {theirs[key]}, asked for "
                f"{value}; expected another OUTPUT_DIR"
            )


def read_scores(run: Run) -> dict[str, float] | None:
    """Scores of the last epoch, seed and training seconds; None for an unfinished run."""
    path = run.folder / "evaluations.jsonl"
    if not path.is_file():
        return None
    try:
        last = json.loads(path.read_bytes().splitlines()[-1])
        if last["epoch"] != run.cfg.SOLVER.MAX_EPOCHS:
            return None
        scores = {column: 100 * last[name] for column, name in SCORES.items()}
        return scores | {"seed": run.seed, SECONDS: training_seconds(run.folder)}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: expected the evaluations of a training ({error!r})") from None


def training_seconds(folder: Path) -> float:
    """Of the steps that made the model, without evaluations: the parts of a resumed run add up,
    steps that a crash lost and that were taken again count once."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return sum(event.value for event in events.Scalars("train/seconds_per_step"))


def run_logged(command: list[str], log_path: Path) -> tuple[int, list[str]]:
    """Run a command, its output appended to a log; exit code and the lines of output. Ctrl-C and
    SIGTERM are passed on; once the command has ended, this program leaves with 128 + signal."""
    received = []
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "ab+") as log:
        start = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def pass_on(number: int, _) -> None:
            received.append(number)
            process.send_signal(number)

        previous = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
        code = process.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
        log.seek(start)
        output = log.read().decode(errors="replace").replace("\r", "\n")
    if received:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + received[0])
    return code, [line for line in output.splitlines() if line.strip()]


def train(cfg_path: str, run: Run) -> str | None:
    """Train or resume a run; None, or why it failed in one line."""
    program = ROOT / ("train_ddps.py" if run.terms else "train_base.py")
    command = [sys.executable, str(program), "--cfg", cfg_path, "--resume", *run.overrides]
    code, lines = run_logged(command, run.log)
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    errors = [line for line in lines if line.startswith("error: ")] or lines or ["no output"]
    return errors[-1].removeprefix("error: ")


def finish(cfg_path: str, run: Run, title: str) -> tuple[dict | None, str | None]:
    """A run's scores, training it where that is still to do; or None and why it failed."""
    found, state, reason = read_scores(run), "was finished", None
    if found is None:
        print(f"{title}: training, log in {run.log}", flush=True)
        state, reason = "finished", train(cfg_path, run)
        found = read_scores(run)
    if found:
        state += ": " + ", ".join(f"{name} {found[name]:.2f}" for name in GAINS)
    print(f"{title}: {state if found else f'failed: {reason}'}", flush=True)
    return found, reason


def compare(cfg_path: str, methods: dict[str, list[Run]], out: Path) -> int:
    """Finish every run, with the table written after each; the exit code."""
    runs = {run.folder: run for group in methods.values() for run in group}
    parameters = count_parameters(next(iter(runs.values())).cfg)
    done, failed, table = {}, [], ""
    for number, (folder, run) in enumerate(runs.items(), start=1):
        title = f"[{number}/{len(runs)}] {folder.name}"
        try:
            found, reason = finish(cfg_path, run, title)
        except UserError as error:  # of what an earlier training left behind
            found, reason = None, str(error)
            print(f"{title}: failed: {reason}", flush=True)
        if found:
            done[folder] = found
        else:
            failed.append(
                {"method": run.name, "seed": run.seed, "reason": reason, "log": str(run.log)}
            )
        scores = {
            method: [done[run.folder] for run in group if run.folder in done]
            for method, group in methods.items()
        }
        table = write(out, {m: found for m, found in scores.items() if found}, failed, parameters)
    print(f"\n{table}\nwrote {out}/comparison.md, .csv, .json and .png")
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cfg",
        required=True,
        metavar="FILE",
        help="the student's YAML config, with DISTILLER.TEACHER_CKPT",
    )
    parser.add_argument("--methods", nargs="+", required=True, metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", default=["1"], metavar="SEED")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config values for all")
    args = parser.parse_intermixed_args()
    for values in (args.methods, args.seeds):  # the last list takes the KEY VALUE pairs too
        start = next((i for i, value in enumerate(values) if value.isupper()), len(values))
        args.overrides += values[start:]
        del values[start:]
    if not args.methods or not args.seeds:
        parser.error("expected at least one method and one seed")
    if wrong := [seed for seed in args.seeds if not seed.isdigit()]:
        raise UserError(f"--seeds: expected whole numbers, found {wrong[0]}")
    for key, option in (("SEED", "--seeds"), ("DISTILLER.TERMS", "--methods")):
        if key in args.overrides[::2]:
            raise UserError(f"override {key}: expected {option} in its place")
    return args


def main() -> int:
    args = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumed run
    seeds = dict.fromkeys(map(int, args.seeds))
    methods = {
        method: [make_run(args.cfg, args.overrides, method, seed) for seed in seeds]
        for method in args.methods
    }
    return compare(args.cfg, methods, Path(load_cfg(args.cfg, args.overrides).OUTPUT_DIR))


if __name__ == "__main__":
    run_main(main)
