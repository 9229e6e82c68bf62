"""Synthetic data: they depend on the seed only, and their files have the published layouts."""

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from datasets import UNLABELED, load_dataset
from datasets.synthetic import write_dataset
from datasets.synthetic.output import in_parallel
from datasets.synthetic.plan import make_plan
from datasets.synthetic.scenes import SceneContent, draw_scene
from tools import make_rendered, make_synthetic
from utils.errors import UserError

SMALL = dict(identities=9, frames=25, queries=4, size=(208, 128), progress=False)
GOLDEN = Path(__file__).parent / "golden"


def digest(folder) -> dict[str, str]:
    paths = [p for p in Path(folder).rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha1(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    out = str(tmp_path_factory.mktemp("synthetic") / "data")
    assert write_dataset(out, "both", seed=1, workers=1, **SMALL)
    return out


@pytest.mark.slow
def test_the_seed_decides_every_byte(root, tmp_path):
    write_dataset(tmp_path / "again", "both", seed=1, workers=2, **SMALL)
    assert digest(tmp_path / "again") == digest(root)
    write_dataset(tmp_path / "other", "both", seed=2, workers=1, **SMALL)
    one, other = digest(root), digest(tmp_path / "other")
    assert not {h for name, h in one.items() if name.endswith(".jpg")} & set(other.values())


@pytest.mark.slow
def test_a_finished_folder_is_left_alone_and_an_unfinished_one_completed(root):
    before = digest(root)
    assert not write_dataset(root, "both", seed=1, workers=1, **SMALL)
    assert digest(root) == before
    record = Path(root) / "synthetic.json"
    finished = record.read_text()
    record.write_text(json.dumps(json.loads(finished) | {"finished": False}))
    (Path(root) / "PRW" / "query_info.txt").unlink()
    assert write_dataset(root, "both", seed=1, workers=1, **SMALL)
    assert digest(root) == before


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seed": 2}, "seed 1, not 2"),
        ({"layout": "prw"}, "layout both, not prw"),
        ({"layout": "voc"}, "expected cuhk, prw, both or coco"),
        ({"queries": 999}, "expected at most"),
        ({"identities": 1}, "identities: expected at least 3"),
        ({"size": (208, 0)}, "height"),
        ({"size": (70_000, 64)}, "width"),
        ({"difficulty": 9.0}, "difficulty"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_input_is_one_clear_line(root, change, words):
    with pytest.raises(UserError, match=words):
        write_dataset(root, **({"layout": "both", "seed": 1, "workers": 1} | SMALL | change))


def test_a_folder_with_other_content_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UserError, match="other content"):
        write_dataset(tmp_path, workers=1, **SMALL)
    assert os.listdir(tmp_path) == ["holiday.jpg"]


@pytest.mark.parametrize("name", ["CUHK-SYSU", "PRW"])
def test_both_layouts_go_through_the_loaders(root, name):
    data = load_dataset(name, os.path.join(root, name))
    assert (len(data.train), len(data.gallery), len(data.queries)) == (20, 5, 4)
    assert data.num_pids == 6 and not data.dropped
    labels = np.concatenate([s.pids for s in data.train])
    assert set(labels) == {*range(1, 7), UNLABELED}
    for scene in data.train + data.gallery:
        with Image.open(scene.path) as image:
            assert image.size == (208, 128)
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2] + 3).all()
        assert (scene.boxes <= np.array([208, 128, 208, 128])).all()
    for query in data.queries:  # the query's box is a box of its scene
        assert (data.gallery[query.scene].boxes == query.box).all(1).any()
    protocol = data.protocol()
    assert (np.bincount(protocol.query, minlength=4) >= 1).all()
    assert protocol.listed.sum(1).tolist() == [4] * 4  # every image but the query's own


def test_both_layouts_say_the_same(root):
    cuhk, prw = (load_dataset(name, os.path.join(root, name)) for name in ("CUHK-SYSU", "PRW"))
    in_order = sorted(cuhk.train, key=lambda scene: int(scene.name[1:-4]))
    for a, b in zip(cuhk.gallery + in_order, prw.gallery + prw.train, strict=True):
        assert np.abs(a.boxes - b.boxes).max() <= 1
        assert Path(a.path).read_bytes() == Path(b.path).read_bytes()


