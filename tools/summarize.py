"""One table of finished runs: python tools/summarize.py TITLE=FOLDER [TITLE=FOLDER ...]"""
import argparse
import json
import sys
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs.defaults import load_cfg
from models.build import build_net
from utils.errors import UserError, run_main

COLUMNS = {"recall": "detection", "ap": "detection", "mAP": "search", "top1": "search"}


def summarize(title: str, folder: Path) -> list:
    """A row: title, four scores in per cent, parameters in millions, seconds per image."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        scores = [100 * results[group][name] for name, group in COLUMNS.items()]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: expected the results of an evaluation ({error!r})") from None
    net = build_net(load_cfg(str(folder / "config.yaml")), num_pids=1, pretrained=False)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    seconds = results["protocol"].get("seconds_per_image", float("nan"))
    return [title, *scores, f"{millions:.2f} M", f"{seconds:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="TITLE=FOLDER")
    runs = [run.partition("=")[::2] for run in parser.parse_args().runs]
    headers = ["", "recall", "AP", "mAP", "top-1", "parameters", "s/image"]
    print(tabulate([summarize(title, Path(folder)) for title, folder in runs], headers,
                   floatfmt=".2f", colalign=("left",) + ("right",) * 6))


if __name__ == "__main__":
    run_main(main)
