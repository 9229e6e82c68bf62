"""Train one student by several methods under one teacher; compare them in a table and a plot.

python -m tools.compare --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
    --methods none dfd ld cd ddps pkd+ld+cd --seeds 1 2 3 SOLVER.MAX_EPOCHS 10

A method is none (the student alone, by the same config), a term, several joined by +, or one of
ddps, fgd, dkd, cd_contrastive, kd_standardized, dkd_standardized. Each run has a folder
OUTPUT_DIR/<terms>_seed<k>; the same command again goes on where it was stopped. Writes
OUTPUT_DIR/comparison.{md,csv,json,png}. With --gradients N, instead, it prints which loss leads in
each run: the norms of the losses' gradients on the student in the N steps to come.
"""

import argparse
import logging
from pathlib import Path

from configs.defaults import get_cfg, load_cfg
from tools.experiments import gradients
from tools.experiments.comparison import write
from tools.experiments.runs import Run, finish_all, make_run
from tools.summarize import count_parameters
from utils.errors import UserError, run_main


def distinct(methods: dict[str, list[Run]]) -> list[Run]:
    """Every run once: two methods may be one."""
    return list({run.folder: run for group in methods.values() for run in group}.values())


def compare(methods: dict[str, list[Run]], out: Path, jobs: int) -> int:
    """Finish every run, with the table written after each; the exit code."""
    runs = distinct(methods)
    parameters = count_parameters(runs[0].cfg)
    done: dict[Path, dict] = {}
    failed, table = [], ""
    for run, found, reason in finish_all(runs, jobs):
        if found:
            done[run.folder] = found
        else:
            failed.append(
                {"method": run.name, "seed": run.seed, "reason": reason, "log": str(run.log)}
            )
        scores = {
            method: [done[run.folder] for run in group if run.folder in done]
            for method, group in methods.items()
        }
        table = write(out, {m: found for m, found in scores.items() if found}, failed, parameters)
    print(f"\n{table}\nwrote {out}/comparison.md, .csv, .json and .png")
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cfg",
        required=True,
        metavar="FILE",
        help="the student's YAML config, with DISTILLER.TEACHER_CKPT",
    )
    parser.add_argument("--methods", nargs="+", required=True, metavar="METHOD")
    parser.add_argument("--seeds", nargs="+", default=["1"], metavar="SEED")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at once; they share the cores"
    )
    parser.add_argument(
        "--gradients",
        type=int,
        default=0,
        metavar="N",
        help="no training: print the gradient norm of every weighted loss for N steps",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="config values for all")
    args = parser.parse_intermixed_args()
    known = get_cfg()
    for values in (args.methods, args.seeds):  # the last list takes the KEY VALUE pairs too
        keys = (i for i, value in enumerate(values) if value.partition(".")[0] in known)
        start = next(keys, len(values))
        args.overrides += values[start:]
        del values[start:]
    if args.jobs < 1:
        raise UserError(f"--jobs: expected at least 1, found {args.jobs}")
    if args.gradients < 0:
        raise UserError(f"--gradients: expected a number of steps, found {args.gradients}")
    if args.gradients and args.jobs > 1:
        raise UserError("--jobs: of trainings; --gradients takes one run after the other")
    if not args.methods or not args.seeds:
        parser.error("expected at least one method and one seed")
    if wrong := [seed for seed in args.seeds if not seed.isdecimal()]:
        raise UserError(f"--seeds: expected whole numbers, found {wrong[0]}")
    for key, option in (("SEED", "--seeds"), ("DISTILLER.TERMS", "--methods")):
        if key in args.overrides[::2]:
            raise UserError(f"override {key}: expected {option} in its place")
    return args


def main() -> int:
    args = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumed run
    seeds = dict.fromkeys(map(int, args.seeds))
    methods = {
        method: [make_run(args.cfg, args.overrides, method, seed) for seed in seeds]
        for method in args.methods
    }
    if args.gradients:
        for run in distinct(methods):
            gradients.show(run, args.gradients)
        return 0
    return compare(methods, Path(load_cfg(args.cfg, args.overrides).OUTPUT_DIR), args.jobs)


if __name__ == "__main__":
    run_main(main)
