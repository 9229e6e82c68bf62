"""Runs of one student by several methods and seeds: named, trained or resumed, and read."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from yacs.config import CfgNode

from configs.defaults import load_cfg
from configs.ranges import flatten
from engine.evaluation.records import evaluations_of
from models.distill import known_terms
from tools.summarize import SCORES
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ALONE = "none"  # the method that is the student without a teacher
SECONDS = "training seconds"
# Method -> its terms, and config values of its own.
METHODS = {term: ([term], []) for term in known_terms()} | {
    ALONE: ([], []),
    "ddps": (["dfd", "ld", "cd"], []),
    "fgd": (["dfd"], []),
    "dkd": (["ld"], []),
    "cd_contrastive": (["cd"], ["DISTILLER.CD.FORM", "contrastive"]),
    "kd_standardized": (["kd"], ["DISTILLER.KD.LOGITS", "standardized"]),
    "dkd_standardized": (["ld"], ["DISTILLER.LD.LOGITS", "standardized"]),
}
# A run may go on under other values of these: no score depends on them.
FREE_KEYS = ("DEVICE", "INPUT.NUM_WORKERS", "SOLVER.CKPT_")


@dataclass(frozen=True)
class Run:
    """One student under `terms`; overrides: what makes its config of the one at cfg_path."""

    cfg_path: str
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


def describe_run(path: str, overrides: list[str], method: str, seed: int) -> Run:
    """A run of which nothing needs to be there yet; UserError for an unknown method."""
    parts = method.split("+")
    if unknown := [part for part in parts if part not in METHODS]:
        raise UserError(
            f"--methods {method}: expected {', '.join(METHODS)}, or several joined "
            f"by +; found {unknown[0]}"
        )
    terms = [term for part in parts for term in METHODS[part][0]]
    options = [option for part in parts for option in METHODS[part][1]]
    if ALONE in parts and len(parts) > 1:
        raise UserError(f"--methods {method}: expected {ALONE} by itself")
    name = "+".join(map(_name_of, parts))
    folder = Path(load_cfg(path, overrides).OUTPUT_DIR) / f"{name}_seed{seed}"
    own = ["DISTILLER.TERMS", str(terms), "SEED", str(seed), "OUTPUT_DIR", str(folder)]
    overrides = [*overrides, *options, *own]
    return Run(path, name, terms, seed, overrides, load_cfg(path, overrides))


def _name_of(part: str) -> str:
    """What it is in effect: fgd is dfd, one run for both."""
    terms, options = METHODS[part]
    return "_".join(["+".join(terms) or ALONE, *options[1::2]])


def make_run(path: str, overrides: list[str], method: str, seed: int) -> Run:
    """UserError for an unknown method, a missing teacher, or a folder with another run."""
    run = describe_run(path, overrides, method, seed)
    check_run(run)
    return run


def check_run(run: Run) -> None:
    """UserError for a missing teacher, or a folder that holds a run trained with other values."""
    teacher = run.cfg.DISTILLER.TEACHER_CKPT
    if run.terms and not Path(teacher).is_file():
        raise UserError(
            f"DISTILLER.TEACHER_CKPT {teacher or 'is empty'}: expected the checkpoint "
            "of a trained teacher"
        )
    path = run.folder / "config.yaml"
    if not path.is_file():
        return
    theirs = flatten(load_cfg(str(path)))
    for key, value in values_of(run).items():
        if value != theirs[key]:
            raise UserError(
                f"{run.folder}: holds a run with {key} {theirs[key]}, asked for "
                f"{value}; expected another OUTPUT_DIR"
            )


def values_of(run: Run) -> dict[str, Any]:
    """The config's values by key, without those that this run's scores do not depend on."""
    others = tuple(f"DISTILLER.{t.upper()}." for t in known_terms() if t not in run.terms)
    unread = FREE_KEYS + (others if run.terms else ("DISTILLER.",))
    return {key: v for key, v in flatten(run.cfg).items() if not key.startswith(unread)}


def read_scores(run: Run) -> dict[str, float] | None:
    """Scores of the last epoch, seed and training seconds; None for an unfinished run."""
    past = evaluations_of(run.folder)
    if not past or past[-1]["epoch"] != run.cfg.SOLVER.MAX_EPOCHS:
        return None
    try:
        scores = {column: 100 * past[-1][name] for column, name in SCORES.items()}
        return scores | {"seed": run.seed, SECONDS: training_seconds(run.folder)}
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.folder}: expected the evaluations and the log of a training ({error!r})"
        ) from None


def training_seconds(folder: Path) -> float:
    """Of the steps that made the model, without evaluations: the parts of a resumed run add up,
    steps that a crash lost and that were taken again count once."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return sum(event.value for event in events.Scalars("train/seconds_per_step"))


