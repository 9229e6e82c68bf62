"""Train one student by several methods with one teacher, and compare them in a table and a plot.

    python -m tools.compare --cfg configs/cuhk_sysu/resnet18_ddps.yaml \\
        --methods none dfd ld cd ddps pkd+ld+cd --seeds 1 2 3 SOLVER.MAX_EPOCHS 10

Each run has the folder OUTPUT_DIR/<terms>_seed<k>. An interrupted comparison continues when the
same command is run again. The program writes OUTPUT_DIR/comparison.{md,csv,json,png}.

With --gradients N it trains nothing. It prints the norms of the gradients of all weighted losses on
the student during the next N steps of each run.
"""

import argparse
import logging
from pathlib import Path

from configs.defaults import load_cfg, take_overrides
from tools.experiments import gradients
from tools.experiments.comparison import write
from tools.experiments.methods import ALONE, METHODS
from tools.experiments.runs import Run, finish_all, make_run
from tools.measure.network import count_parameters
from utils.arguments import add_overrides, positive, program_parser
from utils.errors import UserError, run_main


def distinct(methods: dict[str, list[Run]]) -> list[Run]:
    """Return all runs without duplicates, since two method names can mean the same run."""
    return list({run.folder: run for group in methods.values() for run in group}.values())


def compare(methods: dict[str, list[Run]], out: Path, jobs: int) -> int:
    """Finish all runs, and write the table after each of them. Return the exit code."""
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
    written = [file.name for file in sorted(out.glob("comparison.*"))]
    print(f"\n{table}\nwrote {', '.join(written)} in {out}")
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--cfg",
        required=True,
        metavar="FILE",
        help="YAML config of the student, with DISTILLER.TEACHER_CKPT",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        required=True,
        metavar="METHOD",
        help=f"{ALONE} (the student without a teacher), or names joined by +: "
        + ", ".join(name for name in METHODS if name != ALONE),
    )
    parser.add_argument(
        "--seeds", nargs="+", default=["1"], metavar="SEED", help="one run per seed (default: 1)"
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help="number of simultaneous trainings, which share the CPU cores (default: 1)",
    )
    parser.add_argument(
        "--gradients",
        type=positive,
        default=0,
        metavar="N",
        help="train nothing, print gradient norms for N steps",
    )
    add_overrides(parser, "config values of all runs")
    args = parser.parse_intermixed_args()
    take_overrides(args, "methods", "seeds")
    if args.gradients and args.jobs > 1:
        raise UserError(f"--jobs: expected 1 with --gradients, found {args.jobs}")
    if not args.methods or not args.seeds:
        parser.error("expected at least one method and one seed")
    if wrong := [seed for seed in args.seeds if not seed.isdecimal()]:
        raise UserError(f"--seeds: expected whole numbers, found {wrong[0]}")
    for key, option in (("SEED", "--seeds"), ("DISTILLER.TERMS", "--methods")):
        if key in args.overrides[::2]:
            raise UserError(f"override {key}: expected the option {option} instead")
    return args


def main() -> int:
    args = parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns about every resumed run
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
