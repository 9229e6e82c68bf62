"""The inputs of a run are compared by content, not by path."""

import shutil
from pathlib import Path

import pytest
import torch

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.base import SearchDataset
from engine.training.inputs import (
    TEACHER,
    changed_inputs,
    describe_data,
    describe_files,
    read_inputs,
    write_inputs,
)
from engine.training.resume import check_place
from tests.tiny import TINY, pairs
from tools.experiments.runs import check_run, describe_run
from utils.errors import UserError


def test_pictures_are_compared_by_content(dataset: SearchDataset, root: Path, tmp_path: Path):
    """Names, times and paths are not compared. Images that cannot be read have no digest."""
    copy = load_dataset("CUHK-SYSU", str(shutil.copytree(root, tmp_path / "copy")))
    before = describe_data(dataset)
    assert changed_inputs(before, describe_data(copy)) == {}
    first, second, *_ = (Path(scene.path) for scene in copy.gallery)
    shutil.copy(second, first)
    assert set(changed_inputs(before, describe_data(copy))) == {"test pictures"}
    first.unlink()
    assert describe_data(copy)["test pictures"] == ""
    assert changed_inputs(before, describe_data(copy)) == {}


def test_annotations_are_compared(dataset: SearchDataset):
    before = describe_data(dataset)
    boxes = dataset.gallery[0].boxes
    boxes[0] += 1
    changed = changed_inputs(before, describe_data(dataset))
    boxes[0] -= 1
    assert set(changed) == {"test annotations"}


def test_facts_that_one_side_lacks_are_not_compared():
    assert changed_inputs({}, {"images": 3}) == {} == changed_inputs({"images": 3}, {})
    assert changed_inputs({"pictures": ""}, {"pictures": "a"}) == {}
    assert changed_inputs({"images": 3}, {"images": 4}) == {"images": "images were 3, are 4"}


@pytest.mark.parametrize("content", ["", "[]", "3", "[" * 9999])
def test_damaged_records_are_named(tmp_path: Path, content: str):
    assert read_inputs(tmp_path) == {}
    write_inputs({"images": 3}, tmp_path)
    assert read_inputs(tmp_path) == {"images": 3}
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(UserError, match=r"inputs\.json: expected"):
        read_inputs(tmp_path)


# --- --resume ---


@pytest.fixture
def resume(tmp_path: Path):
    """Return a function resume(teacher's path, teacher's content, pictures, step).

    It returns the lines of `check_place` for a run that began with content "a" at `teacher.pth`.
    """

    def config(teacher: Path):
        terms = {"DISTILLER.TERMS": "['ld']", TEACHER: teacher}
        return load_cfg(None, pairs(TINY | terms))

    def call(name: str, content: str, pictures: str = "1", step: int = 0) -> list[str]:
        first, now = tmp_path / "teacher.pth", tmp_path / name
        first.write_text("a")
        files = describe_files(config(first))
        saved = {
            **{key: {} for key in ("terms", "optimizer", "scaler")},
            "generators": [None],
            "epoch": 1,
            "step": step,
            "config": config(first).dump(),
            "data": {"images": 9, "pictures": "1"} | files,
        }
        now.write_text(content)
        inputs = {"images": 9, "pictures": pictures} | describe_files(config(now))
        return check_place(saved, config(now), inputs, 5, "epoch_00.pth")

    return call


def test_another_teacher_behind_the_same_path_is_refused(resume):
    assert resume("teacher.pth", "a") == []
    with pytest.raises(UserError, match=rf"^{TEACHER} .*teacher\.pth: expected .*epoch_00\.pth"):
        resume("teacher.pth", "b")


def test_another_teacher_under_another_path_is_named(resume):
    (line,) = resume("other.pth", "a")
    assert f"{TEACHER} was " in line
    keys, data = resume("other.pth", "b")
    assert f"{TEACHER} was " in keys and "other.pth" in keys and TEACHER in data


@pytest.mark.parametrize("step", [0, 3])
def test_other_pictures_are_named(resume, step: int):
    """They are also accepted within an epoch: the order is the same, and a damaged image may have
    been repaired."""
    (line,) = resume("teacher.pth", "a", pictures="2", step=step)
    assert "pictures were 1, are 2" in line


# --- tools.compare ---


def test_compare_refuses_a_run_with_other_inputs(root: Path, tmp_path: Path):
    data, teacher = shutil.copytree(root, tmp_path / "data"), tmp_path / "teacher.pth"
    torch.save({}, teacher)
    (tmp_path / "student.yaml").write_text(load_cfg(None, pairs(TINY)).dump())
    values = {"INPUT.DATA_ROOT": data, "OUTPUT_DIR": tmp_path / "out", TEACHER: teacher}
    run = describe_run(str(tmp_path / "student.yaml"), pairs(values), "ld", 1)
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(run.cfg.dump())
    check_run(run)  # a run of an earlier version, which has no record
    dataset = load_dataset("CUHK-SYSU", str(data))
    write_inputs(describe_data(dataset) | describe_files(run.cfg), run.folder)
    check_run(run)
    torch.save({"model": 1}, teacher)
    with pytest.raises(UserError, match=rf"^{run.folder}: .*{TEACHER} were"):
        check_run(run)
    torch.save({}, teacher)
    was = describe_data(dataset) | {"test pictures": "other"}
    write_inputs(was | describe_files(run.cfg), run.folder)
    with pytest.raises(UserError, match=rf"^{run.folder}: .*pictures were other"):
        check_run(run)
