"""The training programs as a user runs them: teacher, student, evaluation, cache, bad input."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from engine.run import run
from tests.training import PROGRAM_CONFIG, PROGRAMS, Run, make_data
from tools import summarize

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def train(program: str, base: Path, out: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        program,
        "--cfg",
        base / "tiny.yaml",
        *arguments,
        "OUTPUT_DIR",
        base / out,
        "INPUT.DATA_ROOT",
        base / "data" / "CUHK-SYSU",
    ]
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config, the run of a teacher, and the run of a student with
    it.

    The student's process is forked; test_compare starts train_ddps.py as a user does.
    """
    folder = tmp_path_factory.mktemp("programs")
    make_data(folder)
    (folder / "tiny.yaml").write_text(
        PROGRAM_CONFIG.replace("EVAL_USE_GT: True", "EVAL_USE_GT: False")
    )
    teacher = train(
        "train_base.py", folder, "teacher", "SOLVER.OPTIMIZER", "adamw", "SOLVER.BASE_LR", "0.001"
    )
    assert teacher.returncode == 0, teacher.stderr
    best = str(folder / "teacher" / "best.pth")
    terms = "DISTILLER.TEACHER_CKPT", best
    student = Run(folder, "student", *terms, program="ddps", drawn=True)
    assert student.wait() == 0, student.text
    return folder


def results(folder: Path) -> dict:
    found = json.loads((folder / "results.json").read_text())
    found["protocol"].pop("seconds_per_image", None)
    found.pop("epoch")  # is recorded only for a checkpoint in OUTPUT_DIR
    return found


def test_files_of_a_run(base):
    for name in ("teacher", "student"):
        files = {path.name.split(".")[0] for path in (base / name).iterdir()}
        assert files >= {
            "config",
            "epoch_00",
            "epoch_01",
            "best",
            "events",
            "results",
            "eval_cache",
            "evaluations",
        }
        found = results(base / name)
        assert set(found["detection"]) == {"recall", "ap"}
        assert set(found["search"]) == {"mAP", "top1", "top5", "top10"}
    lines = (base / "student" / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_tensorboard_contains_all_losses_and_a_picture(base):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(base / "student"), {"scalars": 0, "images": 0}).Reload()
    scalars = events.Tags()["scalars"]
    losses = {tag.removeprefix("loss/") for tag in scalars if tag.startswith("loss/")}
    assert losses == {
        "rpn_cls",
        "rpn_reg",
        "proposal_cls",
        "proposal_reg",
        "oim",
        "dfd",
        "ld",
        "cd",
        "total",
    }
    assert {
        "train/learning_rate",
        "train/seconds_per_step",
        "train/images_per_second",
        "eval/search/mAP",
    } <= set(scalars)
    assert [e.step for e in events.Scalars("loss/total")] == list(range(8))
    assert events.Images("detections")[0].width >= 112


def test_eval_equals_the_last_evaluation_of_training(base, tmp_path):
    wanted = results(base / "student")
    checkpoint = base / "student" / "epoch_01.pth"
    run = Run(base, tmp_path / "out", "--eval", "--ckpt", str(checkpoint), program="ddps")
    assert run.wait() == 0, run.text
    assert results(run.out) == wanted


def test_summarize(base, program):
    """A title that looks like a number is printed unchanged."""
    metrics = json.loads((base / "teacher/results.json").read_text())
    code, out, err = program(summarize.main, f"0.001={base / 'teacher'}", f"b={base / 'teacher'}")
    assert code == 0, err
    first, second = (line.split() for line in out.splitlines()[-2:])
    assert (first[0], second[0]) == ("0.001", "b") and first[1:] == second[1:]
    assert first[2] == f"{100 * metrics['detection']['ap']:.2f}"
    assert first[-1] == f"{metrics['protocol']['seconds_per_image']:.3f}"
    wrong_runs = ((base, str(base)), (f"a={base}", "results.json: expected"), ("a=", "found a="))
    for wrong, found in wrong_runs:
        code, _, err = program(summarize.main, wrong)
        assert (code, err.count("\n")) == (2, 1) and found in err


