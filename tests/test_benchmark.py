"""tools.benchmark: runs on tiny data, statistics by hand, and the page in docs/."""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from configs.defaults import get_cfg
from models.distill import known_terms
from tests.training import CONFIG, fork_trainings, make_data
from tools import benchmark
from tools.experiments import page, queries, records, rows, tables
from tools.experiments import results as results_module
from tools.experiments.results import Results
from tools.experiments.rows import (
    GROUPS,
    ROWS,
    SEEDS,
    SOURCES,
    STUDENTS,
    TEACHERS,
    TUNING,
    TUNING_SEED,
    Row,
)
from utils.errors import UserError

FOLDER = Path(__file__).parents[1] / "docs" / "benchmark"
PAIR = ["resnet18_x05_alone", "resnet18_x05_ddps"]


def result(seed: int, aps: list[float], **other) -> dict:
    scores = dict.fromkeys(("recall", "AP", "top-1"), 90.0) | {"mAP": 100 * float(np.mean(aps))}
    return {"seed": seed, "scores": scores, "query_ap": aps} | other


# --- rows ---


@pytest.mark.slow
def test_rows_are_runs_with_folders_of_their_own():
    runs = [row.run(seed) for row in ROWS.values() for seed in SEEDS]
    assert len({run.folder for run in runs}) == len(runs)
    assert len({records.config_hash(run) for run in runs}) == len(runs)
    assert sum(map(len, GROUPS.values())) == len(ROWS)
    for row in ROWS.values():
        base = ROWS[row.base]
        assert base.student == row.student and not base.run(1).terms


def test_every_row_names_a_teacher_of_the_benchmark():
    made = {records.checkpoint_of(teacher.run()) for teacher in TEACHERS}
    assert {row.run(1).cfg.DISTILLER.TEACHER_CKPT for row in ROWS.values()} < made


def test_equal_schedules_are_those_of_the_teacher():
    teacher = TEACHERS[0].run().cfg.SOLVER
    for row in rows.OVER_TEACHER:
        solver = row.run(1).cfg.SOLVER
        milestone = solver.MAX_EPOCHS * teacher.MILESTONES[0] / teacher.MAX_EPOCHS
        assert [round(milestone)] == solver.MILESTONES
        if not row.key.endswith("_time"):
            assert solver.MAX_EPOCHS == teacher.MAX_EPOCHS
        past = range(solver.EVAL_PERIOD, solver.MAX_EPOCHS, solver.EVAL_PERIOD)
        assert solver.MAX_EPOCHS - 2 in past  # the gain of the last two epochs is known
    taught = [*rows.RECIPES.values(), *(row for row in rows.OVER_TEACHER if row.method == "ddps")]
    made = {records.checkpoint_of(one.run()) for one in TEACHERS if one.key in rows.EQUAL_TEACHERS}
    for cfg in (row.run(TUNING_SEED).cfg for row in [*taught, rows.CACHED["cached_equal"]]):
        solver, path = cfg.SOLVER, cfg.DISTILLER.TEACHER_CKPT
        assert solver.MAX_EPOCHS == teacher.MAX_EPOCHS and path in made


def test_every_term_has_a_row_and_a_source():
    alone = {run.terms[0] for row in ROWS.values() if len((run := row.run(1)).terms) == 1}
    assert alone == set(known_terms()) == set(SOURCES)


def test_config_hash_covers_the_values_that_scores_depend_on(monkeypatch):
    run = ROWS["pkd"].run(1)
    before = records.config_hash(run)
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.DEVICE, cfg.SOLVER.CKPT_KEEP, cfg.DISTILLER.LD.WEIGHT = "cpu", 5, 3.0
    monkeypatch.setattr(records, "get_cfg", lambda: get_cfg() | {"NEW": 1})
    assert records.config_hash(rows.replace(run, cfg=cfg)) == before
    cfg.DISTILLER.PKD.WEIGHT = 3.0
    assert records.config_hash(rows.replace(run, cfg=cfg)) != before


