"""One table of finished runs: python -m tools.summarize TITLE=FOLDER [TITLE=FOLDER ...]"""

import argparse
import json
from pathlib import Path

import torch
from tabulate import tabulate
from yacs.config import CfgNode

from configs.defaults import load_cfg
from engine.evaluation.records import flat_metrics
from models.build import build_net
from utils.errors import UserError, reason_of, run_main

# Column -> its name among the metrics of an evaluation, fractions of 1.
SCORES = {
    "recall": "detection/recall",
    "AP": "detection/ap",
    "mAP": "search/mAP",
    "top-1": "search/top1",
}


def count_parameters(cfg: CfgNode) -> int:
    """Of the config's network; buffers do not count."""
    with torch.device("meta"):  # shapes alone
        net = build_net(cfg, num_pids=1, pretrained=False)
    return sum(p.numel() for p in net.parameters())


def summarize(title: str, folder: Path) -> list:
    """A row: title, four scores in per cent, parameters in millions, seconds per image."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="TITLE=FOLDER")
    args = parser.parse_args()
    if wrong := [run for run in args.runs if "=" not in run]:
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