def test_own_data_says_the_same(root, tmp_path):
    """Scenes and queries are the same as in the other layouts, and unlabelled people stay
    unlabelled."""
    write_dataset(tmp_path, "coco", seed=1, workers=1, **SMALL)
    own, prw = load_dataset("COCO", str(tmp_path / "COCO")), load_dataset("PRW", f"{root}/PRW")
    assert own.num_pids == prw.num_pids == 6 and not own.dropped
    for a, b in zip(own.train + own.gallery, prw.train + prw.gallery, strict=True):
        assert np.abs(a.boxes - b.boxes).max() <= 0.02 and a.camera == b.camera
        assert ((a.pids == UNLABELED) == (b.pids == UNLABELED)).all()
        assert Path(a.path).read_bytes() == Path(b.path).read_bytes()
    for a, b in zip(own.queries, prw.queries, strict=True):
        assert a.scene == b.scene and np.abs(a.box - b.box).max() <= 0.02
    ours, theirs = (data.protocol(-1) for data in (own, prw))
    assert (ours.query == theirs.query).all() and (ours.image == theirs.image).all()


def structure(value):
    """Return nesting, field names, kinds and shapes of the result of loadmat, without lengths of
    lists."""
    if not isinstance(value, np.ndarray):
        return type(value)
    kind = "iu" if value.dtype.kind in "iu" else value.dtype.kind
    is_list = value.dtype.names or value.dtype == object
    lead = tuple("n" if n > 1 and is_list else n for n in value.shape)
    if value.dtype.names:
        return {f: structure(value[f].flat[0]) for f in value.dtype.names}, len(lead)
    if value.dtype == object:
        return [structure(value.flat[0])], lead
    return kind, lead


@pytest.mark.parametrize(
    "ours, golden",
    [
        (f"CUHK-SYSU/annotation/{f}", f"cuhk/annotation/{f}")
        for f in (
            "Images.mat",
            "pool.mat",
            "test/train_test/Train.mat",
            "test/train_test/TestG50.mat",
        )
    ]
    + [(f"PRW/{f}", f"prw/{f}") for f in ("frame_train.mat", "frame_test.mat")],
)
def test_mat_files_are_nested_like_the_reference(root, ours, golden):
    found = loadmat(os.path.join(root, ours))
    wanted = loadmat(next(GOLDEN.rglob(golden)))
    variable = next(k for k in wanted if not k.startswith("__"))
    assert structure(found[variable]) == structure(wanted[variable])


def test_galleries_name_matches_first_and_leave_distractors_empty(root):
    path = os.path.join(root, "CUHK-SYSU/annotation/test/train_test/TestG50.mat")
    for row in loadmat(path)["TestG50"][0]:
        boxes = row["Gallery"]["idlocate"][0]
        assert boxes[0].shape == (1, 4)
        sizes = [box.size for box in boxes]
        assert sizes == sorted(sizes, reverse=True)
        assert all(box.shape == (1, 0) for box in boxes if not box.size)


def test_prw_files_have_the_line_ends_and_the_unlabelled_people_of_the_real_ones(root):
    text = (Path(root) / "PRW/query_info.txt").read_bytes()
    assert text.count(b"\r\n") == 4 and len(text.split()) == 24
    rows = [loadmat(p)["box_new"] for p in (Path(root) / "PRW/annotations").iterdir()]
    assert all(r.shape[1] == 5 for r in rows)
    assert (np.concatenate(rows)[:, 0] == -2).any()


def test_queries_have_matches_in_other_cameras():
    plan = make_plan(identities=30, frames=100, queries=25, seed=3, alike=0.5)
    for own, place in plan.queries:
        pid = plan.gallery[own].people[place]
        assert {f.camera for f in plan.gallery if pid in f.people} - {plan.gallery[own].camera}
    trained = {pid for f in plan.train for pid in f.people}
    assert trained & {pid for f in plan.gallery for pid in f.people} == {-2}
    assert len(set(plan.looks)) == 30


def test_a_frame_depends_on_seed_and_index_alone():
    looks = make_plan(9, 20, 2, 0, 0.5).looks
    one, boxes = draw_scene(SceneContent(7, 2, (3, -2)), looks, (208, 128), seed=5)
    np.random.default_rng().random(10)
    two, again = draw_scene(SceneContent(7, 2, (3, -2)), looks, (208, 128), seed=5)
    assert one.tobytes() == two.tobytes() and (boxes == again).all()


def killed(frame: int) -> int:
    if frame == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return frame


@pytest.mark.slow
def test_a_killed_process_ends_the_drawing():
    with pytest.raises(UserError, match="workers: .*killed"):
        list(in_parallel(killed, range(4), workers=2, chunk=1))


@pytest.mark.parametrize("tool", [make_synthetic, make_rendered])
def test_an_empty_folder_name_is_refused(program, tool, tmp_path, monkeypatch):
    """It must not mean the current folder."""
    monkeypatch.chdir(tmp_path)
    code, _, err = program(tool.main, "--out", "", "--frames", 10, "--identities", 6)
    assert code == 2 and "--out: expected" in err and not list(tmp_path.iterdir())
