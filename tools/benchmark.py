"""Train what the benchmark still lacks and keep each run's results as a small file.

    python -m tools.benchmark --jobs 2

The rows stand in tools/experiments/rows.py; job_benchmark.sh makes the data too. Stopped, the same
command goes on. A run whose file in docs/benchmark/runs/ is of the same config is not trained
again, on whatever machine it was. A teacher whose checkpoint is not here is trained again as soon
as a run needs it: on the same machine it becomes the same, elsewhere nearly; each file names its
run's teacher. docs/benchmark.md is written after every run.
"""

import argparse
import hashlib
import json
import logging
import math
import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from datasets import load_dataset
from datasets.base import SearchDataset, digest
from engine.checkpoint import load_net
from engine.evaluation.evaluate import evaluate
from engine.evaluation.records import evaluations_of
from models.build import choose_device
from tools.experiments import page, results
from tools.experiments.rows import (
    CONFIGS,
    GROUPS,
    MORE_SEEDS,
    ROWS,
    SEEDS,
    TAUGHT,
    TEACHERS,
    TUNING,
    TUNING_SEED,
    Row,
    Teacher,
    in_order,
)
from tools.experiments.runs import ROOT, SECONDS, Run, check_run, finish_all, values_of
from tools.profile_model import count_flops, machine_of, make_net
from tools.summarize import SCORES, count_parameters
from utils.errors import UserError, run_main
from utils.files import make_folder, read_text, write_text

QUERIES = "queries.json"
CONVERGED = 0.5  # mAP, per cent, that two more epochs of the teacher must stay under


def config_hash(run: Run) -> str:
    """Of all that a run's scores depend on and that differs from the defaults: an option that is
    added later, and left alone, changes no hash."""
    defaults = flatten(get_cfg())
    own = {key: value for key, value in values_of(run).items() if value != defaults[key]}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:12]


@cache
def file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def commit() -> str:
    """What HEAD is; with a + where code or configs are not what it holds."""

    def git(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    head = git("rev-parse", "--short", "HEAD")
    if head.returncode:
        return "unknown"
    same = git("diff", "--quiet", "HEAD", "--", ":!docs").returncode == 0
    return head.stdout.strip() + ("" if same else "+")


@cache
def cost(path: str) -> dict[str, float]:
    """Parameters, and GFLOP of a detection pass over one image, of a config's network."""
    cfg = load_cfg(path)
    net = make_net(cfg, torch.device("cpu"))  # which seeds the image too
    flops = count_flops(net, torch.rand(3, cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE))
    return {"parameters": count_parameters(cfg), "gflop": round(flops / 1e9, 3)}


def checkpoint_of(run: Run) -> str:
    """Of the last epoch."""
    return str(run.folder / f"epoch_{run.cfg.SOLVER.MAX_EPOCHS - 1:02}.pth")


def given_boxes(run: Run) -> float:
    """mAP, in per cent, where the people's boxes are given: re-id alone."""
    values = ["EVAL_USE_GT", "True", "OUTPUT_DIR", str(run.folder / "given_boxes")]
    cfg = load_cfg(run.cfg_path, [*run.overrides, *values])
    device = choose_device(cfg.DEVICE)
    net = load_net(cfg, checkpoint_of(run), device)
    results = evaluate(net, load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT), cfg, device)
    return 100 * results["search"]["mAP"]


def past_of(run: Run) -> dict[int, float]:
    """mAP, in per cent, by epoch."""
    past = evaluations_of(run.folder)
    return {one["epoch"]: round(100 * one["search/mAP"], 2) for one in past}


def check_converged(run: Run) -> None:
    """UserError unless a teacher's last two epochs brought less than CONVERGED."""
    past, last = past_of(run), run.cfg.SOLVER.MAX_EPOCHS
    if not past[last] - past.get(last - 2, -math.inf) < CONVERGED:
        raise UserError(
            f"{run.folder}: expected a teacher whose last two epochs bring under {CONVERGED} mAP, "
            f"found {past.get(last - 2)} and then {past[last]}; SOLVER.MAX_EPOCHS in "
            f"{run.cfg_path} and DISTILLER.TEACHER_CKPT in {CONFIGS}/_student.yaml decide"
        )


