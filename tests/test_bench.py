"""tools.bench_step, tools.bench_eval, tools.bench_loader and tools.bench_watch on small cases."""

import sys

import pytest

from configs.defaults import load_cfg
from tests.crowds import make_world, moving
from tests.training import PROGRAM_CONFIG, fork_measurements
from tests.videos import write_video
from tools import bench_eval, bench_loader, bench_step, bench_watch
from utils.errors import UserError


@pytest.mark.slow
def test_fast_and_plain_steps_are_measured(tmp_path, monkeypatch, capsys):
    fork_measurements(monkeypatch, bench_step)
    (tmp_path / "tiny.yaml").write_text(PROGRAM_CONFIG)
    config = str(tmp_path / "tiny.yaml")
    line = ["--cfg", config, "--teacher", config, "--measures", "none", "--repeats", "1"]
    line += ["BACKBONE.FREEZE", "True"]
    monkeypatch.setattr(sys, "argv", ["bench_step", *line])
    bench_step.main()
    said = capsys.readouterr().out
    rows = [row.split() for row in said.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("none", "plain")] == ["none", "plain"]
    assert "GFLOP/s" in said


@pytest.mark.slow
def test_a_wrong_value_is_an_error_and_an_unsupported_option_is_skipped(
    tmp_path, program, monkeypatch
):
    fork_measurements(monkeypatch, bench_step)
    (tmp_path / "tiny.yaml").write_text(PROGRAM_CONFIG)
    measures = {"none": [], "FROZEN_BN True": ["BACKBONE.FROZEN_BN", "True"]}
    monkeypatch.setattr(bench_step, "measures", lambda *_: measures)
    line = ["--cfg", tmp_path / "tiny.yaml", "--repeats", 1]
    code, _, err = program(bench_step.main, *line, "SOLVER.OPTIMIZER", "lion")
    assert (code, err) == (2, "error: SOLVER.OPTIMIZER: expected sgd or adamw, found lion\n")
    code, out, err = program(bench_step.main, *line, "BACKBONE.NAME", "convnext_tiny")
    assert code == 0 and "FROZEN_BN True: BACKBONE.FROZEN_BN: expected False" in err
    assert "FROZEN_BN True" not in out and "out of memory" not in out


@pytest.mark.parametrize("teacher", [None, "configs/cuhk_sysu/resnet50_base.yaml"])
def test_the_plain_step_is_for_published_options(teacher):
    assert bench_step.has_plain_step(load_cfg(None), teacher)
    assert not bench_step.has_plain_step(load_cfg(None, ["SOLVER.AMP", "bf16"]), teacher)
    for key, value in (
        ("BACKBONE.FREEZE", "False"),
        ("BACKBONE.NAME", "timm:hrnet_w18_small"),  # its maps are no outputs of layers in a row
        ("SOLVER.OPTIMIZER", "adamw"),
        ("MODEL.ROI.POSITIVE_FRACTION", "0.5"),
    ):
        assert not bench_step.has_plain_step(load_cfg(None, [key, value]), teacher)
    for key, value in (
        *(("TERMS", "[dfd, ld]"), ("TEACHER_AMP", "bf16"), ("LD.CACHED", "True")),
        ("DFD.NORMALIZE", "True"),
    ):
        other = load_cfg(None, [f"DISTILLER.{key}", value])
        assert bench_step.has_plain_step(other, teacher) == (teacher is None)


@pytest.mark.parametrize("count", [2, 9])
def test_the_loop_computes_the_same_scores(count):
    """Also if it shall run on more queries than there are."""
    case = bench_eval.draw("small", 12, 5, 2, 10, 3, seed=1)
    protocol = bench_eval.protocol_of(case, -1, seed=1)
    for cbgm in (None, case.cbgm):
        *_, difference, _ = bench_eval.search_row(case, protocol, cbgm, count)
        assert difference < 1e-6


def test_number_of_workers(monkeypatch, capsys):
    def rate(read, count):
        assert read(count - 1) is not None
        return 7

    monkeypatch.setattr(bench_loader, "rate", rate)
    monkeypatch.setattr(sys, "argv", ["bench_loader", "--size", "64", "48", "--steps", "3"])
    bench_loader.main()
    rows = [row.split() for row in capsys.readouterr().out.splitlines()[4:]]
    assert [row[-1] for row in rows] == ["3", "3"]  # 15 images a second


def test_an_option_without_effect_is_refused(program):
    assert program(bench_loader.main, "--size", 64, 48, "--images", "pictures")[0] == 2


def test_a_turn_without_a_frame_is_one_line():
    with pytest.raises(UserError, match="--seconds: "):
        bench_watch.measure(lambda: 0)


@pytest.mark.slow
def test_watching_is_compared_with_the_network(tmp_path, program):
    pytest.importorskip("faiss")
    world = make_world(tmp_path)
    write_video(tmp_path / "hall.mp4", moving(40))
    network = "--cfg", world / "cfg.yaml", "--ckpt", world / "everyone.pth"
    line = [*network, "--seconds", 1, "--rounds", 1, tmp_path / "hall.mp4"]
    code, out, err = program(bench_watch.main, *line)
    assert code == 0, err
    rows = [row.split() for row in out.splitlines()]
    (alone,), (watched,) = (
        [r for r in rows if r[0] == name] for name in ("network", "tools.watch")
    )
    assert min(map(float, [*alone[2:], *watched[1:]])) > 0
    assert float(watched[1]) < 15  # the video's 10 frames a second
    code, _, err = program(bench_watch.main, *network, "rtsp://127.0.0.1/live")
    assert (code, err.count("\n")) == (2, 1)
