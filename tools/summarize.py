"""Print one table of finished runs: scores, parameters and seconds per image.

python -m tools.summarize "teacher=runs/teacher" "student=runs/student"
"""

import json
from pathlib import Path

from tabulate import tabulate

from configs.defaults import load_cfg
from engine.evaluation.records import flat_metrics
from tools.experiments.runs import SCORES
from tools.measure.network import count_parameters
from utils.arguments import program_parser
from utils.errors import UserError, reason_of, run_main


def summarize(title: str, folder: Path) -> list:
    """Return a table row: title, scores in per cent, parameters in millions, seconds per image."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        metrics = flat_metrics(results)
        scores = [f"{100 * metrics[name]:.2f}" for name in SCORES.values()]
        seconds = results["protocol"].get("seconds_per_image", float("nan"))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path}: expected the results of an evaluation ({reason_of(error)})"
        ) from None
    parameters = count_parameters(load_cfg(str(folder / "config.yaml")))
    return [title, *scores, f"{parameters / 1e6:.2f} M", f"{seconds:.3f}"]


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument(
        "runs", nargs="+", metavar="TITLE=FOLDER", help="title and OUTPUT_DIR of a finished run"
    )
    args = parser.parse_args()
    if wrong := [run for run in args.runs if not run.partition("=")[2]]:
        raise UserError(f"expected TITLE=FOLDER, found {wrong[0]}")
    runs = [run.partition("=")[::2] for run in args.runs]
    headers = ["", *SCORES, "parameters", "s/image"]
    print(
        tabulate(
            [summarize(title, Path(folder)) for title, folder in runs],
            headers,
            disable_numparse=True,
            colalign=("left",) + ("right",) * 6,
        )
    )


if __name__ == "__main__":
    run_main(main)
