"""The tables of docs/benchmark.md, as Markdown."""

import math
import statistics
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from tabulate import tabulate

from configs.defaults import load_cfg
from configs.ranges import flatten
from tools.experiments.results import (
    Gain,
    Interval,
    Results,
    gain,
    mean_and_deviation,
    teachers_of,
)
from tools.experiments.rows import (
    C4_STUDENTS,
    CONFIGS,
    DDPS_OVER,
    EQUAL_EPOCHS,
    EQUAL_RATE,
    EQUAL_TEACHERS,
    EQUAL_TUNING,
    FPN_STUDENTS,
    GROUPS,
    OVER_TEACHER,
    RECIPES,
    ROWS,
    SOURCES,
    STUDENT,
    STUDENTS,
    TEACHERS,
    Row,
)

CACHE_KEYS = (
    "CACHED",
    "CACHED_REGIONS",
)  # of DISTILLER.<NAME>; no row of the page has other values
SCORES = ("mAP", "top-1", "AP")
ERRORS = ("found", "low_score", "poorly_placed", "missed")
PARTS = (f"{STUDENT}_alone", f"{STUDENT}_ddps", "dfd", "ld", "cd")  # shown by groups of queries
NONE, NOT_YET = "–", "No results yet."


def table(lines: list[dict]) -> str:
    """Format one line per dict. The first column is aligned left, all others right."""
    if not lines:
        return NOT_YET
    align = ["left", *["right"] * (len(lines[0]) - 1)]
    return tabulate(lines, "keys", "github", colalign=align, disable_numparse=True)


def show(mean: float, deviation: float) -> str:
    return f"{mean:.1f}" + ("" if math.isnan(deviation) else f" ± {deviation:.1f}")


def interval(ends: Interval | None) -> str:
    return NONE if ends is None else f"{ends.low:+.1f} to {ends.high:+.1f}"


def is_significant(found: Gain) -> bool:
    """Return True if both intervals exclude zero."""
    return all(
        ends is not None and (ends.low > 0 or ends.high < 0)
        for ends in (found.over_seeds, found.over_people)
    )


def gain_cell(found: Gain | None) -> str:
    """Return the mean gain, with an asterisk if it is significant."""
    if found is None:
        return NONE
    return f"{found.mean:+.1f}" + (" *" if is_significant(found) else "")


def gain_cells(found: Gain) -> dict[str, str]:
    """Return the table cells of a gain: its mean and its intervals."""
    return {
        "gain": f"{found.mean:+.1f}",
        "95 % over seeds": interval(found.over_seeds),
        "95 % over people": interval(found.over_people),
    }


def scores_cells(runs: Collection[dict]) -> dict[str, str]:
    return {name: show(*mean_and_deviation(runs, name)) for name in SCORES}


def gain_over(results: Results, ours: Row, theirs: Row) -> Gain | None:
    """Return the gain of a row over another; None for a row over itself, or without common
    seeds."""
    if ours.key == theirs.key:
        return None
    return gain(results.runs[ours.key], results.runs[theirs.key], results.people)


def row_cells(results: Results, row: Row) -> dict[str, str]:
    """Return the number of seeds, the scores, and the gain over the base, of a row that has
    results."""
    runs = results.runs[row.key]
    found = gain_over(results, row, ROWS[row.base])
    return {"seeds": str(len(runs))} | scores_cells(runs.values()) | {"gain": gain_cell(found)}


def teacher_cells(trained: Collection[dict]) -> dict[str, str]:
    """Return the cells of `row_cells` for the trainings of a teacher, which have the same seed."""
    seeds = "1" if len(trained) == 1 else f"1 ({len(trained)} runs)"
    return {"seeds": seeds} | scores_cells(trained) | {"gain": NONE}


def cost_cells(run: dict) -> dict[str, str]:
    return {"parameters": f"{run['parameters'] / 1e6:.2f} M", "GFLOP": f"{run['gflop']:.2f}"}


