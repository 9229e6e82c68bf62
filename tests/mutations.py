"""Check that the quick tests fail for each of a list of deliberate defects.

    python -m tests.mutations
    python -m tests.mutations --only "no fsync" "k2 + 1"
    python -m tests.mutations --list

Each mutation replaces one text in one file of a copy of the tree. First the tests that matter run,
then, if they pass, all quick tests. A mutation is caught if a test fails. The exit code is 1 if one
is not caught, if its old text is no longer found exactly once, or if the tests cannot be run.

Each run of pytest is forked from this process, which has imported the libraries and nothing of the
project that the tests use.
"""

import argparse
import compileall
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory, TemporaryFile

import pytest
from tabulate import tabulate

from utils.arguments import program_parser
from utils.errors import UserError, run_main

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    "torch",
    "torchvision",
    "torch.utils.tensorboard",
    "sklearn.metrics",
    "scipy.optimize",
    "matplotlib.figure",
    "hypothesis",
)
CANNOT_RUN = 99  # an exit code that pytest does not have


@dataclass(frozen=True)
class Mutation:
    """A defect.

    Attributes:
        file: in the tree.
        old, new: text in the file, and its replacement.
        tests: files or tests that run first.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


FILES, STEP = "tests/test_files.py", "tests/test_train_step.py"
TRAINER, METRICS = "tests/test_trainer.py", "tests/test_metrics.py"
DISTILL, DATA = "tests/test_distill.py", "tests/test_datasets.py"
SOFT = "tests/test_soft_labels.py"
MUTATIONS = [
    # thirteen that the quick tests did not detect at first
    Mutation(
        "no file lock",
        "utils/locks.py",
        "        lock.acquire()\n",
        "        pass\n",
        f"{FILES}::test_a_lock_is_exclusive",
    ),
    Mutation(
        "no OUTPUT_DIR lock",
        "engine/training/lock.py",
        '    stack.enter_context(locked(folder / NAME, f"OUTPUT_DIR {folder}"))\n',
        "",
        f"{FILES}::test_one_run_per_output_dir",
    ),
    Mutation(
        "no fsync",
        "utils/files.py",
        "                os.fsync(file.fileno())\n",
        "",
        f"{FILES}::test_content_is_on_the_disk_before_it_gets_its_name",
    ),
    Mutation(
        "weights_only=False",
        "utils/files.py",
        "weights_only=True",
        "weights_only=False",
        f"{FILES}::test_loading_a_file_runs_no_code",
    ),
    Mutation(
        "gradients of ranks not multiplied",
        "engine/training/train_step.py",
        "sum(weighted.values()) * ranks()",
        "sum(weighted.values())",
        f"{STEP}::test_gradients_of_ranks_are_added",
    ),
    Mutation(
        "no gradient clipping",
        "engine/training/train_step.py",
        "if self.solver.CLIP_GRADIENTS > 0:",
        "if False:",
        f"{STEP}::test_gradients_are_clipped_to_the_norm_of_the_config",
    ),
    Mutation(
        "warm-up off by one",
        "engine/training/schedule.py",
        "step / max(steps_per_epoch - 1, 1)",
        "step / max(steps_per_epoch, 1)",
        f"{STEP}::test_learning_rate_by_hand",
    ),
    Mutation(
        "best checkpoint by >=",
        "engine/training/epoch_evaluation.py",
        'metrics["search/mAP"] > one["search/mAP"]',
        'metrics["search/mAP"] >= one["search/mAP"]',
        f"{TRAINER}::test_the_best_checkpoint_is_the_first_with_the_highest_score",
    ),
    Mutation(
        "k2 + 1",
        "engine/evaluation/cbgm.py",
        "people[r][:k2]",
        "people[r][: k2 + 1]",
        f"{METRICS}::test_cbgm_matches_the_first_people_of_the_query_image",
    ),
    Mutation(
        "IoU limit 0.6 in the search",
        "engine/evaluation/metrics.py",
        "clamp(max=0.5)",
        "clamp(max=0.6)",
        f"{METRICS}::test_half_overlap_is_enough",
    ),
    Mutation(
        "IoU limit 0.6 of sampled regions",
        "models/roi_heads.py",
        "fg_iou_thresh=0.5",
        "fg_iou_thresh=0.6",
        f"{STEP}::test_matching_thresholds_are_the_published",
    ),
    Mutation(
        "anchor ratios in another order",
        "models/build.py",
        "(0.5, 1.0, 2.0)",
        "(2.0, 1.0, 0.5)",
        f"{STEP}::test_anchors_are_ordered_by_ratio",
    ),
    Mutation(
        "teacher in train mode",
        "models/distiller.py",
        "        super().train(mode)\n        self.teacher.eval()\n",
        "        super().train(mode)\n",
        f"{STEP}::test_the_teacher_stays_in_eval_mode_and_unchanged",
    ),
    Mutation(
        "OIM momentum reversed",
        "models/oim.py",
        "self.momentum * table + (1 - self.momentum) * moves[:, k]",
        "(1 - self.momentum) * table + self.momentum * moves[:, k]",
        f"{DISTILL}::test_oim_momentum_is_the_share_of_the_old_row",
    ),
    # further ones
    Mutation(
        "boxes of mirrored images not mirrored",
        "datasets/loaders.py",
        "[width - right, top, width - left, bottom], 1",
        "[left, top, right, bottom], 1",
        DATA,
    ),
    Mutation(
        "every epoch in the same order",
        "datasets/loaders.py",
        "np.random.default_rng([seed, epoch]).permutation(len(indices))",
        "np.random.default_rng([seed]).permutation(len(indices))",
        DATA,
    ),
    Mutation(
        "boxes x y w h taken as corners",
        "datasets/base.py",
        "xywh[:, :2] + xywh[:, 2:]",
        "xywh[:, 2:]",
        f"{DATA}::test_cuhk_labels_and_order",
    ),
    Mutation(
        "a query finds its own image",
        "datasets/protocol.py",
        "    listed[np.arange(len(own)), own] = 0\n",
        "",
        f"{DATA}::test_prw_protocols",
    ),
    Mutation(
        "smooth L1 of another beta",
        "models/roi_heads.py",
        "beta=1.0",
        "beta=1 / 9",
        f"{STEP}::test_detection_losses_by_hand",
    ),
    Mutation(
        "scores of annotations left out",
        "models/soft_labels.py",
        '            labels[person] = target["scores"][matched[person]]\n',
        "",
        SOFT,
    ),
    Mutation(
        "ignore regions are background",
        "models/soft_labels.py",
        "on_person | ~on_ignored(boxes, target, iou)",
        "on_person | ~on_person",
        SOFT,
    ),
    Mutation(
        "similarities not weighted by scores",
        "models/outputs.py",
        "self.embeddings * self.scores[:, None]",
        "self.embeddings",
        STEP,
    ),
    Mutation(
        "detections kept at the score limit",
        "models/filtering.py",
        "scores > limits.score",
        "scores >= limits.score",
        STEP,
    ),
    Mutation(
        "losses that are not finite accepted",
        "engine/training/train_step.py",
        "if not values.isfinite().all():",
        "if False:",
        STEP,
    ),
    Mutation(
        "parts weighted by images only",
        "engine/training/train_step.py",
        "share[out.mean_over[name]]",
        'share["images"]',
        STEP,
    ),
    Mutation(
        "background in the OIM tables",
        "engine/training/train_step.py",
        "known = labels > 0",
        "known = labels > -1",
        STEP,
    ),
    Mutation(
        "second pass moves norm statistics",
        "models/backbones.py",
        "            norm.momentum = 0.0\n",
        "            pass\n",
        STEP,
    ),
    Mutation(
        "terms never stop",
        "engine/training/train_step.py",
        "0 < cfg.DISTILLER.STOP_EPOCH <= epoch",
        "0 < cfg.DISTILLER.STOP_EPOCH < epoch",
        STEP,
    ),
    Mutation(
        "CD compares people across images",
        "models/distill/cd.py",
        "torch.stack([images, labels], dim=1)",
        "torch.stack([labels, labels], dim=1)",
        DISTILL,
    ),
    Mutation(
        "KD without the square of the temperature",
        "models/distill/kd.py",
        "temperature**2",
        "temperature",
        f"{DISTILL}::test_kd_by_hand",
    ),
    Mutation(
        "one checkpoint too many",
        "engine/training/folder.py",
        "self.newest_first()[self.keep :]",
        "self.newest_first()[self.keep + 1 :]",
        f"{TRAINER}::test_the_newest_checkpoints_are_kept",
    ),
    Mutation(
        "last epoch not evaluated",
        "engine/training/epoch_evaluation.py",
        "epoch % solver.EVAL_PERIOD == 0 or epoch == solver.MAX_EPOCHS",
        "epoch % solver.EVAL_PERIOD == 0",
        f"{TRAINER}::test_every_second_and_the_last_epoch_are_evaluated",
    ),
    Mutation(
        "optimizer not restored",
        "engine/training/state.py",
        '    load_optimizer(train_step.optimizer, saved["optimizer"], where)\n',
        "",
        f"{TRAINER}::test_a_resumed_run_continues_as_an_uninterrupted_one",
    ),
    Mutation(
        "generators not restored",
        "engine/training/generators.py",
        '        torch.set_rng_state(states["torch"])\n',
        "",
        f"{TRAINER}::test_a_resumed_run_continues_as_an_uninterrupted_one",
    ),
    Mutation(
        "one false alarm too many",
        "engine/evaluation/thresholds.py",
        "int(rate * len(self.wrong) + 1e-9)",
        "int(rate * len(self.wrong) + 1e-9) + 1",
        "tests/test_thresholds.py::test_a_detection_in_an_image_without_the_person_is_a_false_alarm",
    ),
    Mutation(
        "matches at the similarity limit dropped",
        "engine/index/gallery_index.py",
        "match.similarity >= min_similarity",
        "match.similarity > min_similarity",
        "tests/test_gallery_index.py::test_min_similarity_exclude_and_equal_people",
    ),
    Mutation(
        "overrides before the config file",
        "configs/files.py",
        "return [*read_config(below, (*above, path)), (path, values)]",
        "return [(path, values), *read_config(below, (*above, path))]",
        "tests/test_configs.py::test_config_is_what_its_name_says",
    ),
    Mutation(
        "exit code 1",
        "utils/errors.py",
        "    sys.exit(2)\n",
        "    sys.exit(1)\n",
        "tests/test_export_weights.py::test_resume_is_refused",
    ),
]


def copy_tree(target: Path) -> None:
    """Copy all files of the tree that git does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in map(os.fsdecode, filter(None, listed.split(b"\0"))):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def run_tests(tree: Path, *arguments: str) -> tuple[int, str]:
    """Run the quick tests in a copy. Return the exit code and the first test that failed."""
    with TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            _test(tree, arguments, output.fileno())
        _, status = os.waitpid(child, 0)
        output.seek(0)
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", output.read(), re.MULTILINE)
    return os.waitstatus_to_exitcode(status), failed.group(1) if failed else ""


