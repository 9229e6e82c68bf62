"""Labels proposed by a network: forms, identities, and the work that they save."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets import load_dataset
from datasets.importers import read_source
from datasets.importers.forms import label_studio_json
from datasets.importers.records import Box, LabelledImage, Labels, Options
from datasets.picture_paths import spellings
from engine.search.proposals import group
from engine.search.savings import compare
from tests.crowds import make_world, moving, noise
from tools import import_annotations, prelabel

A, B, C = [5.0, 6, 10, 20], [30.0, 6, 10, 20], [50.0, 30, 10, 10]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write pictures; the first and the third are equal."""
    folder = make_world(tmp_path_factory.mktemp("world"))
    noise((96, 64), 0).save(folder / "gallery/s3.png")
    return folder


@pytest.fixture
def run(program, world):
    def call(*arguments, ckpt: str = "everyone.pth") -> tuple[int, str]:
        network = ["--cfg", world / "cfg.yaml", "--ckpt", world / ckpt]
        code, out, err = program(prelabel.main, *network, *arguments, "DEVICE", "cpu")
        return code, out + err

    return call


def boxes_of(path: Path) -> dict[str, list[tuple[list[int], str | None]]]:
    """Return the imported boxes of each image in whole pixels, and the proposed people."""
    found = {}
    for labels in read_source(path, Options()):
        for image in labels.images:
            rows = [([round(v) for v in box.xywh], box.name) for box in image.boxes]
            found[image.name] = rows
    return found


def test_forms_say_the_same(run, world, tmp_path):
    """The importers read what prelabel writes. Equal people get the same name."""
    code, said = run(world / "gallery", "--out", tmp_path / "cvat.xml")
    assert code == 0 and re.search("4 images, 20 boxes", said)
    cvat = boxes_of(tmp_path / "cvat.xml")
    assert [len(rows) for rows in cvat.values()] == [5] * 4
    names = [{name for _, name in rows} for rows in cvat.values()]
    assert all(len(some) == 5 for some in names)  # each person is at most once in a picture
    assert names[0] == names[3]
    assert run(world / "gallery", "--out", tmp_path / "coco.json")[0] == 0
    assert boxes_of(tmp_path / "coco.json") == cvat
    code, _ = run(world / "gallery", "--out", tmp_path / "ls.json", "--form", "label-studio")
    tasks = json.loads((tmp_path / "ls.json").read_text())
    assert code == 0 and tasks[0]["data"]["image"] == "/data/local-files/?d=s0.jpg"
    for task in tasks:  # as if all proposals had been accepted
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    (tmp_path / "ls.json").write_text(json.dumps(tasks))
    assert list(boxes_of(tmp_path / "ls.json").values()) == list(cvat.values())


def test_a_video_becomes_tracks(run, tmp_path, program):
    """A video is converted to tracks, and uncorrected tracks to a dataset."""
    pytest.importorskip("av")
    from tests.videos import write_video

    write_video(tmp_path / "walk.mp4", moving(5))
    code, _ = run(tmp_path / "walk.mp4", "--out", tmp_path / "walk.xml", "--every", "2")
    assert code == 0
    [labels] = read_source(tmp_path / "walk.xml", Options())
    assert [image.frame for image in labels.images] == [0, 1, 2, 3, 4]  # one is interpolated
    assert all(labels.images[frame].boxes for frame in (0, 2, 4))
    (tmp_path / "walk.xml").rename(tmp_path / "gate.xml")
    code, *said = program(import_annotations.main, tmp_path / "gate.xml", "--out", tmp_path / "own")
    assert code == 0, said
    data = load_dataset("COCO", str(tmp_path / "own"))
    assert len(data.train) + len(data.gallery) == 5 and data.num_pids
    code, _ = run(tmp_path / "walk.mp4", "--out", tmp_path / "walk.json", "--every", "2")
    assert code == 0
    [labels] = read_source(tmp_path / "walk.json", Options())
    assert labels.video == "walk.mp4" and [image.frame for image in labels.images] == [0, 2, 4]
    code, said = run(tmp_path / "walk.mp4", "--truth", tmp_path / "walk.json", "--every", "2")
    assert code == 0 and "100.0" in said
    code, said = run(
        tmp_path / "walk.mp4", "--out", tmp_path / "tasks.json", "--form", "label-studio"
    )
    assert code == 2 and "--form label-studio: " in said and not (tmp_path / "tasks.json").exists()


