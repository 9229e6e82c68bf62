"""Train the runs of the benchmark that have no results yet, and write docs/benchmark.md.

    python -m tools.benchmark --jobs 2
    python -m tools.benchmark --page        # train nothing, write the page from the stored results

The rows are defined in tools/experiments/rows.py. job_benchmark.sh also generates the data. An
interrupted benchmark continues when the same command is run again. Results are stored as small
files in docs/benchmark/runs/. A run is repeated only if its config has changed, whichever machine
its result comes from. If the checkpoint of a teacher is missing, the teacher is trained again as
soon as a run needs it. A repeated training has equal weights on the same machine and almost equal
weights on others; every result names the teacher checkpoint by its hash. The page is written after
every run.
"""

import argparse
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from datasets import load_dataset
from tools.experiments import page, results
from tools.experiments.queries import query_facts
from tools.experiments.records import (
    checkpoint_of,
    config_hash,
    file_hash,
    make_record,
    map_by_epoch,
    write_record,
)
from tools.experiments.rows import (
    CACHED,
    CONFIGS,
    EQUAL_RATE,
    EQUAL_TUNING,
    EXPORTED,
    GROUPS,
    MORE_SEEDS,
    RECIPES,
    ROWS,
    SEEDS,
    STUDENT,
    TEACHERS,
    TUNING,
    TUNING_SEED,
    Row,
    Teacher,
    in_order,
)
from tools.experiments.runs import Run, check_run, finish_all, teachers_of
from utils.arguments import nonempty_path, positive, program_parser
from utils.errors import UserError, run_main
from utils.files import make_folder, read_text

QUERIES = "queries.json"
EQUAL_KEYS = ("equal_", "recipe_", "cached_equal")  # of rows with the learning rate EQUAL_RATE
CONVERGED = 1.0  # largest gain of mAP, in per cent, over the last two epochs of a converged teacher


def check_converged(run: Run) -> None:
    """Check that a teacher has converged.

    Raises:
        UserError: if its last two epochs gained CONVERGED or more.
    """
    past, last = map_by_epoch(run), run.cfg.SOLVER.MAX_EPOCHS
    if not past[last] - past.get(last - 2, -math.inf) < CONVERGED:
        raise UserError(
            f"{run.folder}: expected a teacher whose last two epochs gain less than {CONVERGED} "
            f"mAP, found {past.get(last - 2)} and then {past[last]}; change SOLVER.MAX_EPOCHS in "
            f"{run.cfg_path} and DISTILLER.TEACHER_CKPT in {CONFIGS}/_student.yaml"
        )


def check_data(folder: Path) -> None:
    """Write the facts about the queries.

    Raises:
        UserError: if the results in the folder are of other data.
    """
    cfg = TEACHERS[0].run().cfg
    facts = query_facts(load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT))
    make_folder(folder, "--out")
    path = folder / QUERIES
    if path.is_file() and json.loads(read_text(path, "benchmark"))["data"] != facts["data"]:
        raise UserError(
            f"{cfg.INPUT.DATA_ROOT}: expected the data that job_benchmark.sh generates and that "
            f"the results in {folder} are of, found other data"
        )
    write_record(path, facts)


def export(teacher: Run) -> None:
    """Write the teacher's checkpoint as an ONNX file beside it, unless a newer one exists."""
    checkpoint = Path(checkpoint_of(teacher))
    if Path(EXPORTED).is_file() and Path(EXPORTED).stat().st_mtime > checkpoint.stat().st_mtime:
        return
    files = ["--cfg", str(teacher.folder / "config.yaml"), "--ckpt", str(checkpoint)]
    command = [sys.executable, "-m", "tools.export_onnx", *files, "--out", EXPORTED]
    if subprocess.run(command).returncode:
        raise UserError(f"{EXPORTED}: cannot be written by tools.export_onnx")


def check_rate(folder: Path, tuning: dict[str, Row], rate: str | float, where: str) -> None:
    """Check that a learning rate is the best one of the tuning runs.

    Args:
        folder: of the results.
        tuning: the tuning runs, by rate.
        where: where the rate is defined, for the message.

    Raises:
        UserError: if it is not.
    """
    best = results.best_rate(folder, tuning)
    if best is None or float(best) != float(rate):
        raise UserError(f"{where}: expected {best or 'results of all tuning runs'}, found {rate}")