def results_of(run: Run, scores: dict) -> dict:
    """What is kept of a finished run."""
    found = json.loads(read_text(run.folder / "results.json", "results"))
    teacher = file_hash(run.cfg.DISTILLER.TEACHER_CKPT) if run.terms else None
    return {
        "seed": run.seed,
        "config": config_hash(run),
        "teacher": teacher,
        "commit": commit(),
        "machine": machine_of(choose_device(run.cfg.DEVICE)),
        "torch": torch.__version__,
        "seconds": round(scores[SECONDS]),
        **cost(run.cfg_path),
        "scores": {name: round(scores[name], 3) for name in SCORES},
        "mAP of given boxes": round(given_boxes(run), 3),
        "mAP by epoch": past_of(run),
        "detection_errors": {k: round(v, 5) for k, v in found["detection_errors"].items()},
        "query_ap": [round(query["ap"], 4) for query in found["queries"]],
    }


def keep(path: Path, content: dict) -> None:
    """One line for each fact."""
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(v)}" for key, v in content.items())
    write_text(f"{{\n{lines}\n}}\n", path)


def hidden(box: np.ndarray, others: np.ndarray) -> float:
    """Share of a person's box that the boxes of people nearer to the camera cover: those whose
    feet stand lower in the image. All boxes: x1 y1 x2 y2, pixels."""
    nearer = others[others[:, 3] > box[3]].round().astype(int)
    left, top, right, bottom = box.round().astype(int)
    covered = np.zeros((max(bottom, 0), max(right, 0)), dtype=bool)
    for x1, y1, x2, y2 in nearer:
        covered[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return float(covered[top:, left:].mean())


def people_of(dataset: SearchDataset) -> list[int]:
    """The person of each query, by number. Two are of one person where both have, as their own or
    as a match, the same box: a query of CUHK-SYSU's files has an identity of its own."""
    protocol = dataset.protocol(-1)
    own = [[query.scene, *query.box] for query in dataset.queries]
    matches = np.column_stack([protocol.image[protocol.box_entry], protocol.boxes])
    places = np.concatenate([own, matches]).round().astype(int)
    _, place = np.unique(places, axis=0, return_inverse=True)
    queries = np.arange(len(own))
    query = np.concatenate([queries, protocol.queries[protocol.query[protocol.box_entry]]])
    has = coo_array((np.ones(len(query)), (query, place.ravel()))).tocsr()
    return connected_components(has @ has.T)[1].tolist()


def query_facts(dataset: SearchDataset) -> dict:
    """Of each query: its image and person, its box's height in the image's pixels, and how much of
    it others hide."""
    found = []
    for query, person in zip(dataset.queries, people_of(dataset)):
        scene = dataset.gallery[query.scene]
        height = round(float(query.box[3] - query.box[1]), 1)
        share = round(hidden(query.box, scene.boxes), 3)
        found.append({"image": scene.name, "person": person, "height": height, "hidden": share})
    return {
        "data": digest(dataset.train + dataset.gallery),
        "frames": [len(dataset.train), len(dataset.gallery)],
        "identities": dataset.num_pids,
        "queries": found,
    }


def check_data(folder: Path) -> None:
    """Keep what is asked of the page's queries; UserError where results are of other data."""
    cfg = TEACHERS[0].run().cfg
    facts = query_facts(load_dataset(cfg.INPUT.DATASET, cfg.INPUT.DATA_ROOT))
    make_folder(folder, "--out")
    path = folder / QUERIES
    if path.is_file() and json.loads(read_text(path, "benchmark"))["data"] != facts["data"]:
        raise UserError(
            f"{cfg.INPUT.DATA_ROOT}: other data than the results in {folder} are of; expected "
            "what job_benchmark.sh makes"
        )
    keep(path, facts)


def check_rate(folder: Path) -> None:
    """UserError where the students' learning rate is not the one that tuning found best."""
    rate, cfg = results.best_rate(folder), ROWS[f"{TAUGHT}_alone"].run(SEEDS[0]).cfg
    if rate is None or float(rate) != cfg.SOLVER.BASE_LR:
        raise UserError(
            f"SOLVER.BASE_LR {cfg.SOLVER.BASE_LR} of the students in {CONFIGS}: expected "
            f"{rate or 'runs of every rate'}, which tuning found best"
        )


class Benchmark:
    """Results in `folder`; `jobs` runs at once."""

    def __init__(self, folder: Path, jobs: int):
        self.folder, self.jobs, self.failed = folder, jobs, 0

    def path(self, name: str) -> Path:
        return self.folder / "runs" / f"{name}.json"

    def lacks(self, row: Row, seed: int) -> bool:
        """Whether there is no result of this run, or one by another config."""
        path = self.path(f"{row.key}_seed{seed}")
        if not path.is_file():
            return True
        return json.loads(read_text(path, "result"))["config"] != config_hash(row.run(seed))

    def finish(self, wanted: Iterable[tuple[Row, int]]) -> None:
        """Train what is lacking, after the teachers that it needs."""
        lacking = [(row, seed) for row, seed in wanted if self.lacks(row, seed)]
        runs = [row.run(seed) for row, seed in lacking]
        names = {run.folder: f"{row.key}_seed{seed}" for run, (row, seed) in zip(runs, lacking)}
        needed = {run.cfg.DISTILLER.TEACHER_CKPT for run in runs if run.terms}
        for teacher in TEACHERS:
            if checkpoint_of(teacher.run()) in needed:
                self.finish_teacher(teacher)
        for run in runs:
            check_run(run)
        for run, scores, _ in finish_all(runs, self.jobs):
            self.record(run, names[run.folder], scores)

    def finish_teacher(self, teacher: Teacher) -> None:
        """On all cores; its file is named by its checkpoint, since it may be trained again.
        UserError for one that may not teach, of which nothing is kept."""
        run = teacher.run()
        check_run(run)
        for _, scores, _ in finish_all([run]):
            if scores is None:
                self.failed += 1
                return
            if teacher.converged:
                check_converged(run)
            checkpoint = checkpoint_of(run)
            if not os.path.isfile(checkpoint):
                raise UserError(f"{checkpoint}: is gone; remove {run.folder} to train it again")
            name = f"{teacher.key}_{file_hash(checkpoint)}"
            if not self.path(name).is_file():
                self.record(run, name, scores)

    def record(self, run: Run, name: str, scores: dict | None) -> None:
        """Keep a run's results and write the page."""
        if scores is None:
            self.failed += 1
            return
        path = self.path(name)
        make_folder(path.parent, "--out")
        keep(path, results_of(run, scores))
        page.write(self.folder)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at once")
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="KEY", help="these rows alone")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmark"), metavar="FOLDER")
    args = parser.parse_args()
    if args.jobs < 1:
        raise UserError(f"--jobs: expected at least 1, found {args.jobs}")
    return args


def main() -> int:
    args = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumed run
    check_data(args.out)
    benchmark = Benchmark(args.out, args.jobs)
    asked = args.rows or ROWS
    benchmark.finish(in_order(TUNING.values(), (TUNING_SEED,)))
    check_rate(args.out)
    for rows in GROUPS.values():
        benchmark.finish(in_order([row for row in rows if row.key in asked], SEEDS))
    rows = results.undecided(results.load(args.out))
    benchmark.finish(in_order([row for row in rows if row.key in asked], MORE_SEEDS))
    page.write(args.out)
    return 1 if benchmark.failed else 0


if __name__ == "__main__":
    run_main(main)