def test_pictures_of_one_name_in_two_folders(run, world, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(world / "gallery/s3.png", tmp_path / folder)
    (tmp_path / "a/notes.txt").touch()
    code, said = run(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "coco.json")
    assert code == 0 and "notes.txt" in said
    assert list(boxes_of(tmp_path / "coco.json")) == ["a/s3.png", "b/s3.png"]


def test_names_that_xml_cannot_represent(run, world, tmp_path):
    shutil.copy(world / "gallery/s3.png", tmp_path / "a\x01b.png")
    code, said = run(tmp_path / "a\x01b.png", "--out", tmp_path / "cvat.xml")
    assert code == 2 and r"a\x01b.png: " in said and not (tmp_path / "cvat.xml").exists()
    assert run(tmp_path / "a\x01b.png", "--out", tmp_path / "coco.json")[0] == 0
    assert list(boxes_of(tmp_path / "coco.json")) == ["a\x01b.png"]


def test_a_network_that_finds_nobody(run, world, tmp_path):
    code, said = run(world / "gallery", "--out", tmp_path / "a.xml", ckpt="nobody.pth")
    assert code == 0 and "4 images, 0 boxes, 0 proposed people" in said
    assert set(map(len, boxes_of(tmp_path / "a.xml").values())) == {0}


def test_an_address_of_a_name_that_is_no_utf8():
    name = os.fsdecode(b"a\xff.png")
    labels = Labels(Path(), "", [LabelledImage(name, [])])
    [task] = json.loads(label_studio_json(labels, "/files/?d="))
    assert task["data"]["image"] == "/files/?d=a%FF.png"
    assert name in spellings("a%FF.png")


def write_yolo(folder: Path, content: dict) -> Path:
    """Write the content of a COCO file as YOLO's text files, whose boxes are shares."""
    (folder / "labels").mkdir(parents=True)
    for image in content["images"]:
        width, height = image["width"], image["height"]
        lines = []
        for row in content["annotations"]:
            if row["image_id"] == image["id"]:
                x, y, w, h = row["bbox"]
                shares = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
                lines.append(" ".join(map(str, [0, *shares, row["attributes"]["person_id"]])))
        file = folder / "labels" / Path(image["file_name"]).with_suffix(".txt").name
        file.write_text("\n".join(lines))
    return folder


def test_what_is_saved(run, world, tmp_path):
    """Compared with themselves, all proposals are right; compared with other boxes, those that
    overlap enough."""
    run(world / "gallery", "--out", tmp_path / "truth.json")
    code, said = run(world / "gallery", "--truth", tmp_path / "truth.json")
    rows = {" ".join(line.split()) for line in said.splitlines()}
    assert code == 0
    assert {"boxes, true 20", "proposed so (IoU ≥ 0.75) 20 100.0"} <= rows
    assert {"to be drawn 0 0.0", "to be written 0 0.0"} <= rows
    content = json.loads((tmp_path / "truth.json").read_text())
    code, said = run(world / "gallery", "--truth", write_yolo(tmp_path / "yolo", content))
    assert {"boxes, true 20", "proposed so (IoU ≥ 0.75) 20 100.0"} <= {
        " ".join(line.split()) for line in said.splitlines()
    }
    del content["images"][0]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 1]
    content["annotations"][0]["bbox"] = [0, 0, 1.5, 1.5]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    out = tmp_path / "all.json"
    code, said = run(world / "gallery", "--truth", tmp_path / "truth.json", "--out", out)
    assert len(boxes_of(out)) == 4  # also the picture without true boxes
    rows = {" ".join(line.split()) for line in said.splitlines()}
    assert code == 0 and {"boxes, true 15", "to be drawn 1 6.7"} <= rows
    assert "boxes proposed of nobody, to be removed 1" in rows