def students_table(results: Results) -> str:
    """Return the table of the teacher, and of every student alone and with DDPS."""
    lines = []
    if trained := results.teachers("teacher"):
        cells = cost_cells(trained[0]) | teacher_cells(trained)
        lines.append({"": TEACHERS[0].title} | cells)
    return table(lines + student_lines(results, STUDENTS))


def student_lines(results: Results, students: Iterable[str]) -> list[dict]:
    """Return the lines of students alone and with DDPS, with their cost."""
    lines = []
    for student in students:
        for row in GROUPS[f"students: {student}"]:
            if runs := results.runs[row.key]:
                cost = cost_cells(next(iter(runs.values())))
                lines.append({"": row.title} | cost | row_cells(results, row))
    return lines


def c4_table(results: Results) -> str:
    """Return the table of MobileNetV2 with an FPN and in the C4 form."""
    return table(student_lines(results, [*FPN_STUDENTS, *C4_STUDENTS]))


def methods_table(results: Results, rows: Sequence[Row], bases: bool = False) -> str:
    """Return a table of scores.

    Args:
        bases: whether to add a column with the base of each row.
    """
    lines = []
    for row in rows:
        if results.runs[row.key]:
            beside = {"gain over": "" if row.key == row.base else ROWS[row.base].title}
            lines.append({"": row.title, **(beside if bases else {})} | row_cells(results, row))
    return table(lines)


def intervals_table(results: Results, pairs: Iterable[tuple[Row, Row]]) -> str:
    """Return a table of the gain of each (row, base) with its intervals."""
    lines = []
    for row, base in pairs:
        if found := gain_over(results, row, base):
            lines.append({"": row.title, "over": base.title} | gain_cells(found))
    return table(lines)


def gain_over_teacher(results: Results, row: Row) -> Gain | None:
    """Return the gain of a row over the teachers of its runs; None without runs or teachers."""
    return gain(results.runs[row.key], teachers_of(results, row), results.people)


def last_gain(runs: Collection[dict]) -> float:
    """Return the mean gain of mAP in the last two epochs; NaN if these were not evaluated."""
    gains = []
    for run in runs:
        past = {int(epoch): value for epoch, value in run["mAP by epoch"].items()}
        gains.append(past[max(past)] - past.get(max(past) - 2, math.nan))
    return statistics.mean(gains)


def equal_table(results: Results) -> str:
    """Return a table of teachers and students over as many epochs, and of a student in equal
    time."""
    lines = []
    for one in TEACHERS:
        trained = results.teachers(one.key)
        if trained and one.key in EQUAL_TEACHERS:
            last = {"over the teacher": NONE, "last two epochs": f"{last_gain(trained):+.1f}"}
            lines.append(
                {"": f"{one.title}, {EQUAL_EPOCHS} epochs"} | teacher_cells(trained) | last
            )
    for row in OVER_TEACHER:
        if runs := results.runs[row.key]:
            cells = row_cells(results, row)
            cells["over the teacher"] = gain_cell(gain_over_teacher(results, row))
            cells["last two epochs"] = f"{last_gain(runs.values()):+.1f}"
            lines.append({"": row.title} | cells)
    return table(lines)


def teacher_intervals_table(results: Results) -> str:
    """Return a table of the gains of the students over their teacher, with intervals."""
    lines = []
    for row in OVER_TEACHER:
        if found := gain_over_teacher(results, row):
            lines.append({"over the teacher": row.title} | gain_cells(found))
    return table(lines)