@pytest.mark.parametrize("term, other", [("kd", "LD"), ("rkd", "CD")])
def test_terms_that_read_the_cache_of_another_term(term, other):
    """Their scores depend on its options of the cache, and on no others of it."""
    run = rows.method_row(term).run(1)
    hashes = [records.config_hash(run)]
    for key, value in (("CACHED", True), ("WEIGHT", 9.0)):
        cfg = run.cfg.clone()
        cfg.defrost()
        cfg.DISTILLER[other][key] = value
        hashes.append(records.config_hash(rows.replace(run, cfg=cfg)))
    assert hashes[1] != hashes[0] == hashes[2]


def test_the_commit_is_unknown_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert records.commit() == "unknown"


# --- real runs ---


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """Set up the benchmark with one seed on tiny data; return the folder of the results."""
    fork_trainings(monkeypatch)
    root, runs = make_data(tmp_path), tmp_path / "runs"
    text = CONFIG.replace("INPUT: {", f"INPUT: {{DATA_ROOT: {root}, ")
    text = text.replace("MAX_EPOCHS: 2", "MAX_EPOCHS: 1").replace("EVAL_USE_GT: True\n", "")
    text += "EVAL_GALLERY_SIZE: -1\n"
    for teacher in TEACHERS:
        (tmp_path / f"{teacher.config}.yaml").write_text(text)
    checkpoint = runs / "teacher" / "epoch_00.pth"
    student = f"{text}DISTILLER: {{TEACHER_CKPT: {checkpoint}}}\n"
    (tmp_path / "resnet18_x05.yaml").write_text(student)
    monkeypatch.setattr(rows, "CONFIGS", str(tmp_path))
    monkeypatch.setattr(tables, "CONFIGS", str(tmp_path))
    monkeypatch.setattr(rows, "RUNS", str(runs))
    monkeypatch.setattr(benchmark, "SEEDS", (4,))
    monkeypatch.setattr(benchmark, "check_converged", lambda run: None)
    rate = {"0.02": Row("rate_0.02", "", "none", ("SOLVER.BASE_LR", "0.02"))}  # as in CONFIG
    for module in (benchmark, results_module):
        monkeypatch.setattr(module, "TUNING", rate)
    return tmp_path / "benchmark"


@pytest.fixture
def call(tiny, monkeypatch):
    def main(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(tiny), *arguments])
        return benchmark.main()

    return main


@pytest.mark.slow
def test_only_missing_runs_are_trained(tiny, call, capsys):
    assert call("--jobs", "2", "--rows", *PAIR) == 0
    files = {path.stem: json.loads(path.read_text()) for path in (tiny / "runs").glob("*.json")}
    names = [f"{key}_seed4" for key in PAIR]
    (teacher,) = files.keys() - {*names, "rate_0.02_seed100"}
    alone, ddps = (files[name] for name in names)
    assert teacher == f"teacher_{ddps['teacher']}" and alone["teacher"] is None
    assert alone["config"] != ddps["config"] and alone["parameters"] == ddps["parameters"]
    folder = tiny.parent / "runs" / PAIR[1] / "dfd+ld+cd_seed4"
    found = json.loads((folder / "results.json").read_text())
    assert ddps["scores"]["mAP"] == pytest.approx(100 * found["search"]["mAP"], abs=1e-3)
    assert ddps["query_ap"] == [round(query["ap"], 4) for query in found["queries"]]
    assert 0 <= ddps["mAP of given boxes"] <= 100 and ddps["seconds"] >= 0
    page = tiny.with_suffix(".md").read_text()
    assert ROWS[PAIR[1]].title in page and "$" not in page
    assert (tiny / "students.png").stat().st_size > 5000

    capsys.readouterr()
    (tiny / "runs" / f"{names[0]}.json").unlink()
    for path in folder.glob("*.pth"):  # a fresh clone has no checkpoints
        path.unlink()
    assert call("--rows", *PAIR) == 0
    said = capsys.readouterr().out
    assert "none_seed4" in said and "dfd+ld+cd" not in said
    again = json.loads((tiny / "runs" / f"{names[0]}.json").read_text())
    assert again == alone

    (tiny.parent / "resnet18_x05.yaml").write_text(
        (tiny.parent / "resnet18_x05.yaml").read_text().replace("BASE_LR: 0.02", "BASE_LR: 0.01")
    )
    with pytest.raises(UserError, match="SOLVER.BASE_LR .*: expected 0.02, found 0.01"):
        call("--rows", *PAIR)
    facts = json.loads((tiny / "queries.json").read_text())
    (tiny / "queries.json").write_text(json.dumps(facts | {"data": "other"}))
    with pytest.raises(UserError, match="CUHK-SYSU: "):
        call("--rows", *PAIR)


