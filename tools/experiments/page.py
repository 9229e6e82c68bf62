"""docs/benchmark.md and its plot, from the results in docs/benchmark/ alone.

    python -m tools.experiments.page

The words are those of docs/benchmark/page.md; every result, and what is missing yet, comes from
the files. tools.benchmark writes the page after each run.
"""

import argparse
import math
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tabulate import tabulate

from configs.defaults import load_cfg
from configs.ranges import flatten
from tools.experiments.results import (
    Gain,
    Interval,
    Results,
    gain,
    load,
    mean_and_deviation,
    undecided,
)
from tools.experiments.rows import (
    COMPARISONS,
    CONFIGS,
    DDPS_OVER,
    GROUPS,
    MORE_SEEDS,
    ROWS,
    SEEDS,
    SOURCES,
    STUDENTS,
    TAUGHT,
    TEACHERS,
    Row,
    in_order,
)
from utils.errors import run_main
from utils.files import read_text, write_text
from utils.plots import save

WORDS = Path(__file__).parents[2] / "docs/benchmark/page.md"
SCORES = ("mAP", "top-1", "AP")
ERRORS = ("found", "low_score", "poorly_placed", "missed")
PARTS = (f"{TAUGHT}_alone", f"{TAUGHT}_ddps", "dfd", "ld", "cd")  # by groups of queries
NONE, NOT_YET = "–", "Not yet."


# --- tables ---


def table(lines: list[dict]) -> str:
    if not lines:
        return NOT_YET
    align = ["left", *["right"] * (len(lines[0]) - 1)]
    return tabulate(lines, "keys", "github", colalign=align, disable_numparse=True)


def show(mean: float, deviation: float) -> str:
    return f"{mean:.1f}" + ("" if math.isnan(deviation) else f" ± {deviation:.1f}")


def interval(ends: Interval | None) -> str:
    return NONE if ends is None else f"{ends.low:+.1f} to {ends.high:+.1f}"


def gain_cells(found: Gain | None) -> dict[str, str]:
    return {
        "gain": NONE if found is None else f"{found.mean:+.1f}",
        "95 % over seeds": interval(found and found.over_seeds),
        "95 % over people": interval(found and found.over_people),
    }


def scores_cells(runs: Collection[dict]) -> dict[str, str]:
    return {name: show(*mean_and_deviation(runs, name)) for name in SCORES}


def row_cells(results: Results, row: Row) -> dict[str, str]:
    """Scores of a row that has any, and its gain."""
    runs = results.runs[row.key]
    scores = scores_cells(runs.values())
    alone = row.key == row.base
    found = None if alone else gain(runs, results.runs[row.base], results.people)
    return {"seeds": str(len(runs))} | scores | gain_cells(found)


def cost_cells(run: dict) -> dict[str, str]:
    return {"parameters": f"{run['parameters'] / 1e6:.2f} M", "GFLOP": f"{run['gflop']:.2f}"}


def students_table(results: Results) -> str:
    lines = []
    if trained := results.teachers["teacher"]:
        seeds = {"seeds": "1" if len(trained) == 1 else f"1 ({len(trained)} runs)"}
        cells = cost_cells(trained[0]) | seeds | scores_cells(trained) | gain_cells(None)
        lines.append({"": TEACHERS[0].title} | cells)
    for student in STUDENTS:
        for row in GROUPS[f"students: {student}"]:
            if runs := results.runs[row.key]:
                cost = cost_cells(next(iter(runs.values())))
                lines.append({"": row.title} | cost | row_cells(results, row))
    return table(lines)


def methods_table(results: Results, rows: Sequence[Row], bases: bool = False) -> str:
    """bases: with what each row is compared with."""
    lines = []
    for row in rows:
        if results.runs[row.key]:
            beside = {"gain over": "" if row.key == row.base else ROWS[row.base].title}
            lines.append({"": row.title, **(beside if bases else {})} | row_cells(results, row))
    return table(lines)


def against_table(results: Results) -> str:
    """What DDPS gains over each of the other methods."""
    lines = []
    for ddps, row in DDPS_OVER:
        if found := gain(results.runs[ddps.key], results.runs[row.key], results.people):
            lines.append({"DDPS over": row.title} | gain_cells(found))
    return table(lines)


def errors_table(results: Results, rows: Sequence[Row]) -> str:
    """What became of the people, and re-id on given boxes, means over seeds."""
    named = [(row.title, list(results.runs[row.key].values())) for row in rows]
    lines = []
    for title, runs in [(TEACHERS[0].title, results.teachers["teacher"]), *named]:
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
    """The lowest, middle and highest third, as indices; of equals the first come first."""
    parts = np.array_split(np.argsort(values, kind="stable"), 3)
    return {f"{name} {values[one[0]]:.0f} to {values[one[-1]]:.0f}": one for one in parts}


