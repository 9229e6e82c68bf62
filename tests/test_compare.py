"""tools.compare: runs on tiny data, interruption, the values of the table."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.defaults import load_cfg
from configs.ranges import flatten
from datasets import load_dataset
from engine.checkpoint import load_checkpoint
from engine.teachers.choice import check_caching
from engine.training.inputs import describe_data, write_inputs
from models.build import build_net, build_terms
from tests.tiny import TINY, pairs
from tests.training import CONFIG, PROGRAM_CONFIG, fork_trainings, make_data
from tools import compare
from tools.experiments import gradients, runs
from tools.experiments.comparison import SECONDS, make_rows, markdown, write
from tools.experiments.methods import METHODS
from utils.errors import UserError
from utils.files import save_file

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Return a folder with data, and for two backbones a teacher with random weights and the config
    of a student: tiny.yaml, and program.yaml for processes of their own."""
    folder = tmp_path_factory.mktemp("compare")
    make_data(folder, frames=20)
    for name, text in (("tiny", CONFIG), ("program", PROGRAM_CONFIG)):
        config, teacher = folder / f"{name}.yaml", folder / f"{name}.pth"
        config.write_text(
            f"{text}EVAL_GALLERY_SIZE: 50\nOUTPUT_DIR: {folder / 'out'}\n"
            f"DISTILLER: {{TEACHER_CKPT: {teacher}, DFD: {{SCALE_BOXES_BY: map}}}}\n"
        )
        cfg = load_cfg(str(config))
        save_file({"model": build_net(cfg, 6).state_dict(), "config": cfg.dump()}, teacher)
    return folder


@pytest.fixture
def call(base, monkeypatch):
    """Return a function that calls main of tools.compare with the arguments after --methods."""

    fork_trainings(monkeypatch)

    def main(*arguments: str, config: str = "tiny.yaml") -> int:
        monkeypatch.setattr(sys, "argv", command(base, *arguments, config=config)[2:])
        return compare.main()

    return main


def command(base: Path, *arguments: str, config: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tools.compare",
        "--cfg",
        str(base / config),
        "--methods",
        *arguments,
        "INPUT.DATA_ROOT",
        str(base / "data/CUHK-SYSU"),
    ]