@pytest.mark.parametrize("before, last", [(84.0, 84.9), (84.0, 85.1), (None, 7.0)])
def test_a_teacher_must_have_converged(monkeypatch, before, last):
    run = TEACHERS[0].run()
    epoch = run.cfg.SOLVER.MAX_EPOCHS
    past = {epoch: last} | ({epoch - 2: before} if before else {})
    monkeypatch.setattr(benchmark, "map_by_epoch", lambda run: past)
    if last == 84.9:
        benchmark.check_converged(run)
        return
    with pytest.raises(UserError, match=f"less than 1.0 mAP, found {before} and then {last}"):
        benchmark.check_converged(run)


@pytest.mark.parametrize(
    "options", [("--jobs", 0), ("--jobs", 2, "--page"), ("--rows", *PAIR, "--page")]
)
def test_wrong_options_are_refused(program, tmp_path, options):
    """--page trains nothing, so that options of a training have no effect."""
    code, _, err = program(benchmark.main, *options, "--out", tmp_path / "benchmark")
    assert code == 2 and f"{options[0]}: expected " in err


# --- statistics ---


def test_hidden_share_of_a_box():
    box = np.array([10, 10, 20, 30.0])
    others = np.array([[10, 10, 20, 30], [15, 20, 40, 40], [0, 0, 100, 25], [18, 25, 30, 31]])
    assert queries.hidden(box, others.astype(float)) == pytest.approx(50 / 200)
    assert queries.hidden(box, np.array([[-5, -5, 50, 90.0]])) == 1


def test_gain_by_hand():
    ours = {s: result(s, [0.5 + 0.1 * s, 0.5]) for s in (1, 2, 3, 4)}
    theirs = {s: result(s, [0.5, 0.5]) for s in (1, 2, 3, 5)}
    people = np.array([7, 3])
    found = results_module.gain(ours, theirs, people)  # +5, +10, +15 on the seeds of both
    assert found.mean == pytest.approx(10)
    half = 4.30265 * 5 / math.sqrt(3)
    assert found.over_seeds == pytest.approx((10 - half, 10 + half), abs=1e-3)
    assert found.over_people == pytest.approx((0, 20))  # of gains 20 and 0
    two = results_module.gain(ours, {1: theirs[1], 2: theirs[2]}, people)
    assert two.over_seeds is None
    assert results_module.gain(ours, {7: theirs[1]}, people) is None


def test_bootstrap_draws_all_queries_of_a_person_together():
    gains = np.tile(np.arange(8.0), 2)
    apart = results_module.bootstrap_interval(gains, np.arange(16))
    pairs = results_module.bootstrap_interval(gains, np.tile(np.arange(8), 2))
    error = gains.std() / math.sqrt(16)
    assert apart == pytest.approx((3.5 - 1.96 * error, 3.5 + 1.96 * error), abs=0.1)
    assert pairs == pytest.approx((3.5 - 2.77 * error, 3.5 + 2.77 * error), abs=0.15)
    assert results_module.bootstrap_interval(gains, np.zeros(16)) is None


