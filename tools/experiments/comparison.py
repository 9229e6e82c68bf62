"""The table and the plot that tools.compare writes.

The scores of a run are a dict: all columns of SCORES in per cent, SECONDS, and "seed".
"""

import csv
import io
import json
import statistics
from datetime import timedelta
from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from tools.experiments.methods import ALONE
from tools.experiments.runs import SCORES, SECONDS
from utils.files import make_folder, write_text
from utils.plots import save

GAINS = ("mAP", "top-1")  # scores whose gain over the student alone is shown and plotted
NOTE = (
    "Per cent; mean ± sample standard deviation over seeds. Gain: over the student alone "
    f"(`{ALONE}`). Parameters: the student's. Training: h:mm:ss, without evaluations."
)


def make_rows(scores: dict[str, list[dict]], parameters: int) -> list[dict]:
    """Return one table row per method.

    Args:
        scores: scores of the finished runs of each method.
        parameters: number of parameters of the student.

    Returns:
        Mean and standard deviation of every column (None for one run), and the gain of the mean
        over ALONE (None if that method has no run).
    """
    alone = scores.get(ALONE)
    rows = []
    for method, runs in scores.items():
        row = {"method": method, "seeds": len(runs), "parameters": parameters}
        for name in (*SCORES, SECONDS):
            values = [run[name] for run in runs]
            row[name] = statistics.mean(values)
            row[f"{name} std"] = statistics.stdev(values) if len(values) > 1 else None
        for name in GAINS:
            base = statistics.mean(run[name] for run in alone) if alone else None
            row[f"{name} gain"] = row[name] - base if alone else None
        rows.append(row)
    return rows


def markdown(rows: list[dict], failed: list[dict]) -> str:
    """Return the table as Markdown, with a list of failed runs."""

    def show(value: float | None, form: str) -> str:
        return "" if value is None else form.format(value)

    lines = [
        {"method": row["method"], "seeds": row["seeds"]}
        | {n: show(row[n], "{:.2f}") + show(row[f"{n} std"], " ± {:.2f}") for n in SCORES}
        | {f"{n} gain": show(row[f"{n} gain"], "{:+.2f}") for n in GAINS}
        | {
            "parameters": f"{row['parameters'] / 1e6:.2f} M",
            "training": str(timedelta(seconds=round(row[SECONDS]))),
        }
        for row in rows
    ]
    notes = [
        f"- Failed: {run['method']}, seed {run['seed']}: {run['reason']} ({run['log']})"
        for run in failed
    ]
    table = tabulate(lines, "keys", "github", disable_numparse=True)
    return "\n".join([table, "", NOTE, *([""] if notes else []), *notes, ""])


def plot(rows: list[dict], scores: dict[str, list[dict]], path: Path) -> None:
    """Plot mAP and top-1 of every method.

    Dots are runs, bars are mean and standard deviation, the dashed line is the student alone.
    """
    figure = Figure(figsize=(9, 1.2 + 0.35 * len(rows)), dpi=150, layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), GAINS):
        for place, row in enumerate(rows):
            values = [run[name] for run in scores[row["method"]]]
            axes.errorbar(
                row[name], place, xerr=row[f"{name} std"] or 0, fmt="o", capsize=4, color="tab:blue"
            )
            axes.plot(values, [place] * len(values), ".", color="tab:gray")
            if row["method"] == ALONE:
                axes.axvline(row[name], color="tab:orange", linestyle="--", linewidth=1)
        axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
        axes.set_xlabel(f"{name}, per cent")
        axes.grid(axis="x", alpha=0.3)
    axes.invert_yaxis()  # the first method is at the top; both plots share the axis
    save(figure, path)


def write(folder: Path, scores: dict[str, list[dict]], failed: list[dict], parameters: int) -> str:
    """Write folder/comparison.{md,csv,json,png}; without a finished run, only .md and .json.

    Args:
        scores: scores of the finished runs of each method.
        failed: {"method", "seed", "reason", "log"} of each failed run.
        parameters: number of parameters of the student.

    Returns:
        The table as Markdown.
    """
    make_folder(folder, "OUTPUT_DIR")
    rows = make_rows(scores, parameters)
    content = {"methods": rows, "runs": scores, "failed": failed}
    write_text(json.dumps(content, indent=2) + "\n", folder / "comparison.json")
    text = markdown(rows, failed)
    write_text(text, folder / "comparison.md")
    if rows:
        lines = io.StringIO(newline="")
        table = csv.DictWriter(lines, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
        write_text(lines.getvalue(), folder / "comparison.csv")
        plot(rows, scores, folder / "comparison.png")
    else:  # those of an earlier comparison
        for suffix in (".csv", ".png"):
            (folder / f"comparison{suffix}").unlink(missing_ok=True)
    return text