@pytest.mark.slow
def test_runs_fail_alone_and_are_not_repeated(base, call, capsys):
    methods, once = ("dfd", "none", "reviewkd"), ("SOLVER.MAX_EPOCHS", "1")
    assert call(*methods, "--seeds", "7", *once) == 1
    out, said = base / "out", capsys.readouterr().out
    reason = "DISTILLER.DFD.SCALE_BOXES_BY: expected image or padded, found map"
    assert f"dfd_seed7: failed: {reason}\n" in said
    assert reason in (out / "dfd_seed7/log.txt").read_text()
    content = json.loads((out / "comparison.json").read_text())
    assert content["failed"] == [
        {"method": "dfd", "seed": 7, "reason": reason, "log": str(out / "dfd_seed7/log.txt")}
    ]
    none, review = content["methods"]
    evaluated = json.loads((out / "none_seed7/evaluations.jsonl").read_text())
    assert none["mAP"] == 100 * evaluated["search/mAP"] and none["mAP gain"] == 0
    assert none["mAP std"] is None and none[SECONDS] > 0
    assert review["recall"] == content["runs"]["reviewkd"][0]["recall"]
    table = (out / "comparison.md").read_text()
    assert table.startswith("| method") and f"Failed: dfd, seed 7: {reason}" in table
    rows = list(csv.DictReader((out / "comparison.csv").open()))
    assert [row["method"] for row in rows] == ["none", "reviewkd"] and rows[0]["mAP std"] == ""
    assert (out / "comparison.png").stat().st_size > 5000
    assert load_checkpoint(out / "reviewkd_seed7/epoch_00.pth")["terms"]

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*.pth")}
    padded = "DISTILLER.DFD.SCALE_BOXES_BY", "padded"
    assert call(*methods, "fgd", "--seeds", "7", *once, *padded) == 0
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    rows = json.loads((out / "comparison.json").read_text())["methods"]
    assert [row["method"] for row in rows] == [*methods, "fgd"]
    assert rows[0] | {"method": "fgd"} == rows[3]  # one run under both names

    damaged = out / "none_seed7/evaluations.jsonl"
    damaged.write_text("rubbish\n")
    assert call("none", "reviewkd", "--seeds", "7", *once, *padded) == 1
    said = capsys.readouterr().out
    assert (
        f"none_seed7: failed: {damaged}: expected" in said and "reviewkd_seed7: failed" not in said
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_continues(base, call):
    """Two simultaneous runs are saved, and the third does not start. All are processes of their
    own."""
    folders = [base / f"out/reviewkd+hint_seed{seed}" for seed in (8, 9, 10)]
    long = ("SOLVER.MAX_EPOCHS", "6", "SOLVER.EVAL_PERIOD", "6")
    words = ("reviewkd+hint", "--jobs", "2", "--seeds")
    process = subprocess.Popen(
        command(base, *words, "8", "9", "10", *long, config="program.yaml"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not all(
        list(folder.glob("epoch_*.pth")) for folder in folders[:2]
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT and len(errors.splitlines()) == 1
    assert not folders[2].exists()
    run = folders[0]
    assert call(*words, "8", *long, config="program.yaml") == 0
    before, after = (load_checkpoint(run / f"epoch_0{epoch}.pth")["terms"] for epoch in (4, 5))
    for name in ("reviewkd.fusions.0.out.0.weight", "hint.regressors.3.weight"):
        assert not before[name].equal(after[name])


@pytest.mark.slow
def test_another_config_is_refused(base):
    run = base / "out/none_seed9"
    run.mkdir(parents=True)
    cfg = load_cfg(str(base / "tiny.yaml"), ["SEED", "9", "DISTILLER.INIT_STUDENT", "True"])
    (run / "config.yaml").write_text(cfg.dump())
    with pytest.raises(UserError, match="none_seed9: OUTPUT_DIR: expected"):
        runs.make_run(str(base / "tiny.yaml"), [], "none", 9)
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.DISTILLER.TERMS, cfg.DEVICE = str(run), [], "auto"
    (run / "config.yaml").write_text(cfg.dump())
    with pytest.raises(UserError, match="INIT_STUDENT: expected False"):
        runs.make_run(str(base / "tiny.yaml"), [], "none", 9)
    cfg.DISTILLER.INIT_STUDENT, cfg.DISTILLER.LD.WEIGHT = False, 2.0
    (run / "config.yaml").write_text(cfg.dump())
    runs.make_run(str(base / "tiny.yaml"), [], "none", 9)  # DEVICE and terms do not matter
    with pytest.raises(UserError, match="SOLVER.BASE_LR: .*0.1.*0.02"):
        runs.make_run(str(base / "tiny.yaml"), ["SOLVER.BASE_LR", "0.1"], "none", 9)


@pytest.mark.slow
def test_gradients_option_prints_norms_and_trains_nothing(base, call, capsys):
    def norms(*arguments: str) -> dict[str, dict[str, list[str]]]:
        assert call(*arguments, "DISTILLER.DFD.SCALE_BOXES_BY", "padded") == 0
        tables = capsys.readouterr().out.strip().split("\n\n")
        runs = {text.split(":")[0]: text.splitlines()[4:] for text in tables}
        return {run: {x.split()[0]: x.split()[1:] for x in lines} for run, lines in runs.items()}

    found = norms("none", "ddps", "--seeds", "5", "--gradients", "2")
    assert list(found) == ["none_seed5", "dfd+ld+cd_seed5"]
    own = ["rpn_cls", "rpn_reg", "proposal_cls", "proposal_reg", "oim"]
    assert list(found["none_seed5"]) == [*own, "total"]
    ours = found["dfd+ld+cd_seed5"]
    assert list(ours) == [*own, "dfd", "ld", "cd", "total"]
    assert [len(line) for line in ours.values()] == [4] * 8 + [3]
    assert sum(float(line[3][:-1]) for name, line in ours.items() if name != "total") > 99
    first = {name: float(line[0]) for name, line in ours.items()}
    assert 0 < first["total"] <= sum(first.values()) - first["total"]
    doubled = norms("ddps", "--seeds", "5", "--gradients", "1", "DISTILLER.CD.WEIGHT", "2.0")
    assert float(doubled["dfd+ld+cd_seed5"]["cd"][0]) == pytest.approx(2 * first["cd"], rel=1e-2)
    assert not list((base / "out").glob("*seed5"))


def test_gradients_are_those_of_the_training(root, net, tmp_path):
    """All training data are used, and the initial weights of the config."""
    config, weights = tmp_path / "tiny.yaml", tmp_path / "start.pth"
    config.write_text("SEED: 1\n")
    values = TINY | {"INPUT.DATA_ROOT": root, "INPUT.BATCH_SIZE_TRAIN": 1}
    values |= {"OUTPUT_DIR": tmp_path / "out"}
    save_file({"model": net.state_dict(), "config": load_cfg(None, pairs(values)).dump()}, weights)

    def norms(*more: str) -> list[dict[str, float]]:
        run = runs.describe_run(str(config), [*pairs(values), *more], "none", 1)
        return gradients.measure(run, 9)

    (plain,) = norms()
    assert len(norms("INPUT.EXTRA_TRAIN", f"[[CUHK-SYSU, {root}, 1.0]]")) == 2
    (started,) = norms("MODEL.WEIGHTS", str(weights))
    assert started["rpn_cls"] != plain["rpn_cls"]
    damaged = tmp_path / "out/none_seed1/epoch_00.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        norms()
    assert list(damaged.parent.iterdir()) == [damaged]  # not renamed


def test_each_method_has_the_values_of_its_terms(tmp_path):
    config = tmp_path / "tiny.yaml"
    cached = "LD: {CACHED: True}, REID_TEACHER: crops.onnx"
    config.write_text(f"DISTILLER: {{DECAY: [dfd, cd], {cached}}}\n")
    for method, decay, logits, people in [
        ("none", [], False, ""),
        ("ddps", ["dfd", "cd"], True, "crops.onnx"),
        ("ld", [], True, ""),
        ("rkd", [], False, "crops.onnx"),
        ("pkd", [], False, ""),
    ]:
        node = runs.describe_run(str(config), [], method, 1).cfg.DISTILLER
        assert (decay, logits, people) == (node.DECAY, node.LD.CACHED, node.REID_TEACHER)


def test_the_precision_of_a_teacher_counts_where_it_runs(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text("DISTILLER: {TEACHER_AMP: bf16, CD: {CACHED: True}}\n")
    for method, precision in (("cd", ""), ("rkd", ""), ("ddps", "bf16"), ("ld", "bf16")):
        cfg = runs.describe_run(str(config), [], method, 1).cfg
        assert precision == cfg.DISTILLER.TEACHER_AMP
        check_caching(cfg)


def test_files_of_an_earlier_comparison_do_not_stay(tmp_path):
    scores = {"none": [dict.fromkeys(runs.SCORES, 50.0) | {SECONDS: 1.0, "seed": 1}]}
    write(tmp_path, scores, [], 1000)
    assert len(list(tmp_path.glob("comparison.*"))) == 4
    failed = [{"method": "none", "seed": 1, "reason": "x", "log": "y"}]
    write(tmp_path, {}, failed, 1000)
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json"}


def test_a_folder_with_a_run_of_other_data_is_refused(root, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text("SEED: 1\n")
    values = pairs(TINY | {"INPUT.DATA_ROOT": root, "OUTPUT_DIR": tmp_path})
    run = runs.describe_run(str(config), values, "none", 1)
    run.folder.mkdir()
    (run.folder / "config.yaml").write_text(run.cfg.dump())
    inputs = describe_data(load_dataset("CUHK-SYSU", str(root)))
    write_inputs(inputs, run.folder)
    runs.check_run(run)
    write_inputs(inputs | {"identities": 99}, run.folder)
    with pytest.raises(UserError, match="none_seed1: .*identities were 99, are "):
        runs.check_run(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["{\n", '{"epoch": 2}\n', "3\n", '{"epoch": 2, "search/mAP": 1}\n']
)
def test_damaged_evaluations_are_one_line(base, text):
    run = runs.make_run(str(base / "tiny.yaml"), [], "none", 10)
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "evaluations.jsonl").write_text(text)
    with pytest.raises(UserError, match="none_seed10.*: expected") as caught:
        runs.read_scores(run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "method, name, terms, options",
    [
        ("ddps", "dfd+ld+cd", ["dfd", "ld", "cd"], {}),
        ("dkd", "ld", ["ld"], {}),
        ("ld+cd_contrastive", "ld+cd_contrastive", ["ld", "cd"], {"FORM": "contrastive"}),
        ("none", "none", [], {}),
    ],
)
def test_a_method_sets_the_name_the_terms_and_the_options(method, name, terms, options):
    config = str(ROOT / "configs/prw/resnet18_ddps.yaml")
    overrides = ["OUTPUT_DIR", "out", "DISTILLER.CD.WEIGHT", "2."]
    run = runs.describe_run(config, overrides, method, 3)
    assert (run.name, run.terms, run.cfg.SEED) == (name, terms, 3)
    assert run.folder == Path(f"out/{name}_seed3") and terms == run.cfg.DISTILLER.TERMS
    assert options.items() <= run.cfg.DISTILLER.CD.items() and run.cfg.DISTILLER.CD.WEIGHT == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none", "fgd2"], "--methods fgd2: expected .*pkd.*ddps.*; found fgd2"),
        (["none", "DDPS"], "--methods DDPS: expected .*; found DDPS"),
        (["none+dfd"], "--methods none.dfd: expected none without"),
        (["none", "--seeds", "one"], "--seeds: expected whole numbers, found one"),
        (["none", "SEED", "3"], "override SEED: expected .*--seeds"),
        (
            ["none", "--gradients", "1", "--jobs", "2"],
            "--jobs: expected 1 with --gradients, found 2",
        ),
        (["pkd", "DISTILLER.TEACHER_CKPT", "no.pth"], "DISTILLER.TEACHER_CKPT no.pth"),
        (["none", "SOLVER.LR", "3"], "no such key: SOLVER.LR"),
    ],
)
def test_mistakes_before_any_run(call, arguments, message):
    with pytest.raises(UserError, match=message):
        call(*arguments)


def test_gradients_of_no_step_are_refused(program):
    """The program would train all runs, which --gradients promises not to do."""
    words = ["--cfg", ROOT / "configs/prw/resnet18_ddps.yaml", "--methods", "unknown"]
    code, _, err = program(compare.main, *words, "--gradients", 0)
    assert code == 2 and "--gradients: expected " in err


@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_its_terms(method):
    run = runs.describe_run(str(ROOT / "configs/prw/resnet18_ddps.yaml"), [], method, 1)
    assert list(build_terms(run.cfg, run.cfg)) == list(METHODS[method].terms) == run.terms
    options = METHODS[method].options
    values = flatten(run.cfg)
    assert [str(values[key]) for key in options[::2]] == list(options[1::2])


def test_different_methods_have_different_names():
    config = str(ROOT / "configs/benchmark/resnet18_x05.yaml")
    methods = ("ld+kd", "dkd_standardized+kd", "dkd+kd_standardized", "cd_contrastive+ld", "cd+ld")
    names = [runs.describe_run(config, [], method, 1).name for method in methods]
    assert names[:2] == ["ld+kd", "ld_standardized+kd"] and len({*names}) == len(methods)


@pytest.mark.parametrize(
    "code, lines, reason",
    [
        (0, ["error: of an earlier try"], None),
        (2, ["error: first", "more", "error: last", "more"], "last"),
        (1, ["a traceback", "its last line"], "its last line"),
        (1, [], "no output"),
        (-9, ["more"], "killed by SIGKILL"),
    ],
)
def test_the_reason_of_a_failed_training(monkeypatch, code, lines, reason):
    children = runs.Children()
    monkeypatch.setattr(children, "call", lambda *_: (code, lines))
    config = str(ROOT / "configs/benchmark/resnet18_x05.yaml")
    run = runs.describe_run(config, [], "none", 1)
    assert runs.train(run, children, threads=0) == reason


def test_no_further_run_starts_after_the_caller_has_failed(monkeypatch):
    begun = []

    def finish(run, *_) -> tuple[None, None]:
        begun.append(run)
        time.sleep(0.1)
        return None, None

    monkeypatch.setattr(runs, "finish", finish)
    config = str(ROOT / "configs/benchmark/resnet18_x05.yaml")
    some = [runs.describe_run(config, [], "none", seed) for seed in range(20)]
    with pytest.raises(OSError):
        for _ in runs.finish_all(some):
            raise OSError
    assert len(begun) < len(some)


def test_a_signal_reaches_all_trainings_while_another_one_starts():
    children, signalled = runs.Children(), []

    class Training:
        def send_signal(self, number: int) -> None:
            signalled.append(number)
            children.running.add(Training())

    children.running |= {Training(), Training()}
    with pytest.raises(SystemExit) as end, children.stopped_with_us():
        signal.raise_signal(signal.SIGINT)
    assert end.value.code == 128 + signal.SIGINT and signalled == [signal.SIGINT] * 2


def test_rows_by_hand():
    def run(value: float, seconds: float) -> dict:
        return dict.fromkeys(("recall", "AP", "mAP", "top-1"), value) | {SECONDS: seconds}

    scores = {"none": [run(40, 60)], "pkd": [run(41, 3000), run(45, 4200)]}
    none, pkd = make_rows(scores, parameters=2_000_000)
    assert none["mAP gain"] == 0 and none["mAP std"] is None
    assert (pkd["mAP"], pkd["mAP gain"], pkd[SECONDS]) == (43, 3, 3600)
    assert pkd["mAP std"] == pytest.approx(8**0.5)
    line = markdown([none, pkd], []).splitlines()[3].split("|")
    assert [cell.strip() for cell in line[1:-1]] == [
        "pkd",
        "2",
        *["43.00 ± 2.83"] * 4,
        "+3.00",
        "+3.00",
        "2.00 M",
        "1:00:00",
    ]
    assert make_rows({"pkd": scores["pkd"]}, 1)[0]["mAP gain"] is None