def test_cache_needs_neither_images_nor_checkpoint(base, tmp_path):
    shutil.copytree(base / "data" / "CUHK-SYSU" / "annotation", tmp_path / "data" / "annotation")
    (tmp_path / "data" / "Image" / "SSM").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    shutil.copy(base / "student" / "eval_cache.pth", tmp_path / "out")
    run = Run(base, tmp_path / "out", "--eval", "EVAL_USE_CACHE", "True", program="ddps")
    assert run.wait() == 0, run.text


def test_student_checkpoint_contains_only_the_student_and_the_terms(base):
    student = torch.load(base / "student" / "epoch_01.pth", weights_only=True)
    teacher = torch.load(base / "teacher" / "best.pth", weights_only=True)
    assert student["model"].keys() == teacher["model"].keys()
    assert all(key.startswith(("backbone", "rpn", "roi_heads")) for key in student["model"])
    assert {key.split(".")[0] for key in student["terms"]} == {"dfd"}


# --- bad input: (program, arguments, parts of the message); {0} is the folder of the runs ---

BAD = {
    "no dataset": ("base", "INPUT.DATA_ROOT {0}/nowhere", ["{0}/nowhere", "make_synthetic"]),
    "unknown key": ("base", "SOLVER.EPOCHS 3", ["SOLVER.EPOCHS"]),
    "wrong type": ("base", "SOLVER.MAX_EPOCHS many", ["SOLVER.MAX_EPOCHS", "many"]),
    "key without value": ("base", "SOLVER.MAX_EPOCHS", ["KEY VALUE", "SOLVER.MAX_EPOCHS"]),
    "unknown dataset": ("base", "INPUT.DATASET MARS", ["INPUT.DATASET", "MARS", "PRW"]),
    "unknown optimizer": ("base", "SOLVER.OPTIMIZER lion", ["SOLVER.OPTIMIZER", "lion", "adamw"]),
    "a term that is a key": (
        "ddps",
        "DISTILLER.TEACHER_CKPT {0}/teacher/best.pth DISTILLER.TERMS [terms]",
        ["DISTILLER.TERMS", "found terms"],
    ),
    "a term that does not exist": (
        "base",
        "DISTILLER.TERMS [foo]",
        ["DISTILLER.TERMS: expected", "found foo"],
    ),
    "unknown backbone": ("base", "BACKBONE.NAME vgg16", ["BACKBONE.NAME", "vgg16", "resnet18"]),
    "missing weights": ("base", "BACKBONE.WEIGHTS {0}/no.pth", ["BACKBONE.WEIGHTS", "{0}/no.pth"]),
    "missing device": ("base", "DEVICE cuda:77", ["DEVICE", "cuda:77"]),
    "unknown device": ("base", "DEVICE gpu", ["DEVICE", "gpu"]),
    "missing config": ("base", "--cfg {0}/no.yaml", ["{0}/no.yaml"]),
    "run exists": ("base", "OUTPUT_DIR {0}/teacher", ["{0}/teacher", "--resume"]),
    "eval of nothing": ("base", "--eval", ["--eval", "--ckpt"]),
    "missing checkpoint": ("base", "--eval --ckpt {0}/no.pth", ["{0}/no.pth"]),
    "not a checkpoint": ("base", "--eval --ckpt {0}/tiny.yaml", ["{0}/tiny.yaml"]),
    "another backbone": (
        "base",
        "--eval --ckpt {0}/teacher/best.pth BACKBONE.NAME resnet18",
        ["BACKBONE.NAME", "'resnet18'", "'resnet18_x05'"],
    ),
    "no teacher": ("ddps", "", ["DISTILLER.TEACHER_CKPT", "train_base.py"]),
    "lost teacher": (
        "ddps",
        "DISTILLER.TEACHER_CKPT {0}/no.pth",
        ["DISTILLER.TEACHER_CKPT", "{0}/no.pth"],
    ),
    "unknown term": (
        "ddps",
        "DISTILLER.TEACHER_CKPT {0}/teacher/best.pth DISTILLER.TERMS ['xyz']",
        ["DISTILLER.TERMS", "xyz", "dfd"],
    ),
    "training on a cache": ("base", "EVAL_USE_CACHE True", ["EVAL_USE_CACHE"]),
    "a cache of another checkpoint": (
        "base",
        "--eval --ckpt {0}/teacher/best.pth EVAL_USE_CACHE True OUTPUT_DIR {0}/student",
        ["{0}/student/eval_cache.pth", "weights"],
    ),
    "a file instead of a folder": (
        "base",
        "--eval --ckpt {0}/teacher/best.pth OUTPUT_DIR {0}/tiny.yaml",
        ["OUTPUT_DIR", "{0}/tiny.yaml"],
    ),
    "momentum of one": ("base", "SOLVER.OPTIMIZER adamw SOLVER.MOMENTUM 1.0", ["SOLVER.MOMENTUM"]),
    "temperature of zero": ("base", "DISTILLER.LD.TEMPERATURE 0.0", ["DISTILLER.LD.TEMPERATURE"]),
    "negative weight": ("base", "SOLVER.LOSS_WEIGHTS.OIM -1.0", ["SOLVER.LOSS_WEIGHTS.OIM"]),
    "negative weight in LD": ("base", "DISTILLER.LD.ALPHA -1.0", ["DISTILLER.LD.ALPHA"]),
    "a device without computation": ("base", "DEVICE meta", ["DEVICE meta"]),
    "no cache": ("base", "--eval EVAL_USE_CACHE True OUTPUT_DIR {0}/new", ["eval_cache.pth"]),
}