def fake(bar: dict[str, list[float]]) -> Results:
    """Return results with the given mAP for seeds 1, 2, ..."""
    runs = {
        key: {seed: result(seed, [value / 100]) for seed, value in enumerate(values, 1)}
        for key, values in bar.items()
    }
    return Results(
        {key: {} for key in ROWS} | runs,
        {},
        {one.key: {} for one in TEACHERS},
        {"queries": [{"person": 0}]},
    )


@pytest.mark.parametrize(
    "theirs, more",
    [([54, 54, 58], True), ([50, 51, 50], False), ([54, 54], False), ([54, 54, 58, 9, 9], True)],
)
def test_undecided_comparisons_need_more_seeds(theirs, more):
    found = fake({PAIR[0]: theirs, PAIR[1]: [56, 57, 56, 70, 80]})
    expected = [ROWS[key] for key in PAIR] if more else []
    assert results_module.undecided(found) == expected


def test_ddps_over_other_methods_is_among_the_comparisons():
    bars = {PAIR[1]: [56, 57, 56], "dfd": [50, 52, 53], "cd": [1, 2, 1]}
    assert results_module.undecided(fake(bars)) == []
    found = fake(bars | {"dfd": [50, 57, 53]})
    assert results_module.undecided(found) == [ROWS[PAIR[1]], ROWS["dfd"]]
    said = page.missing_text(found)
    once = len(rows.EQUAL_TUNING) + len(rows.RECIPES)
    assert said.startswith(f"9 of {len(ROWS) * len(SEEDS) + 4 + once} runs")
    assert f"{ROWS[PAIR[1]].title} (seed 4, 5)" in said


def test_the_order_of_runs(monkeypatch, tmp_path):
    """Tuning runs, all rows with the first seeds, then undecided rows with more seeds."""
    asked, results = [], {key: {} for key in ROWS}

    def finish(self, needed):
        for row, seed in needed:
            asked.append((row.key, seed))
            if row.key in results:
                gained = 9 if row.key.endswith("ddps") else 0
                results[row.key][seed] = result(seed, [(50 + gained + seed) / 100])

    for name in ("check_data", "check_rate"):
        monkeypatch.setattr(benchmark, name, lambda *_: None)
    monkeypatch.setattr(benchmark.Benchmark, "finish", finish)
    found = Results(results, {}, {one.key: {} for one in TEACHERS}, {"queries": [{"person": 0}]})
    monkeypatch.setattr(results_module, "load", lambda folder: found)
    monkeypatch.setattr(page, "write", lambda folder: None)
    names = [*PAIR, "dfd", "ld"]
    monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(tmp_path), "--rows", *names])
    assert benchmark.main() == 0
    tuning = [(row.key, TUNING_SEED) for row in benchmark.TUNING.values()]
    first = [(key, seed) for keys in (PAIR, ["dfd", "ld"]) for seed in SEEDS for key in keys]
    more = [(key, seed) for seed in (4, 5) for key in (PAIR[0], "dfd", "ld")]
    assert asked == [*tuning, *first, *more]


def test_gain_over_the_teacher_of_each_run():
    """A student is compared with its own teacher, a student alone with the mean of both teachers.
    A repetition of a training with identical results has no weight in this mean."""
    key, alone = "equal_resnet18_x05_ddps", "equal_resnet18_x05_alone"
    teachers = {name: result(1, [ap]) for name, ap in (("a", 0.4), ("b", 0.6), ("c", 0.4))}
    runs = {key: {1: result(1, [0.5], teacher="b"), 2: result(2, [0.5], teacher="a")}}
    runs |= {alone: {1: result(1, [0.9], teacher=None)}}
    found = Results(runs, {}, {"teacher": teachers}, {"queries": [{"person": 0}]})
    theirs = results_module.teachers_of(found, ROWS[key])
    gains = results_module.paired_gains(runs[key], theirs)
    assert gains[:, 0].tolist() == pytest.approx([-10, 10])
    assert tables.gain_over_teacher(found, ROWS[alone]).mean == pytest.approx(40)


