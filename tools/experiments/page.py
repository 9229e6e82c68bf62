"""docs/benchmark.md and its plot, written from the stored results.

The text is the template docs/benchmark/page.md; every result in it comes from the results.
"""

import math
from collections import Counter
from pathlib import Path
from string import Template

from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tools.experiments import tables
from tools.experiments.results import (
    Gain,
    Results,
    load,
    mean_and_deviation,
    tuned,
    undecided,
)
from tools.experiments.rows import (
    C4_OVER_FPN,
    CACHED,
    COMPARISONS,
    DDPS_OVER,
    EQUAL_TEACHERS,
    EQUAL_TUNING,
    GROUPS,
    IN_EQUAL_TIME,
    MORE_SEEDS,
    OVER_BASE,
    OVER_DDPS,
    OVER_TEACHER,
    PLUS_IN_EQUAL_TIME,
    RECIPES,
    ROWS,
    SEEDS,
    STUDENT,
    STUDENTS,
    TEACHERS,
    TUNING,
    TUNING_SEED,
    Row,
    in_order,
)
from tools.experiments.tables import NONE, NOT_YET
from utils.files import read_text, write_text
from utils.plots import save

TEMPLATE = Path(__file__).parents[2] / "docs/benchmark/page.md"


def teachers_text(results: Results) -> str:
    """Return the mAP by epoch of every training of a teacher, which shows whether it has
    converged."""
    lines = []
    for one in TEACHERS:
        for run in results.teachers(one.key):
            past = ", ".join(f"{epoch}: {mAP}" for epoch, mAP in run["mAP by epoch"].items())
            lines.append(f"- {one.title}: mAP by epoch, {past}.")
    return "\n".join(lines) or NOT_YET


def missing_text(results: Results) -> str:
    """Return how many runs have results, and which runs are missing."""
    more = in_order(undecided(results), MORE_SEEDS)
    runs = [*in_order(ROWS.values(), SEEDS), *more]
    needed = [(row, seed, seed in results.runs[row.key]) for row, seed in runs]
    once = [*EQUAL_TUNING.values(), *RECIPES.values()]
    needed += [(row, TUNING_SEED, row.key in results.tuning) for row in once]
    missing: dict[str, list[str]] = {}
    for row, seed, is_finished in needed:
        if not is_finished:
            missing.setdefault(row.title, []).append(str(seed))
    if not missing:
        return f"All {len(needed)} runs are finished."
    done = len(needed) - sum(map(len, missing.values()))
    names = "; ".join(f"{title} (seed {', '.join(seeds)})" for title, seeds in missing.items())
    return f"{done} of {len(needed)} runs are finished. Missing: {names}."


def machine_text(results: Results) -> str:
    """Return machines, versions, hours of training, and the number of runs of each teacher
    checkpoint."""
    runs = results.all()
    if not runs:
        return NOT_YET
    hours = sum(run["seconds"] for run in runs) / 3600

    def names(key: str) -> str:
        return "; ".join(sorted({run[key] for run in runs}))

    taught = Counter(run["teacher"] for run in runs if run["teacher"])
    who = ", ".join(f"{teacher} ({count} runs)" for teacher, count in taught.most_common())
    return (
        f"- **Machine**: {names('machine')}. Torch {names('torch')}. Commit {names('commit')}. "
        f"All trainings together took {hours:.1f} hours, without evaluations.\n"
        f"- **Teacher checkpoints**, by the first digits of their SHA-256: {who or 'none yet'}."
    )


def tuning_text(results: Results, tuning: dict[str, Row]) -> str:
    """Return the mAP of every learning rate."""
    rates = [f"{rate}: {mAP:.1f} mAP" for rate, mAP in tuned(results, tuning).items()]
    return "; ".join(rates) or NOT_YET


