"""Similarity thresholds: their definition, and the thresholds of a checkpoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import demo
from configs.defaults import load_cfg
from datasets.protocol import Protocol
from engine.checkpoint import Checkpoint
from engine.evaluation import metrics
from engine.evaluation.records import thresholds_of
from engine.evaluation.thresholds import LOWEST, Similarities
from engine.run import run
from engine.training.build import build_alone
from engine.weights import save_weights
from tests.annotations import write_image
from tests.tiny import TINY, pairs
from tests.training import Run, evaluations, make_data
from utils.errors import UserError
from utils.files import load_file
from utils.plots import save_shares

PERSON, BESIDE, ELSEWHERE = (0, 0, 50, 100), (25, 0, 75, 100), (200, 0, 250, 100)
SIMILARITY = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75])  # ties are frequent


def search(*images: list[tuple[tuple, float]]) -> Similarities:
    """Search for one query.

    Each image has (box, similarity) detections. The first image shows the query person at PERSON.
    """
    protocol = Protocol(
        "one",
        np.array([0]),
        np.ones((1, len(images)), np.uint8),
        np.array([0]),
        np.array([0]),
        np.array([0]),
        np.array([PERSON], np.float32),
    )
    dets = [torch.tensor([[*box, 1.0] for box, _ in image]).reshape(-1, 5) for image in images]
    feats = [torch.tensor([[value] for _, value in image]).reshape(-1, 1) for image in images]
    return metrics.search(dets, feats, torch.ones(1, 1), protocol)["similarities"]


def test_a_detection_in_an_image_without_the_person_is_a_false_alarm():
    seen = search([(PERSON, 0.9), (ELSEWHERE, 0.8)], [(PERSON, 0.25), (ELSEWHERE, 0.5)], [])
    assert (seen.wrong.tolist(), torch.cat(seen.right).tolist()) == ([0.5], [pytest.approx(0.9)])
    for at in seen.thresholds().values():  # rate × queries < 1: no false alarm is allowed
        assert at["similarity"] == np.nextafter(np.float32(0.5), np.float32(1))
        assert (at["matches_kept"], at["queries_kept"]) == (1, 1)


def test_a_second_detection_of_the_person_is_no_false_alarm():
    seen = search([(PERSON, 0.5), (BESIDE, 0.9)], [(ELSEWHERE, 0.25)])
    assert (seen.wrong.tolist(), torch.cat(seen.right).tolist()) == ([0.25], [0.5])


def test_without_other_people_the_threshold_is_the_lowest():
    seen = search([(PERSON, -0.5)], [])
    assert seen.thresholds()["0.01"] == {
        "similarity": LOWEST,
        "matches_kept": 1,
        "queries_kept": 1,
    }
    empty = search([], [])
    assert empty.thresholds()["0.1"]["matches_kept"] == 0
    assert empty.curve()["false_alarms"][0] == 0


@given(st.lists(st.tuples(SIMILARITY, st.lists(SIMILARITY, max_size=3)), min_size=1, max_size=40))
def test_threshold_is_the_smallest_similarity_with_that_rate_of_false_alarms(queries):
    seen = Similarities(len(queries))
    for row, (wrong, hits) in enumerate(queries):
        seen.add(torch.tensor([row]), torch.tensor([[*hits, -np.inf]]), torch.tensor([wrong]))
    rights = [hit for _, hits in queries for hit in hits]

    def alarms(similarity: float) -> float:
        return sum(wrong >= similarity for wrong, _ in queries) / len(queries)

    for rate, at in seen.thresholds().items():
        level = at["similarity"]
        assert alarms(level) <= float(rate)
        if level > LOWEST:
            assert alarms(float(np.nextafter(np.float32(level), np.float32(-2)))) > float(rate)
        assert at["matches_kept"] == sum(r >= level for r in rights) / max(len(rights), 1)
        kept = [any(hit >= level for hit in hits) for _, hits in queries]
        assert at["queries_kept"] == sum(kept) / len(queries)
    curve = seen.curve()
    assert curve["false_alarms"] == [alarms(level) for level in curve["similarity"]]


def stored_thresholds(path: Path) -> dict[str, float] | None:
    return thresholds_of(Checkpoint.read(path))


@pytest.fixture
def checkpoint(root: Path, net, tmp_path: Path) -> Path:
    """Return a checkpoint of a second epoch, and its config."""
    cfg = load_cfg(None, pairs(TINY | {"OUTPUT_DIR": tmp_path, "INPUT.DATA_ROOT": root}))
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    content = {"model": net.state_dict(), "config": cfg.dump(), "epoch": 2, "step": 0}
    torch.save(content, tmp_path / "epoch_01.pth")
    return tmp_path / "epoch_01.pth"


@pytest.fixture
def evaluated(checkpoint: Path, program):
    """Return a function evaluated(path, KEY, VALUE, ...) that returns the results of --eval --ckpt
    path."""

    def call(path: Path, *overrides: str) -> dict:
        line = "--cfg", checkpoint.parent / "cfg.yaml", "--eval", "--ckpt", path, *overrides
        code, out, err = program(lambda: run("", build_alone), *line)
        assert code == 0, err
        assert out
        return json.loads((checkpoint.parent / "results.json").read_text())

    return call


def test_a_checkpoint_is_read_once(checkpoint: Path, evaluated, program, monkeypatch):
    """--eval, and the demo with --false-alarms, read the file only once."""
    read = []
    monkeypatch.setattr(
        "engine.checkpoint.load_file", lambda *args: read.append(args) or load_file(*args)
    )
    evaluated(checkpoint)
    assert len(read) == 1
    folder = checkpoint.parent
    write_image(folder / "a.jpg", (64, 48))
    query = "--query", folder / "a.jpg", "--box", 1, 2, 30, 40, "--gallery", folder / "a.jpg"
    line = "--cfg", folder / "cfg.yaml", "--ckpt", checkpoint, *query, "--false-alarms", "0.05"
    assert program(demo.main, *line, "--out", folder / "found")[0] == 0
    assert len(read) == 2


def similarities(results: dict) -> dict[str, float]:
    return {rate: at["similarity"] for rate, at in results["thresholds"].items()}


def test_an_evaluation_sets_the_thresholds_of_its_checkpoint(checkpoint: Path, evaluated):
    assert stored_thresholds(checkpoint) is None
    results = evaluated(checkpoint)
    found = stored_thresholds(checkpoint)
    assert found == similarities(results)
    assert list(found) == ["0.01", "0.05", "0.1"]
    assert LOWEST < found["0.1"] <= found["0.05"] <= found["0.01"] <= 1
    assert results["galleries"][0]["thresholds"] == found
    best = shutil.copy(checkpoint, checkpoint.with_name("best.pth"))
    assert stored_thresholds(best) == found
    assert Image.open(checkpoint.with_name("thresholds.png")).size == (1050, 630)


@pytest.mark.slow
def test_the_newest_evaluation_of_its_epoch_counts(checkpoint: Path, evaluated):
    lines = [
        {"epoch": 1, "thresholds/0.05": 0.25},
        {"epoch": 2, "thresholds/0.05": 0.5},
        {"epoch": 3, "thresholds/0.05": 0.75},
        {"epoch": 2},
    ]
    text = "".join(json.dumps({"search/mAP": 0.5} | line) + "\n" for line in lines)
    (checkpoint.parent / "evaluations.jsonl").write_text(text)
    assert stored_thresholds(checkpoint) == {"0.05": 0.5}
    for others in (
        ["EVAL_USE_GT", "True"],
        ["EVAL_USE_CBGM", "True"],
    ):  # their similarities have another distribution
        assert similarities(evaluated(checkpoint, *others))
        assert stored_thresholds(checkpoint) == {"0.05": 0.5}
    assert similarities(evaluated(checkpoint)) == stored_thresholds(checkpoint)


@pytest.mark.slow
def test_thresholds_belong_to_one_checkpoint(checkpoint: Path, evaluated, tmp_path: Path):
    evaluated(checkpoint)
    content = torch.load(checkpoint)
    for change in ({"epoch": 3}, {"step": 5}, {"epoch": None}):
        torch.save(content | change, checkpoint.with_name("other.pth"))
        assert stored_thresholds(checkpoint.with_name("other.pth")) is None
    elsewhere = tmp_path / "elsewhere" / "epoch_01.pth"
    elsewhere.parent.mkdir()
    shutil.copy(checkpoint, elsewhere)
    assert evaluated(elsewhere)["epoch"] is None  # the checkpoint is not in OUTPUT_DIR
    assert stored_thresholds(checkpoint) is None
    assert stored_thresholds(elsewhere) is None


def test_exported_weights_contain_thresholds(net, tmp_path: Path):
    path = tmp_path / "student.safetensors"
    save_weights(net.state_dict(), "{}", {"0.05": 0.625}, path, half=False)
    assert stored_thresholds(path) == {"0.05": 0.625}


@pytest.mark.parametrize(
    "name, text",
    [("results.json", "{"), ("results.json", '{"epoch": 2}'), ("evaluations.jsonl", "3\n")],
)
def test_damaged_records_are_named(checkpoint: Path, name: str, text: str):
    checkpoint.with_name(name).write_text(text)
    with pytest.raises(UserError, match=f"{name}: expected"):
        stored_thresholds(checkpoint)


@pytest.mark.slow
def test_every_checkpoint_of_a_training_has_thresholds(tmp_path: Path):
    make_data(tmp_path)
    training = Run(tmp_path, "run", "EVAL_USE_GT", "False")
    assert training.wait() == 0, training.text
    lines = evaluations(training.out)
    for name, line in zip(("epoch_00.pth", "epoch_01.pth"), lines, strict=True):
        stored = {f"thresholds/{k}": v for k, v in stored_thresholds(training.out / name).items()}
        assert stored.items() <= line.items()
    best = max(lines, key=lambda line: line["search/mAP"])
    assert stored_thresholds(training.out / "best.pth")["0.05"] == best["thresholds/0.05"]


def test_a_dollar_sign_in_a_name_starts_no_formula(tmp_path):
    names = {r"$\x$": [0.0, 1.0]}
    save_shares(tmp_path / "a.png", r"mini_$\y$.txt", "similarity", [0, 1], names, {"1%": 0.5})
    assert Image.open(tmp_path / "a.png").width > 500