@pytest.fixture
def refuse(base, tmp_path, program):
    """Return a function that runs a training program in this process and returns its error
    line."""

    def call(kind: str, *arguments: str) -> str:
        given = [
            "--cfg",
            base / "tiny.yaml",
            "INPUT.DATA_ROOT",
            base / "data" / "CUHK-SYSU",
            "OUTPUT_DIR",
            tmp_path / "out",
            *arguments,
        ]
        code, _, said = program(lambda: run("", PROGRAMS[kind]), *given)
        errors = [line for line in said.splitlines() if "error:" in line]
        assert code == 2 and len(errors) == 1
        return errors[0]

    return call


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(base, refuse, case):
    program, arguments, parts = BAD[case]
    line = refuse(program, *arguments.format(base).split())
    assert all(part.format(base) in line for part in parts), line


@pytest.fixture
def copy(base, tmp_path):
    return shutil.copytree(base / "data" / "CUHK-SYSU", tmp_path / "copy")


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_damaged_image_is_named(refuse, copy, damage, workers):
    for path in copy.glob("Image/SSM/*.jpg"):
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:300])
    line = refuse("base", "INPUT.DATA_ROOT", copy, "INPUT.NUM_WORKERS", workers)
    assert str(copy / "Image" / "SSM") in line and ".jpg" in line


@pytest.mark.parametrize("damage", ["missing", "cut short"])
@pytest.mark.parametrize(
    "name",
    [
        "annotation/Images.mat",
        "annotation/test/train_test/Train.mat",
        "annotation/test/train_test/TestG100.mat",
    ],
)
def test_damaged_annotation_is_named(refuse, copy, name, damage):
    path = copy / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200])
    assert str(path) in refuse("base", "INPUT.DATA_ROOT", copy)


def test_no_training_images(refuse, copy):
    """The annotation files are complete but name no image for training."""
    path = copy / "annotation/test/train_test/Train.mat"
    savemat(path, {"Train": np.empty((0, 1), object)})
    line = refuse("base", "INPUT.DATA_ROOT", copy)
    assert "expected" in line and str(copy) in line


def test_a_closed_output_pipe_is_no_error():
    """The pipe is closed as by `| head`. A BrokenPipeError with another cause is raised."""
    for work, code, said in (
        ("print(*range(100000))", 141, b""),
        ("(_ for _ in ()).throw(BrokenPipeError(32, 'mine'))", 1, b"mine"),
    ):
        script = f"from utils.errors import run_main; run_main(lambda: {work})"
        with subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program:
            if code == 141:
                program.stdout.close()
            error = program.stderr.read()
        assert program.returncode == code and said in error and bool(said) == bool(error)
