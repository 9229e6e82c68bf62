"""The stored results of the benchmark, and their statistics: means, paired gains, intervals."""

import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from tools.experiments.rows import (
    CACHED,
    COMPARISONS,
    EQUAL_TUNING,
    OVER_TEACHER,
    RECIPES,
    ROWS,
    SEEDS,
    TEACHERS,
    TUNING,
    TUNING_SEED,
    Row,
)
from utils.files import read_text

EVERY = slice(None)


@dataclass(frozen=True)
class Results:
    """All stored records.

    Attributes:
        runs: of each row, by seed.
        tuning: by key, of the rows that are trained with TUNING_SEED.
        checkpoints: by key, the records of teachers by the hash of their checkpoint.
        queries: facts about the data and the queries, see tools.experiments.queries.
    """

    runs: dict[str, dict[int, dict]]
    tuning: dict[str, dict]
    checkpoints: dict[str, dict[str, dict]]
    queries: dict

    @property
    def people(self) -> np.ndarray:
        """Return the person of each query, [Q]."""
        return np.array([query["person"] for query in self.queries["queries"]])

    def teachers(self, key: str) -> list[dict]:
        """Return one record per training of a teacher. Repetitions with identical results count
        once, since they are not independent."""
        return list({str(run["query_ap"]): run for run in self.checkpoints[key].values()}.values())

    def all(self) -> list[dict]:
        """Return the records of all runs, including teachers and tuning."""
        groups = [self.tuning, *self.runs.values(), *self.checkpoints.values()]
        return [run for group in groups for run in group.values()]


def load(folder: Path) -> Results:
    """Read all records in `folder`."""

    def read(path: Path) -> dict:
        return json.loads(read_text(path, "result"))

    runs: dict[str, dict[int, dict]] = {}
    for key in [*ROWS, *CACHED]:
        found = map(read, (folder / "runs").glob(f"{key}_seed*.json"))
        runs[key] = {run["seed"]: run for run in sorted(found, key=lambda run: run["seed"])}
    keys = [row.key for group in (TUNING, EQUAL_TUNING, RECIPES) for row in group.values()]
    tuned = {key: folder / "runs" / f"{key}_seed{TUNING_SEED}.json" for key in keys}
    tuning = {key: read(path) for key, path in tuned.items() if path.is_file()}
    checkpoints = {
        one.key: {
            path.stem.rpartition("_")[2]: read(path)
            for path in sorted((folder / "runs").glob(f"{one.key}_*.json"))
        }
        for one in TEACHERS
    }
    return Results(runs, tuning, checkpoints, read(folder / "queries.json"))


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """The mean gain of mAP in per cent over the same seeds of another row, with 95 % intervals.

    Attributes:
        over_seeds: by Student's t; None for fewer than three seeds.
        over_people: by bootstrap over people, where the gain of a query is its mean over the seeds;
            None for fewer than two people.
    """

    mean: float
    over_seeds: Interval | None
    over_people: Interval | None


def paired_gains(ours: dict[int, dict], theirs: dict[int, dict]) -> np.ndarray:
    """Return [S, Q] gains of AP in per cent, for the S seeds that both rows have."""
    seeds = sorted(ours.keys() & theirs.keys())
    queries = [[runs[seed]["query_ap"] for seed in seeds] for runs in (ours, theirs)]
    return 100 * np.subtract(*queries)


def gain(
    ours: dict[int, dict],
    theirs: dict[int, dict],
    people: np.ndarray,
    some: np.ndarray | slice = EVERY,
) -> Gain | None:
    """Return the gain of one row over another; None if they have no seed in common.

    Args:
        ours, theirs: records by seed.
        people: [Q] the person of each query.
        some: indices of the queries that are used.
    """
    gains = paired_gains(ours, theirs)
    if not len(gains):
        return None
    gains = gains[:, some]
    by_seed = gains.mean(axis=1)
    over_people = bootstrap_interval(gains.mean(axis=0), people[some])
    return Gain(float(by_seed.mean()), t_interval(by_seed), over_people)


def t_interval(values: np.ndarray) -> Interval | None:
    """Return the interval of the mean by Student's t; None for fewer than three values."""
    if len(values) < 3:
        return None
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Interval(mean - half, mean + half)


def bootstrap_interval(values: np.ndarray, people: np.ndarray) -> Interval | None:
    """Return the interval of the mean by bootstrap; None for fewer than two people.

    All values of one person are drawn together, since they depend on each other.
    """
    _, person = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(person, values), np.bincount(person)
    if len(sums) < 2:
        return None
    drawn = np.random.default_rng(0).integers(len(sums), size=(10_000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return Interval(*map(float, np.quantile(means, [0.025, 0.975])))


def mean_and_deviation(runs: Iterable[dict], name: str) -> tuple[float, float]:
    """Return the mean and sample standard deviation of a score. The deviation of one run is NaN."""
    values = [run["scores"][name] for run in runs]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def teachers_of(results: Results, row: Row) -> dict[int, dict]:
    """Return, for each seed of a row of OVER_TEACHER, the record of the teacher of that run.

    A student alone is compared with the mean over all trainings of the first teacher.
    """
    made = {hash: run for runs in results.checkpoints.values() for hash, run in runs.items()}
    if not (first := results.teachers(TEACHERS[0].key)):
        return {}
    mean = {"query_ap": np.mean([one["query_ap"] for one in first], axis=0)}
    return {seed: made.get(run["teacher"], mean) for seed, run in results.runs[row.key].items()}


def is_open(ours: dict[int, dict], theirs: dict[int, dict]) -> bool:
    """Return True if the interval of a gain over SEEDS contains zero, whatever later seeds show."""
    first = ({seed: run for seed, run in runs.items() if seed in SEEDS} for runs in (ours, theirs))
    over_seeds = t_interval(np.array([gains.mean() for gains in paired_gains(*first)]))
    return over_seeds is not None and over_seeds.low <= 0 <= over_seeds.high


def undecided(results: Results) -> list[Row]:
    """Return the rows whose comparison is undecided. They are trained with MORE_SEEDS too."""
    runs = results.runs
    keys = {
        row.key for pair in COMPARISONS if is_open(*(runs[one.key] for one in pair)) for row in pair
    }
    keys |= {row.key for row in OVER_TEACHER if is_open(runs[row.key], teachers_of(results, row))}
    return [row for row in ROWS.values() if row.key in keys]


def tuned(results: Results, tuning: dict[str, Row]) -> dict[str, float]:
    """Return the mAP of every learning rate of TUNING or EQUAL_TUNING that has a result."""
    found = {rate: results.tuning.get(row.key) for rate, row in tuning.items()}
    return {rate: run["scores"]["mAP"] for rate, run in found.items() if run}


def best_rate(folder: Path, tuning: dict[str, Row]) -> str | None:
    """Return the learning rate with the highest mAP; None if results are missing."""
    scores = tuned(load(folder), tuning)
    return max(scores, key=scores.__getitem__) if scores.keys() == tuning.keys() else None
