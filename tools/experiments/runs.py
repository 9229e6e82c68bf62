"""Training runs of one student by several methods and seeds: names, training and scores."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from yacs.config import CfgNode

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from datasets import load_dataset
from engine.evaluation.records import evaluations_of
from engine.teachers.choice import (
    CACHED_OUTPUTS,
    REID_TEACHER,
    cached_reads,
    needs_checkpoint,
    reid_teachers,
)
from engine.training.inputs import (
    INIT_STUDENT,
    TEACHER,
    changed_inputs,
    describe_data,
    describe_files,
    read_inputs,
)
from models.distill import known_terms, reads_of
from models.timm_networks import TIMM
from tools.experiments.methods import parse_method
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
# Column of a table -> its name among the metrics of an evaluation, fractions of 1.
SCORES = {
    "recall": "detection/recall",
    "AP": "detection/ap",
    "mAP": "search/mAP",
    "top-1": "search/top1",
}
SECONDS = "training seconds"
CACHES = {"kd": "LD", "rkd": "CD"}  # terms -> another term whose cached teacher they read too
# A run may continue with other values of these keys: no score depends on them.
FREE_KEYS = ("DEVICE", "INPUT.NUM_WORKERS", "SOLVER.CKPT_")


@dataclass(frozen=True)
class Run:
    """One training of a student.

    Attributes:
        cfg_path, overrides: define the config.
        name: of the method.
        terms: empty for the student alone.
    """

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
    """Return the run of a method and a seed, without checking files.

    Raises:
        UserError: for an unknown method.
    """
    parts = parse_method(method)
    terms = [term for part in parts for term in part.terms]
    options = [option for part in parts for option in part.options]
    name = "+".join(part.name for part in parts)
    base = load_cfg(path, overrides)
    folder = Path(base.OUTPUT_DIR) / f"{name}_seed{seed}"
    own = ["DISTILLER.TERMS", str(terms), "SEED", str(seed), "OUTPUT_DIR", str(folder)]
    # What other methods use is set to its default; unknown names stay.
    if decay := base.DISTILLER.DECAY:
        others = set(known_terms()) - set(terms)
        own += ["DISTILLER.DECAY", str([term for term in decay if term not in others])]
    values, defaults = flatten(base), flatten(get_cfg())
    for key, output in CACHED_OUTPUTS.items():
        if values[key] and output not in reads_of(terms):
            own += [key, repr(defaults[key])]
    overrides = [*overrides, *options, *own]
    cfg = load_cfg(path, overrides)
    if reads_of(terms) == cached_reads(cfg):  # the teacher itself does not run
        overrides += ["DISTILLER.TEACHER_AMP", repr(defaults["DISTILLER.TEACHER_AMP"])]
        cfg = load_cfg(path, overrides)
    return Run(path, name, terms, seed, overrides, cfg)


def make_run(path: str, overrides: list[str], method: str, seed: int) -> Run:
    """Describe a run and check it, see `describe_run` and `check_run`."""
    run = describe_run(path, overrides, method, seed)
    check_run(run)
    return run


def check_run(run: Run) -> None:
    """Check the teacher and the folder of a run.

    Raises:
        UserError: if the teacher is missing, or if the folder contains a run with other config
            values.
    """
    for key, teacher in teachers_of(run.cfg):
        if not Path(teacher).is_file():
            raise UserError(
                f"{key} {teacher or 'is empty'}: expected the checkpoint of a trained teacher"
            )
    path = run.folder / "config.yaml"
    if not path.is_file():
        return
    check_inputs(run)
    theirs = flatten(load_cfg(str(path)))
    for key, value in values_of(run).items():
        if value != theirs[key]:
            raise UserError(
                f"{run.folder}: {key}: expected {value}, found a run with {theirs[key]}; choose "
                "another OUTPUT_DIR"
            )


def teachers_of(cfg: CfgNode) -> list[tuple[str, str]]:
    """Return (config key, file) of each teacher that a run with this config needs."""
    is_read = needs_checkpoint(cfg) or cfg.DISTILLER.INIT_STUDENT
    own = [(TEACHER, cfg.DISTILLER.TEACHER_CKPT)] if is_read else []
    others = [name for name in reid_teachers(cfg) if not name.startswith(TIMM)]
    return own + [(REID_TEACHER, name) for name in others if "embeddings" in cached_reads(cfg)]


def check_inputs(run: Run) -> None:
    """Check that the files of a run have not changed.

    Raises:
        UserError: if the folder of the run contains a run with another teacher, other initial
            weights or other data behind the same paths.
    """
    if was := read_inputs(run.folder):
        data = describe_data_of(
            run.cfg.INPUT.DATASET, run.cfg.INPUT.DATA_ROOT, str(run.cfg.INPUT.EXTRA_TRAIN)
        )
        if changed := changed_inputs(was, data | describe_files(run.cfg)):
            raise UserError(
                f"{run.folder}: contains a run with other inputs: {'; '.join(changed.values())}; "
                "choose another OUTPUT_DIR"
            )


@cache
def describe_data_of(name: str, root: str, extra: str) -> dict[str, Any]:
    """Return `describe_data` of a dataset, which is read once.

    Args:
        extra: INPUT.EXTRA_TRAIN as text.
    """
    return describe_data(load_dataset(name, root, yaml.safe_load(extra)))


def values_of(run: Run) -> dict[str, Any]:
    """Return the config values by key, without those on which the scores of this run do not
    depend."""
    others = tuple(f"DISTILLER.{t.upper()}." for t in known_terms() if t not in run.terms)
    unread = FREE_KEYS + (others if run.terms else ("DISTILLER.",))
    read = (INIT_STUDENT, *(f"DISTILLER.{CACHES[t]}.CACHED" for t in run.terms if t in CACHES))
    return {
        key: value
        for key, value in flatten(run.cfg).items()
        if key.startswith(read) or not key.startswith(unread)
    }


def read_scores(run: Run) -> dict[str, float] | None:
    """Return the scores of the last epoch in per cent, seed and training seconds.

    The result is None for an unfinished run.

    Raises:
        UserError: if the records in the run's folder are damaged.
    """
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
    """Return the training seconds of the steps that led to the final weights, without evaluations.

    The parts of a resumed run are added. Steps that were lost in a crash and repeated count once.
    """
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return sum(event.value for event in events.Scalars("train/seconds_per_step"))


@dataclass
class Children:
    """The running training processes, and the signals that this program has received."""

    running: set[subprocess.Popen] = field(default_factory=set)
    received: list[int] = field(default_factory=list)

    @contextmanager
    def stopped_with_us(self) -> Iterator[None]:
        """Forward Ctrl-C and SIGTERM to all running trainings.

        After a signal no further training starts. When all have ended, this program exits with 128
        + the number of the signal.
        """

        def pass_on(number: int, _) -> None:
            self.received.append(number)
            for process in list(self.running):  # other threads change the set meanwhile
                process.send_signal(number)

        previous = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.received:
            print("stopped; run the same command again to continue", file=sys.stderr)
            sys.exit(128 + self.received[0])

    def call(self, command: list[str], log_path: Path, threads: int) -> tuple[int, list[str]]:
        """Run a command and append its output to a log file.

        Args:
            threads: OMP_NUM_THREADS of the process; 0 leaves it as it is.

        Returns:
            The exit code and the lines of output.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        own = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        with open(log_path, "ab+") as log:
            start = log.tell()
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                start_new_session=True,  # Ctrl-C reaches it once, through this program
            )
            self.running.add(process)
            if self.received:  # a signal arrived while the process was starting
                process.send_signal(self.received[0])
            code = process.wait()
            self.running.discard(process)
            log.seek(start)
            output = log.read().decode(errors="replace").replace("\r", "\n")
        return code, [line for line in output.splitlines() if line.strip()]


def train(run: Run, children: Children, threads: int) -> str | None:
    """Train or resume a run. Return None, or the reason of a failure in one line."""
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
    """Train a run if it is not finished.

    Returns:
        Its scores and None, or None and the reason of a failure.
    """
    try:
        found, state, reason = read_scores(run), "already finished", None
        if found is None:
            print(f"{title}: training, log in {run.log}", flush=True)
            state, reason = "finished", train(run, children, threads)
            found = read_scores(run)
    except UserError as error:  # in the records of an earlier training
        found, reason = None, str(error)
    if found:
        state += ": " + ", ".join(f"{name} {found[name]:.2f}" for name in ("mAP", "top-1"))
    if found or not children.received:
        print(f"{title}: {state if found else f'failed: {reason}'}", flush=True)
    return found, reason


def finish_all(runs: Sequence[Run], jobs: int = 1) -> Iterator[tuple[Run, dict | None, str | None]]:
    """Finish all runs, `jobs` at a time. The trainings share the CPU cores.

    Yields:
        (run, scores, reason of a failure) of each run, as soon as it ends.
    """
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
                end.cancel()  # if the caller has failed, no further run starts