class Benchmark:
    """The benchmark with its results in a folder.

    Attributes:
        folder: of the results.
        jobs: number of simultaneous trainings.
        failed: number of failed runs.
    """

    def __init__(self, folder: Path, jobs: int):
        self.folder, self.jobs, self.failed = folder, jobs, 0

    def path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.json"

    def is_missing(self, row: Row, seed: int) -> bool:
        """Return True if a run has no result, or a result of another config."""
        path = self.path(f"{row.key}_seed{seed}")
        if not path.is_file():
            return True
        return json.loads(read_text(path, "result"))["config"] != config_hash(row.run(seed))

    def finish(self, needed: Iterable[tuple[Row, int]]) -> None:
        """Train all missing runs, after the teachers that they need."""
        missing = [(row, seed) for row, seed in needed if self.is_missing(row, seed)]
        runs = [row.run(seed) for row, seed in missing]
        names = {run.folder: f"{row.key}_seed{seed}" for run, (row, seed) in zip(runs, missing)}
        files = {path for run in runs for _, path in teachers_of(run.cfg)}
        checkpoints = {str(Path(path).with_suffix(".pth")) for path in files}
        for teacher in TEACHERS:
            if checkpoint_of(teacher.run()) in checkpoints:
                self.finish_teacher(teacher)
        if EXPORTED in files:
            export(TEACHERS[0].run())
        for run in runs:
            check_run(run)
        for run, scores, _ in finish_all(runs, self.jobs):
            self.keep(run, names[run.folder], scores)

    def finish_teacher(self, teacher: Teacher) -> None:
        """Train a teacher on all cores.

        Its result is named after the hash of its checkpoint, since it may be trained again.

        Raises:
            UserError: if it has to converge and has not. Its result is not stored then.
        """
        run = teacher.run()
        check_run(run)
        for _, scores, _ in finish_all([run]):
            if scores is None:
                self.failed += 1
                return
            if teacher.must_converge:
                check_converged(run)
            checkpoint = checkpoint_of(run)
            if not os.path.isfile(checkpoint):
                raise UserError(
                    f"{checkpoint}: expected the checkpoint of a finished run, found none; remove "
                    f"{run.folder} to train the teacher again"
                )
            name = f"{teacher.key}_{file_hash(checkpoint)}"
            if not self.path(name).is_file():
                self.keep(run, name, scores)

    def keep(self, run: Run, name: str, scores: dict | None) -> None:
        """Store the result of a run, and write the page.

        Args:
            scores: None for a failed run.
        """
        if scores is None:
            self.failed += 1
            return
        path = self.path(name)
        make_folder(path.parent, "--out")
        write_record(path, make_record(run, scores))
        page.write(self.folder)


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="number of simultaneous trainings (default: 1)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[*ROWS, *RECIPES, *CACHED],
        metavar="KEY",
        help=f"train only these rows: {', '.join([*ROWS, *RECIPES])}; or rows that are trained "
        f"only if they are named: {', '.join(CACHED)}",
    )
    parser.add_argument(
        "--out",
        type=nonempty_path,
        default=Path("docs/benchmark"),
        metavar="FOLDER",
        help="folder of the results; the page is FOLDER.md (default: docs/benchmark)",
    )
    parser.add_argument(
        "--page", action="store_true", help="train nothing, write the page from the stored results"
    )
    args = parser.parse_args()
    if args.page and (args.jobs or args.rows):
        option = "--jobs" if args.jobs else "--rows"
        raise UserError(f"{option}: expected without --page, found both")
    return args


def train(folder: Path, jobs: int, keys: Iterable[str]) -> int:
    """Finish the rows with these keys, and return the number of failed runs."""
    check_data(folder)
    benchmark = Benchmark(folder, jobs)
    benchmark.finish(in_order(TUNING.values(), (TUNING_SEED,)))
    rate = ROWS[f"{STUDENT}_alone"].run(SEEDS[0]).cfg.SOLVER.BASE_LR
    check_rate(folder, TUNING, rate, f"SOLVER.BASE_LR of the students in {CONFIGS}")
    if any(key.startswith(EQUAL_KEYS) for key in keys):
        benchmark.finish(in_order(EQUAL_TUNING.values(), (TUNING_SEED,)))
        check_rate(folder, EQUAL_TUNING, EQUAL_RATE, "EQUAL_RATE in tools/experiments/rows.py")
    for rows in GROUPS.values():
        benchmark.finish(in_order([row for row in rows if row.key in keys], SEEDS))
    benchmark.finish(in_order([r for r in RECIPES.values() if r.key in keys], (TUNING_SEED,)))
    benchmark.finish(in_order([row for row in CACHED.values() if row.key in keys], SEEDS))
    rows = results.undecided(results.load(folder))
    benchmark.finish(in_order([row for row in rows if row.key in keys], MORE_SEEDS))
    return benchmark.failed


def main() -> int:
    args = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns about every resumed run
    failed = 0 if args.page else train(args.out, args.jobs or 1, args.rows or [*ROWS, *RECIPES])
    page.write(args.out)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
