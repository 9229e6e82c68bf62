"""tools.check_dataset reports errors of a dataset before a run."""

import os
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.annotations import write_own, write_prw
from tools import check_dataset


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Return a function that runs the program on a small PRW after `spoil(root)`, and returns exit
    code and lines."""
    train = {
        "c1s1_1": [(1, 2, 2, 9, 9), (1, 2, 2, 9, 9), (-2, 1, 1, 5, 0)],
        "c2s1_1": [(1, 3, 2, 9, 9), (2, 58, 2, 9, 9)],
        "c3s1_1": [(-2, 90, 2, 9, 9)],
    }
    test = {"c1s1_2": [(7, 1, 2, 10, 20)], "c2s1_2": [(7, 3, 3, 9, 9), (8, 20, 3, 9, 9)]}
    queries = [(7, 1, 2, 10, 20, "c1s1_2"), (8, 20, 3, 9, 9, "c2s1_2")]

    def run(spoil=lambda root: None, *overrides):
        write_prw(tmp_path, train, test, queries)
        spoil(tmp_path)
        root = str(tmp_path)
        prw = "INPUT.DATASET", "PRW", "INPUT.DATA_ROOT", root, "EVAL_GALLERY_SIZE", "-1"
        monkeypatch.setattr(
            sys,
            "argv",
            ["check_dataset", *prw, *overrides],
        )
        code = check_dataset.main()
        out, err = capsys.readouterr()
        return code, {" ".join(line.split()) for line in (out + err).splitlines()}

    return run


def test_counts(check):
    code, lines = check()
    assert code == 0
    assert {
        "images 3 2",
        "boxes 5 3",
        "boxes unlabelled 1 0",
        "identities 2 2",
        "identities in one image only 1 1",
        "images with an identity twice 1 0",
        "images with unlabelled people only 1 0",
        "boxes listed twice 1 0",
        "boxes over 1 px beyond the image edge 2 0",
        "boxes outside the image 1 0",
        "images missing or damaged 0 0",
        "train: box without area, dropped 1",
        "PRW 1 1 1",
        "PRW cross-camera 1 1 1",
        "nothing that would break a run",
    } <= lines


def cut(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def break_query(root):
    (root / "query_info.txt").write_text("7 1 2 10 20 c1s1_2\n7 70 3 9 9 c2s1_2")


def thin(path):
    Image.new("RGB", (1, 4000)).save(path)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def no_identities(root):
    for path in (root / "annotations").glob("*1.jpg.mat"):
        savemat(path, {"box_new": np.array([[-2, 1, 1, 9, 9]])})


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda root: (root / "frames/c1s1_2.jpg").unlink(), "c1s1_2.jpg: missing"),
        (lambda root: cut(root / "frames/c1s1_1.jpg"), "c1s1_1.jpg: damaged"),
        (lambda root: cut(root / "frame_test.mat"), "frame_test.mat: damaged"),
        (break_query, "c2s1_2.jpg: query box 70 3 79 12: "),
        (lambda root: thin(root / "frames/c1s1_1.jpg"), "c1s1_1.jpg: expected"),
        (lambda root: thin(root / "frames/c1s1_2.jpg"), "1 x 4000"),
        (lambda root: pipe(root / "frames/c1s1_1.jpg"), "c1s1_1.jpg: expected"),
        (no_identities, "3 images and 0 "),
    ],
)
def test_what_would_break_a_run(check, spoil, said):
    code, lines = check(spoil)
    assert code == 1
    assert any(line.startswith("would break a run") and said in line for line in lines)


@pytest.mark.parametrize("missing", ["", "a.jpg", "train.json"])
def test_further_training_data_is_checked(check, tmp_path, missing):
    own = tmp_path / "own"
    write_own(own, {"a.jpg": [(1, 5, 6, 10, 20)], "b.jpg": []}, {})
    if missing:
        (own / missing).unlink()
    code, lines = check(lambda root: None, "INPUT.EXTRA_TRAIN", f"[[COCO, {own}, 0.5]]")
    if missing:
        assert code == 1 and any("break a run" in line and missing in line for line in lines)
    else:
        assert code == 0 and {"images 5 2", "boxes 6 3", "identities 3 2"} <= lines


def test_data_without_test_images_are_for_further_training(tmp_path, program):
    custom = "INPUT.DATASET", "COCO", "INPUT.DATA_ROOT", tmp_path
    write_own(tmp_path, {"a.jpg": [(-1, 5, 6, 10, 20)]}, {})
    code, out, _ = program(check_dataset.main, *custom)
    assert code == 0 and "INPUT.EXTRA_TRAIN" in out
    code, out, _ = program(
        check_dataset.main, *custom, "INPUT.EXTRA_TRAIN", f"[[COCO, {tmp_path}, 1]]"
    )
    assert code == 1 and "test.json" in out
    (tmp_path / "a.jpg").unlink()
    code, out, _ = program(check_dataset.main, *custom)
    assert code == 1 and "a.jpg: missing" in out
    write_own(tmp_path, {}, {})
    assert program(check_dataset.main, *custom)[0] == 1


def test_settings_that_a_run_would_refuse(check):
    code, lines = check(lambda root: None, "EVAL_QUERY_FILE", "mini.txt")
    assert code == 1
    assert any("would break a run" in line and "mini.txt: missing" in line for line in lines)


def test_images_that_carry_an_orientation_are_named(check):
    def turn(root):
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (64, 48)).save(root / "frames/c1s1_2.jpg", exif=exif)

    code, lines = check(turn)
    said = "c1s1_2.jpg: EXIF orientation 6"
    assert code == 0 and sum(line.startswith("remark") for line in lines) == 1
    assert any(said in line for line in lines)


def test_damaged_training_images_may_be_skipped(check):
    code, lines = check(lambda root: cut(root / "frames/c1s1_1.jpg"), "INPUT.SKIP_DAMAGED", "True")
    assert code == 0 and any(line.startswith("skipped in training") for line in lines)


def test_own_data_with_and_without_cameras(tmp_path, monkeypatch, capsys):
    """All valid protocols and all irregularities of the files are reported."""
    train = {"a 1.jpg": [("x", 2, 2, 9, 9), (-1, 3, 3, 9, 9)], "a 2.jpg": [("x", 1, 1, 5, 0)]}
    test = {"b/1.jpg": [(7, 1, 2, 10, 20)], "c/1.jpg": [(7, 3, 3, 9, 9)]}
    command = ["check_dataset", "INPUT.DATASET", "COCO", "INPUT.DATA_ROOT", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    for camera, last in ((None, "COCO 1 0 1"), (lambda name: name[0], "COCO cross-camera 2 0 2")):
        write_own(tmp_path, train, test, camera)
        assert check_dataset.main() == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert {"images 2 2", "boxes 2 2", "train: box without area, dropped 1"} <= set(lines)
        assert [line for line in lines if line.startswith("COCO")][-1] == last
    (tmp_path / "c/1.jpg").unlink()
    assert check_dataset.main() == 1
    assert f"would break a run: {tmp_path}/c/1.jpg: missing image" in capsys.readouterr().out