def _test(tree: Path, arguments: Sequence[str], output: int) -> None:
    """Run pytest on a copy in this process, and end the process.

    The project's modules that this process has imported are imported again, from the copy.
    """
    code: int = CANNOT_RUN
    try:
        os.dup2(output, sys.stdout.fileno())
        os.dup2(output, sys.stderr.fileno())
        os.chdir(tree)
        own = {path.stem for path in ROOT.iterdir()}
        for name in [name for name in sys.modules if name.partition(".")[0] in own]:
            del sys.modules[name]
        sys.path[0] = str(tree)
        sys.dont_write_bytecode = True
        options = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider"]
        code = pytest.main([*options, *arguments])
        sys.stdout.flush()
    finally:
        os._exit(code)


def prepare(tree: Path) -> None:
    """Copy the project to `tree` and compile it. Import the libraries.

    The compiled files contain digests of their sources, so that a changed source is compiled again.
    """
    copy_tree(tree)
    mode = PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(str(tree), quiet=2, invalidation_mode=mode)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)


def check(tree: Path, mutation: Mutation) -> tuple[bool, str]:
    """Apply a mutation and run the tests. Return whether it is caught, and by which test."""
    path = tree / mutation.file
    text = path.read_text() if path.is_file() else ""
    if (count := text.count(mutation.old)) != 1:
        return False, f"{mutation.file}: expected the old text once, found it {count} times"
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        for tests in (mutation.tests.split(), ["tests"]):
            code, failed = run_tests(tree, *tests)
            if code == 1 and failed:
                return True, failed
            if code not in (0, 5):
                return False, f"pytest ended with {code}"
        return False, "no quick test failed"
    finally:
        path.write_text(text)