def test_gain_of_the_last_two_epochs():
    runs = [{"mAP by epoch": {"14": 50, "16": 60, "18": 60.5}}]
    assert tables.last_gain(runs) == pytest.approx(0.5)
    assert math.isnan(tables.last_gain([{"mAP by epoch": {"3": 50}}]))


def test_thirds_and_cells():
    thirds = tables.thirds("height", [5, 0, 0, 0, 9, 7])
    assert {name: third.tolist() for name, third in thirds.items()} == {
        "height 0 to 0": [1, 2],
        "height 0 to 5": [3, 0],
        "height 7 to 9": [5, 4],
    }
    assert tables.show(41.26, math.nan) == "41.3"
    assert tables.interval(results_module.Interval(-0.5, 1.25)) == "-0.5 to +1.2"
    assert tables.interval(None) == "–"
    found = fake({PAIR[1]: [56, 57, 56], "ld": [54, 54], "cd": [60]})
    against = tables.against_table(found)
    lines = [[cell.strip() for cell in line.split("|")[1:3]] for line in against.splitlines()[2:]]
    assert lines == [["LD (DKD, here also KD)", "+2.5"], ["CD", "-4.0"]]


# --- stored results ---


def test_page_is_written_from_the_kept_results(monkeypatch, tmp_path):
    """--page writes the page, and the page in docs/ is up to date."""
    folder = tmp_path / "benchmark"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(sys, "argv", ["benchmark", "--page", "--out", str(folder)])
    assert benchmark.main() == 0
    assert folder.with_suffix(".md").read_text() == FOLDER.with_suffix(".md").read_text()
    assert (FOLDER / "students.png").is_file()


def test_the_readme_agrees_with_the_results():
    results = results_module.load(FOLDER)
    trained = {TEACHERS[0].title: results.teachers("teacher")}
    for student in STUDENTS:
        for row in GROUPS[f"students: {student}"]:
            runs = results.runs[row.key]
            trained[row.title] = list(runs.values()) if runs.keys() >= {*SEEDS} else []
    expected = {}
    for title, runs in trained.items():
        names = ("mAP", "top-1") if runs else ()
        means = [results_module.mean_and_deviation(runs, name)[0] for name in names]
        expected[title] = " / ".join(f"{mean:.1f}" for mean in means)
    lines = (FOLDER.parents[1] / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert {row[1]: row[4] for row in rows if len(row) > 4 and row[1] in expected} == expected


def test_kept_results_belong_to_current_rows():
    queries = len(json.loads((FOLDER / "queries.json").read_text())["queries"])
    for path in (FOLDER / "runs").glob("*.json"):
        kept = json.loads(path.read_text())
        assert len(kept["query_ap"]) == queries
        assert 100 * np.mean(kept["query_ap"]) == pytest.approx(kept["scores"]["mAP"], abs=0.01)
        key, _, seed = path.stem.rpartition("_seed")
        if key:
            tuning = [*TUNING.values(), *rows.EQUAL_TUNING.values()]
            known = ROWS | rows.RECIPES | rows.CACHED | {rate.key: rate for rate in tuning}
            row = known[key]
            assert kept["config"] == records.config_hash(row.run(int(seed)))
        else:
            (teacher,) = [one for one in TEACHERS if path.stem.startswith(f"{one.key}_")]
            assert kept["config"] == records.config_hash(teacher.run())


def test_networks_have_the_learning_rate_that_tuning_chose():
    for tuning, rate in (
        (TUNING, ROWS[PAIR[0]].run(1).cfg.SOLVER.BASE_LR),
        (rows.EQUAL_TUNING, rows.EQUAL_RATE),
    ):
        if results_module.best_rate(FOLDER, tuning):
            benchmark.check_rate(FOLDER, tuning, rate, "key")
    seeds = {*SEEDS, *rows.MORE_SEEDS}
    assert TUNING_SEED not in seeds
