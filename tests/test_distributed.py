"""Several ranks, and batches in parts, are equal to one rank with the whole batch."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.loaders import SceneDataset, train_loader
from engine import distributed
from engine.training.batching import Batching
from engine.training.generators import seed_everything
from engine.training.train_step import TrainStep
from models.build import build_distiller, build_net
from models.oim import OIM
from tests.ranks import largest_difference, make_comparable
from tests.training import Run, differences, fix_regions, make_data, run_ranks, same
from utils.errors import UserError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")
# The ranks have 2 and 3 images, in the last step 0 and 1.
ODD = ("INPUT.BATCH_SIZE_TRAIN", "5", "SOLVER.BASE_LR", "0.005")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config, and a run of one rank with fixed regions."""
    folder = tmp_path_factory.mktemp("distributed")
    root = make_data(folder, frames=20)
    assert len(load_dataset("CUHK-SYSU", str(root)).train) % 5 == 1
    run = Run(folder, "one", *ODD, sabotage=make_comparable)
    assert run.wait() == 0, run.text
    return folder


def ddps(base: Path) -> tuple[str, ...]:
    return (
        "DISTILLER.TEACHER_CKPT",
        str(base / "one" / "epoch_01.pth"),
        "DISTILLER.TERMS",
        "['dfd','ld']",
    )


