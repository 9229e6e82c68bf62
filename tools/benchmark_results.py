"""The results that the benchmark keeps, and what they say: means, paired gains, intervals."""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from tools.benchmark_rows import ROWS, TEACHERS, TUNING, TUNING_SEED, Row
from utils.files import read_text

EVERY = slice(None)


@dataclass(frozen=True)
class Results:
    """runs: of each row, by seed; tuning: by learning rate; teachers: by key, each as often as it
    was trained."""

    runs: dict[str, dict[int, dict]]
    tuning: dict[str, dict]
    teachers: dict[str, list[dict]]
    queries: dict

    def all(self) -> list[dict]:
        groups = [list(runs.values()) for runs in (self.tuning, *self.runs.values())]
        return [run for group in [*groups, *self.teachers.values()] for run in group]


def load(folder: Path) -> Results:
    def read(path: Path) -> dict:
        return json.loads(read_text(path, "result"))

    runs: dict[str, dict[int, dict]] = {}
    for key in ROWS:
        found = map(read, (folder / "runs").glob(f"{key}_seed*.json"))
        runs[key] = {run["seed"]: run for run in sorted(found, key=lambda run: run["seed"])}
    rates = {
        rate: folder / "runs" / f"{r.key}_seed{TUNING_SEED}.json" for rate, r in TUNING.items()
    }
    tuning = {rate: read(path) for rate, path in rates.items() if path.is_file()}
    teachers = {
        one.key: [read(path) for path in sorted((folder / "runs").glob(f"{one.key}_*.json"))]
        for one in TEACHERS
    }
    return Results(runs, tuning, teachers, read(folder / "queries.json"))


class Interval(NamedTuple):
    """Of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """Of mAP, over the same seeds of another row: its mean, and 95 % intervals."""

    mean: float
    over_seeds: Interval | None  # Student's t; None for one seed
    over_queries: Interval | None  # bootstrap; a query's gain is its mean over seeds


def gain(
    ours: dict[int, dict], theirs: dict[int, dict], some: np.ndarray | slice = EVERY
) -> Gain | None:
    """Over `some` of the queries; None where no seed is in both."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    pairs = [(ours[seed]["query_ap"], theirs[seed]["query_ap"]) for seed in seeds]
    gains = 100 * np.array([np.subtract(*pair)[some] for pair in pairs])  # [seeds, queries]
    by_seed = gains.mean(axis=1)
    return Gain(float(by_seed.mean()), t_interval(by_seed), bootstrap_interval(gains.mean(axis=0)))


def t_interval(values: np.ndarray) -> Interval | None:
    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Interval(mean - half, mean + half)


def bootstrap_interval(values: np.ndarray) -> Interval | None:
    if len(values) < 2:
        return None
    found = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(0))
    return Interval(*map(float, found.confidence_interval))


def mean_and_deviation(runs: dict[int, dict], name: str) -> tuple[float, float]:
    """NaN for the deviation of one run."""
    values = [run["scores"][name] for run in runs.values()]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def touches(folder: Path, row: Row) -> bool:
    """Whether the bars, mean ± standard deviation of mAP, of a row and of the one that it is
    compared with overlap: then it needs more seeds."""
    found = load(folder).runs
    pair = [found[key] for key in (row.key, row.base)]
    if row.key == row.base or min(map(len, pair)) < 2:
        return False
    (a, a_std), (b, b_std) = (mean_and_deviation(runs, "mAP") for runs in pair)
    return abs(a - b) < a_std + b_std


def best_rate(folder: Path) -> str | None:
    """By mAP; None until every rate has its run."""
    tuning = load(folder).tuning
    if tuning.keys() != TUNING.keys():
        return None
    return max(tuning, key=lambda rate: tuning[rate]["scores"]["mAP"])