def check_all(mutations: list[Mutation]) -> int:
    """Check mutations one by one, and print a table. Return the exit code."""
    with TemporaryDirectory() as folder:
        tree = Path(folder)
        prepare(tree)
        tests = sorted({one for mutation in mutations for one in mutation.tests.split()})
        code, failed = run_tests(tree, *tests)
        if code:
            raise UserError(f"tests: expected a tree whose tests pass, found {failed or code}")
        rows = []
        for mutation in mutations:
            caught, by = check(tree, mutation)
            rows.append([mutation.name, "caught" if caught else "NOT CAUGHT", by])
            print(": ".join(rows[-1]), file=sys.stderr, flush=True)
    print(tabulate(rows, ["mutation", "result", "first failed test"]))
    return 0 if all(row[1] == "caught" for row in rows) else 1


def parse_args() -> argparse.Namespace:
    parser = program_parser(__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[mutation.name for mutation in MUTATIONS],
        metavar="NAME",
        help="check only these mutations",
    )
    parser.add_argument("--list", action="store_true", help="print the mutations and run nothing")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    chosen = [one for one in MUTATIONS if not args.only or one.name in args.only]
    if args.list:
        print(tabulate([[m.name, m.file, m.tests] for m in chosen], ["mutation", "file", "tests"]))
        return 0
    return check_all(chosen)


if __name__ == "__main__":
    run_main(main)