def test_identities_by_average_linkage():
    """There are two people in five pictures. Two people in one picture are never grouped."""
    towards = np.eye(4)[[0, 1, 0, 1, 0, 0]]
    towards += np.random.default_rng(0).normal(0, 0.1, towards.shape)
    embeddings = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    sample = np.array([0, 0, 1, 1, 2, 2])
    found = group(embeddings, np.arange(6), sample, 0.5).tolist()
    assert found[:4] == [1, 2, 1, 2] and sorted(found[4:]) == [1, 3]
    assert group(embeddings, np.arange(6), sample, 1.0).tolist() == [1, 2, 3, 4, 5, 6]
    assert group(embeddings[:1], np.zeros(1, int), sample[:1], 0.5).tolist() == [1]


def test_tracklets_at_the_same_time_are_different_people():
    embeddings = np.tile(np.eye(2)[0], (6, 1))
    tracklets, sample = np.array([0, 1, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 3, 4])
    first, second, third = group(embeddings, tracklets, sample, 0.5)
    assert first != second and third in (first, second)


def test_savings_by_hand():
    shifted = [A[0] + 2, *A[1:]]  # IoU 2/3
    pairs = [
        ([Box(A, "1"), Box(B, "2")], [Box(A, "Anna"), Box(B, "Ben")]),
        ([Box(shifted, "2"), Box(C, "3")], [Box(A, "Anna"), Box(B, None)]),
        ([Box(A, "1")], [Box(A, None, "7")]),
        ([], [Box(A, "Anna")]),
    ]
    savings = compare(pairs, 0.75)
    assert (savings.true, savings.kept, savings.moved, savings.drawn) == (6, 3, 1, 2)
    assert (savings.removed, savings.named, savings.right) == (1, 5, 2)
    assert (savings.true_people, savings.proposed_people) == (3, 3)
    assert compare(pairs, 0.6).kept == 4


WRONG = {
    "no output": ([], "--out: "),
    "suffix": (["--out", "a.txt"], "--out a.txt: "),
    "every": (["--out", "a.xml", "--every", "0"], "--every: "),
    "similarity": (["--out", "a.xml", "--min-similarity", "2"], "--min-similarity: "),
    "truth": (["--out", "a.xml", "--truth", "./a.xml"], "--out a.xml: "),
    "form": (["--truth", "a.xml", "--form", "coco"], "--form: "),
    "address": (["--out", "a.xml", "--address", "/files/"], "--address: "),
    "exact": (["--out", "a.xml", "--exact", "0.5"], "--exact: "),
    "every image": (["--out", "a.xml", "--every", "2"], "--every: "),
    "empty checkpoint": (["--out", "a.xml", "--ckpt", ""], "--ckpt: "),
    "empty config": (["--out", "a.xml", "--cfg", ""], "--cfg: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(run, world, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, said = WRONG[case]
    code, printed = run(world / "gallery", *arguments)
    assert code == 2 and said in printed


def test_sources_that_are_no_task(run, world, tmp_path):
    code, said = run(tmp_path, "--out", tmp_path / "a.xml")
    assert code == 2 and "SOURCE: " in said
    (tmp_path / "a.jpg").touch()
    code, said = run(tmp_path / "a.jpg", "--out", tmp_path / "a.xml")
    assert code == 2 and "a.jpg" in said and not (tmp_path / "a.xml").exists()
    (tmp_path / "a.jpg").unlink()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    code, said = run(tmp_path, "--out", tmp_path / "a.xml")
    assert code == 2 and "found 2 videos and 0 images" in said
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": []}')
    code, said = run(world / "gallery", "--truth", tmp_path / "truth.json")
    assert code == 2 and "found none" in said