@pytest.mark.parametrize("kind", ["base", "ddps"])
def test_two_ranks_follow_one(base, tmp_path, kind):
    """Weights, OIM's table, queue and head after two epochs, evaluations and output are equal."""
    options = (*ODD, *ddps(base)) if kind == "ddps" else ODD
    one = base / "one"
    if kind == "ddps":
        one = tmp_path / "one"
        run = Run(base, one, *options, program=kind, sabotage=make_comparable)
        assert run.wait() == 0, run.text
    runs = run_ranks(2, base, tmp_path / "two", *options, program=kind, sabotage=make_comparable)
    assert [run.wait() for run in runs] == [0, 0], runs[0].text + runs[1].text
    whole = torch.load(one / "rank0.pt")
    first, second = (torch.load(tmp_path / "two" / f"rank{r}.pt") for r in (0, 1))
    assert same(first, second)
    assert torch.equal(whole["roi_heads.oim.head"], first["roi_heads.oim.head"])
    print(kind, "two ranks against one:", largest_difference(whole, first))
    assert largest_difference(whole, first) < 1e-6
    assert "mAP" in runs[0].text and runs[1].text == ""
    expected, found = (
        json.loads((out / "results.json").read_text()) for out in (one, tmp_path / "two")
    )
    assert expected["search"] == pytest.approx(found["search"], abs=1e-5)
    assert expected["protocol"]["gallery_images"] == found["protocol"]["gallery_images"]
    saved = torch.load(tmp_path / "two" / "eval_cache.pth", weights_only=True)
    alone = torch.load(one / "eval_cache.pth", weights_only=True)
    for key in ("gallery_dets", "gallery_feats", "query_box_feats"):  # each image once, in order
        for a, b in zip(alone[key], saved[key], strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def torchrun(base: Path, out: Path, *arguments: str, sabotage: str = "") -> tuple[int, str]:
    """Run two ranks with torchrun.

    Args:
        sabotage: Python code that is executed first in each rank.
    """
    code = (
        f"import torch; torch.set_num_threads(1)\n{sabotage}\n"
        "import tests.tiny\n"
        "from engine.run import run\nfrom engine.training.build import build_alone\n"
        "from utils.errors import run_main\n"
        "run_main(lambda: run('', build_alone))"
    )
    script = base / "script.py"
    script.write_text(code)
    command = [
        sys.executable,
        "-m",
        "tools.ranks",
        "--standalone",
        "--nproc_per_node=2",
        script,
        "--cfg",
        base / "tiny.yaml",
        "INPUT.DATA_ROOT",
        base / "data" / "CUHK-SYSU",
        *arguments,
        "OUTPUT_DIR",
        out,
    ]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


IN_STEP = """
import os, signal
from engine.training.train_step import TrainStep
step, calls = TrainStep.step, iter(range(1, 1000))
def replaced(self, *args):
    if next(calls) == {n} and os.environ["RANK"] == "1":
        os.kill({pid}, signal.{name})
    return step(self, *args)
TrainStep.step = replaced
"""


def test_a_dead_rank_ends_the_run_which_resumes(base, tmp_path):
    """One rank is killed, and torchrun is stopped after resuming. The resumed run equals an
    uninterrupted one to the bit, including the random regions of each rank."""
    runs = run_ranks(2, base, tmp_path / "whole", "SOLVER.CKPT_PERIOD_STEPS", "2")
    assert [run.wait() for run in runs] == [0, 0], runs[0].text + runs[1].text
    out = tmp_path / "stopped"
    options = out, "SOLVER.CKPT_PERIOD_STEPS", "2"
    code, text = torchrun(
        base, *options, sabotage=IN_STEP.format(n=4, pid="os.getpid()", name="SIGKILL")
    )
    assert code == 128 + signal.SIGKILL and "SIGKILL" in text and "rank 1 " in text
    assert "RuntimeError" not in text and "Traceback" not in text
    code, text = torchrun(
        base, *options, "--resume", sabotage=IN_STEP.format(n=1, pid="os.getppid()", name="SIGTERM")
    )
    assert code == 128 + signal.SIGTERM and "epoch_00_step_000002.pth: 0 epochs and 2 steps" in text
    assert text.count("SIGTERM: saved") == 1
    runs = run_ranks(2, base, *options, "--resume")
    assert [run.wait() for run in runs] == [0, 0], runs[0].text + runs[1].text
    assert differences(out, tmp_path / "whole") == []
    one = Run(base, out, "--resume", "SOLVER.MAX_EPOCHS", "3")  # another number of ranks
    assert one.wait() == 0 and "written by 2 ranks" in one.text


def test_an_error_on_each_rank_is_printed_once(base, tmp_path):
    copy = shutil.copytree(base / "data" / "CUHK-SYSU", tmp_path / "data")
    for image in load_dataset("CUHK-SYSU", str(copy)).train[:2]:
        Path(image.path).write_bytes(b"damaged")
    code, text = torchrun(base, tmp_path / "out", "INPUT.DATA_ROOT", str(copy))
    assert code == 2 and text.count("error: ") == 1 and "Traceback" not in text, text
    assert str(copy) in text
    options = tmp_path / "out", "BACKBONE.NAME", "NCCL"  # a word of messages on lost ranks
    runs = run_ranks(2, base, *options, sabotage=leave_at_once)
    text = "".join(run.text for run in runs)
    assert [run.wait() for run in runs] == [2, 2] and text.count("error: ") == 1, text
    assert "BACKBONE.NAME" in text and "Traceback" not in text


def leave_at_once() -> None:
    """Do not wait for torchrun, which ends a rank after the first one has failed."""
    distributed.time.sleep = lambda seconds: None


# --- parts of a batch on one rank ---


@pytest.fixture(scope="module")
def world(base):
    """Return a function that trains on two batches with the given options."""
    data = load_dataset("CUHK-SYSU", str(base / "data" / "CUHK-SYSU"))
    loader = train_loader(SceneDataset(data.train, train=True), 6, 0, seed=1, epoch=0)
    batches = [batch for batch, _ in zip(loader, range(2))]

    def learn(*options: str, distill: bool = False) -> tuple[list[dict], dict]:
        cfg = load_cfg(base / "tiny.yaml", ["INPUT.BATCH_SIZE_TRAIN", "6", *options])
        seed_everything(1)
        net = build_net(cfg, data.num_pids)
        model = net
        if distill:
            model = build_distiller(cfg, net, build_net(cfg, data.num_pids), cfg)
        train_step = TrainStep(cfg, model.train(), net, CPU)
        batching = Batching.of(cfg)
        losses = [
            train_step.step(batching.parts(images, targets, len(images)), 0.02, "a test")
            for images, targets in batches
        ]
        return losses, net.state_dict()

    return learn


@pytest.fixture
def fixed(monkeypatch):
    fix_regions(monkeypatch.setattr)


@pytest.mark.parametrize("parts", ["2", "3", "6"])
def test_accumulated_parts_equal_the_whole_batch(world, fixed, parts):
    options = ("DISTILLER.TERMS", "['dfd','ld']")
    losses, whole = world(*options, distill=True)
    others, cut = world(*options, "SOLVER.ACCUMULATE", parts, distill=True)
    for expected, found in zip(losses, others):
        assert found == pytest.approx(expected, rel=1e-4)
    assert largest_difference(whole, cut) < 1e-5


def test_batches_without_labelled_people_and_parts(world, fixed, monkeypatch):
    monkeypatch.setattr(OIM, "is_labelled", lambda self, labels: labels < 0)
    losses, _ = world("SOLVER.ACCUMULATE", "3")
    assert all(one["oim"] == 0 for one in losses)


def test_sync_bn_needs_gpus(world):
    with pytest.raises(UserError, match="SOLVER.SYNC_BN"):
        world("SOLVER.SYNC_BN", "True")