def query_groups(results: Results) -> dict[str, np.ndarray]:
    """Queries by how hard they are, as indices."""
    teachers = [run["query_ap"] for run in results.teachers["teacher"]]
    facts = results.queries["queries"]
    is_hidden = np.array([query["hidden"] > 0 for query in facts])
    halves = {"nobody stands before": ~is_hidden, "others stand before": is_hidden}
    return (
        (thirds("teacher's AP", (100 * np.mean(teachers, axis=0)).tolist()) if teachers else {})
        | thirds("height in pixels", [query["height"] for query in facts])
        | {f"{name} ({part.sum()})": part.nonzero()[0] for name, part in halves.items()}
    )


def groups_table(results: Results) -> str:
    """mAP of the student alone in each group of queries, and what DDPS and its terms bring."""
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
    """The values of every term here, and whose they are."""
    distiller = load_cfg(f"{CONFIGS}/{TAUGHT}.yaml").DISTILLER
    lines = []
    for term, source in SOURCES.items():
        values = ", ".join(f"{k} {v}" for k, v in flatten(distiller[term.upper()]).items())
        lines.append({"term": term, "values": f"`{values}`", "whose": source})
    return tabulate(lines, "keys", "github", disable_numparse=True)


# --- sentences ---


def teachers_text(results: Results) -> str:
    """How each teacher ended: the evaluations that say whether it has converged."""
    lines = []
    for one in TEACHERS:
        for run in results.teachers[one.key]:
            past = ", ".join(f"{epoch}: {mAP}" for epoch, mAP in run["mAP by epoch"].items())
            lines.append(f"- {one.title}: mAP by epoch, {past}.")
    return "\n".join(lines) or NOT_YET


def missing_text(results: Results) -> str:
    more = in_order(undecided(results), MORE_SEEDS)
    wanted = [*in_order(ROWS.values(), SEEDS), *more]
    lacking: dict[str, list[str]] = {}
    for row, seed in wanted:
        if seed not in results.runs[row.key]:
            lacking.setdefault(row.title, []).append(str(seed))
    if not lacking:
        return f"All {len(wanted)} runs are there."
    done = len(wanted) - sum(map(len, lacking.values()))
    names = "; ".join(f"{title} (seed {', '.join(seeds)})" for title, seeds in lacking.items())
    return f"{done} of {len(wanted)} runs are there. Missing yet: {names}."


def machine_text(results: Results) -> str:
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
        f"Training took {hours:.1f} hours of runs, without evaluations.\n"
        f"- **Checkpoints that taught**, by the start of their SHA-256: {who or 'none yet'}."
    )


def tuning_text(results: Results) -> str:
    rates = [f"{rate}: {run['scores']['mAP']:.1f} mAP" for rate, run in results.tuning.items()]
    return "; ".join(rates) or NOT_YET


# --- the page ---


def page(folder: Path) -> str:
    """The text of docs/benchmark.md."""
    results = load(folder)
    main_rows = GROUPS[f"students: {TAUGHT}"]
    taught = [*main_rows, *GROUPS["methods"]]
    parts = {
        "frames": " and ".join(map(str, results.queries["frames"])),
        "identities": results.queries["identities"],
        "queries": len(results.people),
        "people": len(set(results.people.tolist())),
        "epochs": TEACHERS[0].run().cfg.SOLVER.MAX_EPOCHS,
        "tested": len(COMPARISONS),
        "students": students_table(results),
        "methods": methods_table(results, taught),
        "against": against_table(results),
        "why": methods_table(results, [*main_rows, *GROUPS["why"]], bases=True),
        "errors": errors_table(results, taught),
        "groups": groups_table(results),
        "settings": settings_table(),
        "teachers": teachers_text(results),
        "tuning": tuning_text(results),
        "missing": missing_text(results),
        "machine": machine_text(results),
    }
    return Template(read_text(WORDS, "benchmark")).substitute(parts)


def plot(results: Results, path: Path) -> None:
    """mAP over GFLOP: each student alone and with DDPS, bars of a standard deviation; teacher."""
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    marks: dict[str, Line2D | ErrorbarContainer] = {}
    for run in results.teachers["teacher"]:
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
    axes.set(xlabel="GFLOP for one image", ylabel="mAP, per cent")
    axes.set_title("open: alone; filled: with DDPS", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(list(marks.values()), list(marks), fontsize=8)
    save(figure, path)


def write(folder: Path) -> None:
    """FOLDER.md and FOLDER/students.png."""
    write_text(page(folder), folder.with_suffix(".md"))
    plot(load(folder), folder / "students.png")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/benchmark"), metavar="FOLDER")
    write(parser.parse_args().out)


if __name__ == "__main__":
    run_main(main)
