"""The results of an evaluation as tables and plots."""

import sys
from pathlib import Path

from tabulate import tabulate

from engine.evaluation.metrics import SEARCH_SCORE
from engine.evaluation.records import NUMBERS, SIZES_DRAWN, THRESHOLDS_DRAWN
from utils.plots import save_curves, save_shares

TITLES = ("mAP", "top-1", "top-5", "top-10")  # of NUMBERS


def report(results: dict, folder: Path) -> None:
    """Print results.json in per cent, and write the plots to `folder`."""
    print_results(results)
    draw_sizes(results, folder / SIZES_DRAWN)
    draw_thresholds(results, folder / THRESHOLDS_DRAWN)


def print_results(results: dict) -> None:
    """Print the tables of an evaluation, in per cent."""
    detection, search = results["detection"], results["search"]
    row = [detection["recall"], detection["ap"], results["detection_labeled"]["recall"]]
    row += [search[name] for name in NUMBERS]
    print(results["protocol"]["name"])
    heads = ["recall", "AP", "labelled recall", *TITLES]
    print(tabulate([[100 * value for value in row]], heads, floatfmt=".2f"))
    print(errors_line(results["detection_errors"]))
    print(thresholds_table(results["thresholds"]))
    if unmatched := results["protocol"]["queries_unmatched"]:
        print(f"left out: {unmatched} queries that none of their images matches")
    if len(results["galleries"]) > 1:
        rows = [[g["name"], *(100 * g[name] for name in NUMBERS)] for g in results["galleries"]]
        print(tabulate(rows, ["", *TITLES], floatfmt=".2f"))
    sys.stdout.flush()


def errors_line(errors: dict[str, float]) -> str:
    """Format the shares of people found and not found as one line."""
    share = {name: f"{100 * value:.2f}%" for name, value in errors.items() if name != "people"}
    return (
        f"of {errors['people']} people: {share['found']} found, {share['low_score']} with a score "
        f"under {SEARCH_SCORE}, {share['poorly_placed']} poorly placed, {share['missed']} missed"
    )


def thresholds_table(thresholds: dict[str, dict[str, float]]) -> str:
    """Format the thresholds and their rates of false alarms as a table."""
    rows = [
        [f"{float(rate):.0%}", at["similarity"], 100 * at["matches_kept"], 100 * at["queries_kept"]]
        for rate, at in thresholds.items()
    ]
    return tabulate(
        rows,
        ["false alarms", "from similarity", "true matches kept", "queries that keep one"],
        floatfmt=("", ".3f", ".2f", ".2f"),
        colalign=("right",) * 4,
    )


def draw_sizes(results: dict, path: Path) -> None:
    """Plot mAP and top-1 over the gallery size if there are several sizes. Subsets have no size.

    Otherwise remove the plot of an earlier evaluation.
    """
    whole = results["protocol"]["gallery_images"]
    sized = {
        whole if g["gallery_size"] == -1 else g["gallery_size"]: g
        for g in results["galleries"]
        if isinstance(g["gallery_size"], int)
    }
    if len(sized) < 2:
        path.unlink(missing_ok=True)
    else:
        curves = {"mAP": "mAP", "top-1": "top1"}
        curves = {title: [g[name] for g in sized.values()] for title, name in curves.items()}
        title = results["protocol"]["dataset"] + (" + CBGM" if results["protocol"]["cbgm"] else "")
        save_curves(path, title, "gallery size (images)", list(sized), curves)


def draw_thresholds(results: dict, path: Path) -> None:
    """Plot the shares of false alarms and true matches over the similarity, and the thresholds."""
    curve, protocol = results["threshold_curve"], results["protocol"]
    curves = {
        "queries with a false alarm": curve["false_alarms"],
        "true matches kept": curve["matches_kept"],
    }
    marks = {f"{float(r):.0%}": at["similarity"] for r, at in results["thresholds"].items()}
    title = protocol["name"] + (" + CBGM" if protocol["cbgm"] else "")
    save_shares(path, title, "similarity", curve["similarity"], curves, marks)