def recipes_table(results: Results) -> str:
    """Return a table of the changes of DDPS that were tried with one seed, and their gains over
    the student alone and over DDPS of the same teacher. The student alone is the first row."""
    alone, found = EQUAL_TUNING[EQUAL_RATE], results.tuning

    def gained(row: Row, base: str) -> str:
        ours, theirs = found[row.key], found.get(base)
        if row.key in (base, alone.key) or theirs is None:
            return NONE
        if theirs["teacher"] not in (None, ours["teacher"]):  # None: the student alone
            return NONE
        return f"{ours['scores']['mAP'] - theirs['scores']['mAP']:+.1f}"

    return table(
        [
            {"": "the student alone" if row is alone else row.title}
            | scores_cells([found[row.key]])
            | {"over alone": gained(row, alone.key), "over DDPS": gained(row, row.base)}
            for row in [alone, *RECIPES.values()]
            if row.key in found
        ]
    )


def against_table(results: Results) -> str:
    """Return a table of the gain of DDPS over every other method, with intervals."""
    lines = []
    for ddps, row in DDPS_OVER:
        if found := gain_over(results, ddps, row):
            lines.append({"DDPS over": row.title} | gain_cells(found))
    return table(lines)


def errors_table(results: Results, rows: Sequence[Row]) -> str:
    """Return a table of found, low-scored, poorly placed and missed people, and the mAP of given
    boxes."""
    named = [(row.title, list(results.runs[row.key].values())) for row in rows]
    lines = []
    for title, runs in [(TEACHERS[0].title, results.teachers("teacher")), *named]:
        if runs:
            errors = {
                name.replace("_", " "): statistics.mean(r["detection_errors"][name] for r in runs)
                for name in ERRORS
            }
            given = statistics.mean(run["mAP of given boxes"] for run in runs)
            cells = {name: f"{100 * share:.1f} %" for name, share in errors.items()}
            lines.append({"": title} | cells | {"mAP of given boxes": f"{given:.1f}"})
    return table(lines)


def thirds(name: str, values: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the indices of the lowest, middle and highest third. Equal values keep their order."""
    parts = np.array_split(np.argsort(values, kind="stable"), 3)
    return {f"{name} {values[one[0]]:.0f} to {values[one[-1]]:.0f}": one for one in parts}


def query_groups(results: Results) -> dict[str, np.ndarray]:
    """Return the indices of queries by difficulty: AP of the teacher, height, occlusion."""
    teachers = [run["query_ap"] for run in results.teachers("teacher")]
    facts = results.queries["queries"]
    is_hidden = np.array([query["hidden"] > 0 for query in facts])
    halves = {"not occluded": ~is_hidden, "occluded by others": is_hidden}
    return (
        (thirds("teacher's AP", (100 * np.mean(teachers, axis=0)).tolist()) if teachers else {})
        | thirds("height in pixels", [query["height"] for query in facts])
        | {f"{name} ({part.sum()})": part.nonzero()[0] for name, part in halves.items()}
    )


def groups_table(results: Results) -> str:
    """Return a table of the student's mAP in each group of queries, and the gains of DDPS and its
    terms."""
    alone, *parts = [results.runs[key] for key in PARTS]
    if not alone:
        return NOT_YET
    aps = 100 * np.mean([run["query_ap"] for run in alone.values()], axis=0)
    lines = []
    for name, group in query_groups(results).items():
        cells = {"queries": name, "alone": f"{aps[group].mean():.1f}" if len(group) else NONE}
        for key, runs in zip(PARTS[1:], parts):
            found = gain(runs, alone, results.people, group) if len(group) else None
            cells[ROWS[key].title] = (
                f"{found.mean:+.1f} ({interval(found.over_people)})" if found else NONE
            )
        lines.append(cells)
    return table(lines)


def settings_table() -> str:
    """Return a table of the config values of every term, and their source."""
    distiller = load_cfg(f"{CONFIGS}/{STUDENT}.yaml").DISTILLER
    lines = []
    for term, source in SOURCES.items():
        node = {k: v for k, v in flatten(distiller[term.upper()]).items() if k not in CACHE_KEYS}
        values = ", ".join(f"{k} {v}" for k, v in node.items())
        lines.append({"term": term, "values": f"`{values}`", "source": source})
    return tabulate(lines, "keys", "github", disable_numparse=True)