def numbers(results: Results) -> dict[str, str]:
    """Return the numbers that sentences contain.

    They are $map_KEY and $gain_KEY of every row, $map_KEY of the teachers over equal epochs,
    $over_KEY, the gain of DDPS over KEY, $changed_KEY, the gain of DDPS with a change over DDPS,
    and $plus_KEY, the gain of the recipe over KEY.
    """

    def gain_text(found: Gain | None) -> str:
        return NONE if found is None else f"{found.mean:+.1f}"

    found = {}
    for key, row in (ROWS | CACHED).items():
        runs = results.runs[key].values()
        found[f"map_{key}"] = f"{mean_and_deviation(runs, 'mAP')[0]:.1f}" if runs else NONE
        found[f"gain_{key}"] = gain_text(tables.gain_over(results, row, ROWS[row.base]))
    for ddps, row in DDPS_OVER + IN_EQUAL_TIME:
        found[f"over_{row.key}"] = gain_text(tables.gain_over(results, ddps, row))
    for row, ddps in OVER_DDPS:
        found[f"changed_{row.key}"] = gain_text(tables.gain_over(results, row, ddps))
    for plus, row in PLUS_IN_EQUAL_TIME:
        found[f"plus_{row.key}"] = gain_text(tables.gain_over(results, plus, row))
    for key in EQUAL_TEACHERS:
        runs = results.teachers(key)
        found[f"map_{key}"] = f"{mean_and_deviation(runs, 'mAP')[0]:.1f}" if runs else NONE
    return found


def page(folder: Path) -> str:
    """Return the text of docs/benchmark.md."""
    results = load(folder)
    main_rows = GROUPS[f"students: {STUDENT}"]
    rows = [*main_rows, *GROUPS["methods"]]
    cached = [(row, ROWS[row.base]) for row in CACHED.values()]
    parts = {
        "frames": " and ".join(map(str, results.queries["frames"])),
        "identities": results.queries["identities"],
        "queries": len(results.people),
        "people": len(set(results.people.tolist())),
        "epochs": TEACHERS[0].run().cfg.SOLVER.MAX_EPOCHS,
        "tested": len(COMPARISONS) + len(OVER_TEACHER) + len(cached),
        "students": tables.students_table(results),
        "methods": tables.methods_table(results, rows),
        "c4": tables.c4_table(results),
        "c4_gains": tables.intervals_table(results, C4_OVER_FPN),
        "why": tables.methods_table(results, [*main_rows, *GROUPS["why"]], bases=True),
        "cached": tables.methods_table(results, [*main_rows, *CACHED.values()], bases=True),
        "cached_gains": tables.intervals_table(results, cached),
        "errors": tables.errors_table(results, rows),
        "groups": tables.groups_table(results),
        "intervals": tables.intervals_table(
            results, OVER_BASE + IN_EQUAL_TIME + OVER_DDPS + PLUS_IN_EQUAL_TIME
        ),
        "over_teacher": tables.teacher_intervals_table(results),
        "equal": tables.equal_table(results),
        "recipes": tables.recipes_table(results),
        "against": tables.against_table(results),
        "settings": tables.settings_table(),
        "teachers": teachers_text(results),
        "tuning": tuning_text(results, TUNING),
        "equal_tuning": tuning_text(results, EQUAL_TUNING),
        "missing": missing_text(results),
        "machine": machine_text(results),
    }
    return Template(read_text(TEMPLATE, "benchmark")).substitute(parts | numbers(results))


def plot(results: Results, path: Path) -> None:
    """Plot mAP over GFLOP of the teacher and of each student, alone and with DDPS.

    Error bars are one standard deviation over seeds.
    """
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    marks: dict[str, Line2D | ErrorbarContainer] = {}
    for run in results.teachers("teacher"):
        [mark] = axes.plot(run["gflop"], run["scores"]["mAP"], "k*", markersize=12)
        marks[TEACHERS[0].title] = mark
    for number, (student, title) in enumerate(STUDENTS.items()):
        for row, fill in zip(GROUPS[f"students: {student}"], ("none", "full")):
            if runs := results.runs[row.key]:
                mean, deviation = mean_and_deviation(runs.values(), "mAP")
                x = next(iter(runs.values()))["gflop"]
                style = {"fmt": "o", "fillstyle": fill, "color": f"C{number}", "capsize": 3}
                height = 0 if math.isnan(deviation) else deviation
                marks[title] = axes.errorbar(x, mean, height, **style)
    axes.set(xlabel="GFLOP per image", ylabel="mAP, per cent")
    axes.set_title("open: alone; filled: with DDPS", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(list(marks.values()), list(marks), fontsize=8)
    save(figure, path)


def write(folder: Path) -> None:
    """Write FOLDER.md and FOLDER/students.png."""
    write_text(page(folder), folder.with_suffix(".md"))
    plot(load(folder), folder / "students.png")