@dataclass
class Children:
    """Trainings that run now, and the signals that this program has received."""

    running: set[subprocess.Popen] = field(default_factory=set)
    received: list[int] = field(default_factory=list)

    @contextmanager
    def stopped_with_us(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM are passed on to all; no other starts then, and once those have
        ended this program leaves with 128 + signal."""

        def pass_on(number: int, _) -> None:
            self.received.append(number)
            for process in self.running:
                process.send_signal(number)

        previous = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.received:
            print("stopped; the same command goes on from here", file=sys.stderr)
            sys.exit(128 + self.received[0])

    def call(self, command: list[str], log_path: Path, threads: int) -> tuple[int, list[str]]:
        """Run a command on `threads` cores (0: as many as it likes), its output appended to a log;
        exit code and the lines of output."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        with open(log_path, "ab+") as log:
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                start_new_session=True,  # a terminal's Ctrl-C comes from us alone, once
            )
            self.running.add(process)
            if self.received:  # between the decision to start and now
                process.send_signal(self.received[0])
            code = process.wait()
            self.running.discard(process)
            log.seek(start)
            output = log.read().decode(errors="replace").replace("\r", "\n")
        return code, [line for line in output.splitlines() if line.strip()]


def train(run: Run, children: Children, threads: int) -> str | None:
    """Train or resume a run; None, or why it failed in one line."""
    program = ROOT / ("train_ddps.py" if run.terms else "train_base.py")
    command = [sys.executable, str(program), "--cfg", run.cfg_path, "--resume", *run.overrides]
    code, lines = children.call(command, run.log, threads)
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    errors = [line for line in lines if line.startswith("error: ")] or lines or ["no output"]
    return errors[-1].removeprefix("error: ")


def finish(
    run: Run, title: str, children: Children, threads: int = 0
) -> tuple[dict | None, str | None]:
    """A run's scores, training it where that is still to do; or None and why it failed."""
    try:
        found, state, reason = read_scores(run), "was finished", None
        if found is None:
            print(f"{title}: training, log in {run.log}", flush=True)
            state, reason = "finished", train(run, children, threads)
            found = read_scores(run)
    except UserError as error:  # of what an earlier training left behind
        found, reason = None, str(error)
    if found:
        state += ": " + ", ".join(f"{name} {found[name]:.2f}" for name in ("mAP", "top-1"))
    if found or not children.received:
        print(f"{title}: {state if found else f'failed: {reason}'}", flush=True)
    return found, reason


def finish_all(runs: Sequence[Run], jobs: int = 1) -> Iterator[tuple[Run, dict | None, str | None]]:
    """(run, scores, why it failed) of each run as it ends, `jobs` of them at once, which then share
    the cores."""
    children = Children()
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else 0

    def one(number: int, run: Run) -> tuple[dict | None, str | None]:
        if children.received:
            return None, "not started"
        return finish(run, f"[{number}/{len(runs)}] {run.folder.name}", children, threads)

    with children.stopped_with_us(), ThreadPoolExecutor(jobs) as pool:
        ends = {pool.submit(one, number, run): run for number, run in enumerate(runs, 1)}
        try:
            for end in as_completed(ends):
                if not children.received:
                    yield ends[end], *end.result()
        finally:
            for end in ends:
                end.cancel()  # where whoever asked has failed: no other run starts
