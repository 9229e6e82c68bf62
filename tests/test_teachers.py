"""Teachers whose outputs are computed once: re-id networks of other programs and own
checkpoints."""

import os
import shutil
import sqlite3
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from configs.defaults import load_cfg
from datasets import load_dataset
from datasets.loaders import SceneDataset, mirrored
from datasets.types import Scene
from engine.run import build_from
from engine.teachers import sources, tables
from engine.teachers.build import _joined, build_teacher
from engine.teachers.networks import read_crop_network
from engine.teachers.sources import Embeddings, OwnTeacher, read_reid_teacher
from engine.teachers.store import OutputStore
from engine.teachers.tables import keys_of
from engine.training.batching import Batching
from engine.training.build import build_distilled
from engine.training.inputs import INIT_STUDENT, TEACHER, TEACHERS, changed_inputs, describe_files
from engine.training.train_step import TrainStep
from models.build import build_net
from models.cached_teacher import _background, tables_of
from models.oim import OIM
from tests.tiny import pairs
from tests.training import Run, fix_regions, make_data, run_ranks, same
from tools.experiments import records, rows
from tools.experiments.runs import teachers_of
from utils.errors import UserError
from utils.files import save_file

CPU = torch.device("cpu")
CACHED = {
    "DISTILLER.CD.CACHED": True,
    "DISTILLER.LD.CACHED": True,
    "DISTILLER.LD.CACHED_REGIONS": 12,
}
DESCRIPTION = "size: [32, 16]\nmean: [0.4, 0.5, 0.6]\ndeviation: [0.2, 0.3, 0.4]\n"


class Crops(nn.Module):
    """A small re-id network."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=4)

    def forward(self, pictures):
        return self.conv(pictures).mean((2, 3))


class Two(Crops):
    def forward(self, pictures):
        return super().forward(pictures), self.conv(pictures)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return data, a config, a checkpoint of a teacher, and re-id networks."""
    folder = tmp_path_factory.mktemp("teachers")
    root = make_data(folder)
    cfg = config(folder)
    torch.manual_seed(0)
    net = build_net(cfg, load_dataset("CUHK-SYSU", str(root)).num_pids)
    net.oim.lut.copy_(F.normalize(torch.randn_like(net.oim.lut)))
    save_file({"model": net.state_dict(), "config": cfg.dump()}, folder / "teacher.pth")
    for name, module in {"crops": Crops(), "two": Two()}.items():
        export(module, folder / f"{name}.onnx")
        (folder / f"{name}.yaml").write_text(DESCRIPTION)
    return folder


def export(module: nn.Module, path: Path) -> None:
    """Write a network as .onnx for any number of pictures, or as .pt2 for two at a time."""
    example = torch.zeros(2, 3, 32, 16)
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(module.eval(), (example,)), path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter takes a fraction of the time
        torch.onnx.export(
            module.eval(),
            (example,),
            path,
            dynamo=False,
            input_names=["pictures"],
            output_names=["embeddings", "maps"][: 2 if isinstance(module, Two) else 1],
            dynamic_axes={"pictures": {0: "n"}},
        )


def config(folder: Path, **values):
    own = {
        "INPUT.DATA_ROOT": folder / "data/CUHK-SYSU",
        "OUTPUT_DIR": folder / "run",
        "DISTILLER.CACHE_FILE": folder / "cache.sqlite",
        "DISTILLER.TEACHER_CKPT": folder / "teacher.pth",
    }
    return load_cfg(folder / "tiny.yaml", pairs(own | values))


def distiller(cfg):
    dataset = load_dataset("CUHK-SYSU", cfg.INPUT.DATA_ROOT)
    torch.manual_seed(1)
    return build_distilled(cfg, dataset, CPU)[0].train(), dataset


def make_batch(dataset, turned: bool):
    """Return the first scenes with people, unchanged or mirrored."""
    data = SceneDataset(dataset.train)
    scenes = [data[i] for i, scene in enumerate(dataset.train) if len(scene.boxes)][:2]
    scenes = [mirrored(*scene) for scene in scenes] if turned else scenes
    return [list(part) for part in zip(*scenes)]


@pytest.mark.parametrize("turned", [False, True])
def test_cached_outputs_are_those_of_the_network(base, turned):
    """They are embeddings and logits of the annotated boxes, and logits of the background boxes."""
    values = {"DISTILLER.TERMS": "['ld','cd']"}
    cached, dataset = distiller(config(base, **CACHED, **values))
    live, _ = distiller(config(base, **values))
    student = live.student.forward_train(*make_batch(dataset, turned))
    student.people.boxes = [target["boxes"] for target in student.targets]
    student.people.labels = [target["labels"] for target in student.targets]
    with torch.no_grad():
        found = cached.teacher.forward_teacher(student)
        student.proposals = found.proposals
        expected = live.teacher.forward_teacher(student)
    assert all(len(boxes) == 12 for boxes in found.proposals.boxes)
    torch.testing.assert_close(found.embeddings, expected.embeddings, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.class_logits, expected.class_logits, atol=5e-3, rtol=0)
    assert torch.equal(found.oim.lut, expected.oim.lut) and found.oim.lut.any()
    assert cached.teacher.live is None


def test_teachers_get_their_pictures_on_their_device(base, monkeypatch):
    """A loader's pictures are on the CPU, while the network may be on a GPU."""
    meta, seen = torch.device("meta"), []

    def note(net, images, boxes, *rest):
        seen.extend(one.device for one in (*images, *boxes))
        return [torch.zeros(1, 4)] * 2, [torch.zeros(1, 2)] * 2, torch.zeros(0, 4), []

    class Fake:
        def embed(self, images, boxes):
            return note(self, images, boxes)[0]

    pictures, boxes = [torch.zeros(3, 8, 8)] * 2, [torch.zeros(1, 4)] * 2
    people, _ = Embeddings(Fake(), "", 4, meta).compute(pictures, boxes)
    assert people.shape == (1, 2, 4) and people.device == CPU
    monkeypatch.setattr(sources, "outputs_on", note)
    net = build_net(load_cfg(base / "tiny.yaml"), 3).to(meta)
    OwnTeacher(net, "", 5).compute(pictures, boxes)
    assert len(seen) == 8 and set(seen) == {meta}


@pytest.mark.parametrize("terms", ["['ld','cd']", "['dfd','kd','rkd']"])
def test_terms_of_cached_teachers_train_the_student(base, terms):
    model, dataset = distiller(config(base, **CACHED, **{"DISTILLER.TERMS": terms}))
    assert (model.teacher.live is not None) == ("dfd" in terms)
    out = model(*make_batch(dataset, False))
    for name in model.terms:
        model.zero_grad()
        out.losses[name].backward(retain_graph=True)
        assert any(p.grad is not None and p.grad.any() for p in model.student.parameters())


def test_cached_logits_of_a_divided_batch(base, monkeypatch):
    """The loss is a mean over all fixed regions, of which one picture has fewer."""
    values = CACHED | {"DISTILLER.TERMS": "['ld','cd']", "DISTILLER.LD.TEMPERATURE": 0.05}
    cfgs = {parts: config(base, **values, **{"SOLVER.ACCUMULATE": parts}) for parts in (1, 2)}
    made = {parts: distiller(cfg) for parts, cfg in cfgs.items()}
    fix_regions(monkeypatch.setattr)
    losses = []
    for parts, (model, dataset) in made.items():
        images, targets = make_batch(dataset, False)
        model.teacher.logits_boxes[int(targets[0]["picture"]) // 2, 1:] = 0
        step = TrainStep(cfgs[parts], model.train(), model.student, CPU)
        losses.append(step.step(Batching(2, parts).parts(images, targets, 2), 0.0, "a test"))
    assert losses[0]["ld"] > 0 and losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.slow
def test_outputs_are_computed_once(base, tmp_path, monkeypatch):
    """Those of a picture are computed again if it has changed, or if they are missing."""
    computed = []
    compute = OwnTeacher.compute

    def counted(self, images, boxes):
        computed.append(len(boxes[0]))
        return compute(self, images, boxes)

    monkeypatch.setattr(OwnTeacher, "compute", counted)
    shutil.copytree(base / "data", tmp_path / "data")
    shutil.copy(base / "tiny.yaml", tmp_path)
    values = {"DISTILLER.TERMS": "['ld']", "DISTILLER.TEACHER_CKPT": base / "teacher.pth"}
    cfg = config(tmp_path, **values, **{"DISTILLER.LD.CACHED": True})
    _, dataset = distiller(cfg)
    assert len(computed) == len(dataset.train)
    distiller(cfg)
    assert len(computed) == len(dataset.train)
    Image.new("RGB", (112, 64), "red").save(dataset.train[3].path)
    distiller(cfg)
    assert len(computed) == len(dataset.train) + 1
    with sqlite3.connect(tmp_path / "cache.sqlite") as db:  # as after a kill
        db.execute("DELETE FROM outputs WHERE key IN (SELECT key FROM outputs LIMIT 1)")
    distiller(cfg)
    assert len(computed) == len(dataset.train) + 2


def test_keys_of_the_cache_depend_on_picture_box_and_teacher(tmp_path):
    path, boxes = tmp_path / "a.png", np.float32([[1, 2, 5, 7], [2, 2, 6, 6]])
    Image.new("RGB", (8, 8)).save(path)
    scene = Scene("a.png", str(path), boxes, np.int64([1, 2]), 0)
    one, other = SimpleNamespace(digest="one"), SimpleNamespace(digest="other")
    keys = keys_of(scene, one)
    moved = keys_of(replace(scene, boxes=boxes + np.float32([[0], [1]])), one)
    assert moved.boxes[0] == keys.boxes[0] and moved.boxes[1] != keys.boxes[1]
    assert moved.picture != keys.picture
    changed = [keys_of(scene, other)]
    Image.new("RGB", (8, 8), "red").save(path)
    changed.append(keys_of(scene, one))
    assert len({key for some in (keys, *changed) for key in (*some.boxes, some.picture)}) == 9


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_foreign_networks_embed_prepared_crops(tmp_path, suffix):
    torch.manual_seed(2)
    net, path = Crops().eval(), tmp_path / f"net{suffix}"
    export(net, path)
    (tmp_path / "net.yaml").write_text(DESCRIPTION + "colours: bgr\n")
    image = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 4, 26, 36], [0, 0, 16, 32], [20, 0, 36, 32]])
    (found,) = read_crop_network(str(path), "KEY", CPU).embed([image], [boxes])
    pixels = torch.stack([image[:, y : y + 32, x : x + 16] for x, y in [(10, 4), (0, 0), (20, 0)]])
    mean, deviation = torch.tensor([[0.4, 0.5, 0.6], [0.2, 0.3, 0.4]])[..., None, None]
    with torch.no_grad():
        expected = F.normalize(net((pixels.flip(1) / 255 - mean) / deviation))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["correlation", "contrastive"])
def test_foreign_teachers_train_a_student_of_another_length(base, form):
    values = {"DISTILLER.TERMS": "['cd']", "DISTILLER.CD.FORM": form, "DISTILLER.TEACHER_CKPT": ""}
    model, dataset = distiller(
        config(base, **values, **{"DISTILLER.REID_TEACHER": base / "crops.onnx"})
    )
    out = model(*make_batch(dataset, True))
    out.losses["cd"].backward()
    assert out.losses["cd"] > 0 and all(p.grad.any() for p in model.terms.parameters())
    rows = torch.cat([target["rows"] for target in make_batch(dataset, True)[1]])
    table = model.teacher.embeddings[rows].float()
    assert table.shape[1] == 6 and torch.allclose(table.norm(dim=1), torch.ones(1), atol=1e-2)
    labels = torch.from_numpy(np.concatenate([scene.pids for scene in dataset.train]))
    known = labels[labels <= dataset.num_pids].unique()
    assert torch.equal(model.teacher.oim.lut.any(1).nonzero()[:, 0] + 1, known)


def test_pictures_whose_boxes_are_all_outside(base, tmp_path):
    """A re-id network has nothing to embed there."""
    values = {"DISTILLER.REID_TEACHER": base / "crops.onnx", "DISTILLER.TERMS": "['cd']"}
    cfg = config(base, **values, **{"DISTILLER.CACHE_FILE": tmp_path / "cache.sqlite"})
    dataset = load_dataset("CUHK-SYSU", cfg.INPUT.DATA_ROOT)
    first = next(i for i, scene in enumerate(dataset.train) if len(scene.boxes))
    scene = dataset.train[first]
    dataset.train[first] = replace(scene, boxes=scene.boxes + 500)
    people = build_teacher(cfg, dataset, CPU)[0].embeddings
    row = 2 * sum(len(one.boxes) for one in dataset.train[:first])
    assert not people[row : row + 2 * len(scene.boxes)].any() and people.any()


def test_own_networks_of_other_settings_are_other_teachers(base, tmp_path):
    """The size of the input changes embeddings, the runtime of the training's evaluations does
    not."""
    saved = torch.load(base / "teacher.pth")
    digests = []
    for change in ("MIN_SIZE: 64", "MIN_SIZE: 96"), ("cpu", "cuda"), ("onnxruntime", "openvino"):
        text = saved["config"].replace(*change)
        assert text != saved["config"]
        save_file(saved | {"config": text}, tmp_path / "other.pth")
        digests.append(read_reid_teacher(str(tmp_path / "other.pth"), CPU).digest)
    own = read_reid_teacher(str(base / "teacher.pth"), CPU).digest
    assert [digest == own for digest in digests] == [False, True, True]


def test_tables_by_hand():
    """The row of an identity has the direction of the mean over boxes and mirror images, and
    length 1. Identity 1 has no box; the last box is of an unlabelled person."""
    people = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0], [0, 1], [0, -1]]).half()
    oim = tables_of(people, torch.tensor([2, 2, 9]), OIM(2, 2, 2))
    torch.testing.assert_close(oim.lut, torch.tensor([[0.0, 0], [3, 1]]) / 10**0.5)
    assert oim.cq.tolist() == [[0, 1], [0, 0]]


def test_people_of_a_low_score_are_in_no_table():
    boxes, scores = np.zeros((2, 4), np.float32), np.float32([0.9, 0.2])
    scene = Scene("a", "a", boxes, np.int64([1, 2]), 0, scores=scores)
    dataset = SimpleNamespace(num_pids=2, train=[scene])
    found = _joined([torch.ones(4, 3)], dataset, load_cfg(None))
    assert found.oim.lut.any(dim=1).tolist() == [True, False]


def test_background_boxes_are_on_nobody():
    proposals = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    found = _background(proposals, torch.tensor([[1.0, 0, 10, 10]]), 2)
    assert found.tolist() == [[50, 50, 60, 60], [0, 0, 0, 0]]
    assert _background(proposals, proposals[:0], 2).any(dim=1).all()


def test_similarities_of_several_teachers_are_averaged(base):
    names = [str(base / "crops.onnx"), str(base / "teacher.pth")]
    values = {"DISTILLER.TERMS": "['cd']"}
    both, one, two = (
        distiller(config(base, **values, **{"DISTILLER.REID_TEACHER": value}))[0].teacher
        for value in (names, *names)
    )
    similarity = [t.embeddings[:8].float() @ t.embeddings[:8].float().T for t in (both, one, two)]
    mean = (similarity[1] + similarity[2]) / 2
    torch.testing.assert_close(similarity[0], mean, atol=2e-3, rtol=0)
    assert (both.embeddings[0].norm() - 1).abs() < 1e-2


@pytest.mark.slow
def test_networks_of_timm_embed_crops(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **options: create(name, **options)
    )
    image = torch.randint(0, 255, (3, 40, 60), dtype=torch.uint8)
    net = read_crop_network("timm:mobilenetv3_small_050", "KEY", CPU)
    (found,) = net.embed([image], [torch.tensor([[3.0, 3, 30, 40]])])
    assert found.shape == (1, net.length()) and (found.norm() - 1).abs() < 1e-4
    with pytest.raises(UserError, match="KEY timm:no_such_net: "):
        read_crop_network("timm:no_such_net", "KEY", CPU)


CD, LD = {"DISTILLER.TERMS": "['cd']"}, {"DISTILLER.TERMS": "['ld']"}
REFUSED = {
    "several outputs": ({"DISTILLER.REID_TEACHER": "two.onnx"}, CD, "", "two.yaml: output"),
    "no such output": (
        {"DISTILLER.REID_TEACHER": "two.onnx"},
        CD,
        DESCRIPTION + "output: vectors\n",
        "output: .*'vectors'.*embeddings",
    ),
    "a map": (
        {"DISTILLER.REID_TEACHER": "two.onnx"},
        CD,
        DESCRIPTION + "output: maps\n",
        "two.onnx: expected an output of one embedding",
    ),
    "another size": (
        {"DISTILLER.REID_TEACHER": "two.onnx"},
        CD,
        "size: [64, 32]\noutput: embeddings\n",
        "two.yaml: size: .*32 x 16.*64 x 32",
    ),
    "an unknown key": ({"DISTILLER.REID_TEACHER": "two.onnx"}, CD, "sise: 3\n", "two.yaml: .sise"),
    "no size": ({"DISTILLER.REID_TEACHER": "two.onnx"}, CD, "mean: [0, 0, 0]\n", "size: expected"),
    "no file": ({"DISTILLER.REID_TEACHER": "none.onnx"}, CD, "", "none.onnx: no such file"),
    "another kind": ({"DISTILLER.REID_TEACHER": "two.yaml"}, CD, "", "two.yaml: expected"),
    "another database": (
        {"DISTILLER.CACHE_FILE": "other.sqlite", "DISTILLER.LD.CACHED": True},
        LD,
        "",
        "other.sqlite: expected a cache",
    ),
    "no database": (
        {"DISTILLER.CACHE_FILE": "tiny.yaml", "DISTILLER.LD.CACHED": True},
        LD,
        "",
        "tiny.yaml: cannot be used",
    ),
    "no terms": ({}, {"DISTILLER.TERMS": "[]"}, "", "TERMS: expected at least one"),
    "two teachers of cd": (
        {"DISTILLER.REID_TEACHER": "crops.onnx", "DISTILLER.CD.CACHED": True},
        CD,
        "",
        "CD.CACHED: expected False",
    ),
    "no term": ({"DISTILLER.CD.CACHED": True}, LD, "", "CD.CACHED: expected cd or rkd"),
    "nothing in bfloat16": (
        {"DISTILLER.CD.CACHED": True, "DISTILLER.TEACHER_AMP": "bf16"},
        CD,
        "",
        "TEACHER_AMP: expected ''",
    ),
    "cropped": (
        {"DISTILLER.LD.CACHED": True, "INPUT.AUGMENT": "['crop']"},
        LD,
        "",
        "LD.CACHED True: expected whole",
    ),
}


@pytest.mark.parametrize(
    "key, value",
    [
        ("DISTILLER.CD.FORM", "contrastve"),
        ("DISTILLER.LD.LOGITS", "round"),
        ("SOLVER.OPTIMIZER", "lion"),
        ("SOLVER.SYNC_BN", True),
    ],
)
def test_mistakes_are_found_before_outputs_are_computed(base, tmp_path, key, value):
    cfg = config(base, **caching(base, tmp_path), **{key: value})
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=f"^{key}: "):
        build_from(cfg, build_distilled, load_dataset("CUHK-SYSU", cfg.INPUT.DATA_ROOT), CPU, False)
    assert not list(tmp_path.iterdir()) and torch.equal(torch.get_rng_state(), state)


def test_a_used_folder_is_found_before_outputs_are_computed(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/epoch_00.pth").touch()
    run = Run(base, tmp_path / "out", *pairs(caching(base, tmp_path)), program="ddps")
    assert run.wait() == 2 and "epoch_00.pth" in run.text
    assert not (tmp_path / "cache.sqlite").exists()


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_one_line(base, tmp_path, case):
    values, terms, description, message = REFUSED[case]
    (tmp_path / "data").symlink_to(base / "data")
    for file in base.glob("*.*"):
        shutil.copy(file, tmp_path)
    if description:
        (tmp_path / "two.yaml").write_text(description)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE other (x)")
    paths = {k: tmp_path / v if "." in str(v) else v for k, v in values.items()}
    with pytest.raises(UserError, match=message) as error:
        distiller(config(tmp_path, **terms, **paths))
    assert "\n" not in str(error.value)


def test_a_missing_description_is_named(base, tmp_path):
    shutil.copy(base / "two.onnx", tmp_path)
    with pytest.raises(UserError, match=r"two\.onnx: expected two\.yaml beside it with size,"):
        read_crop_network(str(tmp_path / "two.onnx"), "KEY", CPU)


def test_inputs_name_the_teachers_that_are_read(base):
    reid = {"DISTILLER.REID_TEACHER": [str(base / "crops.onnx"), "timm:resnet18"]}
    cfg = config(base, **CD, **reid)
    files = describe_files(cfg)
    assert list(files) == list(TEACHERS[1:])
    description = base / "crops.yaml"
    before = description.read_text()
    try:
        description.write_text(before + "colours: bgr\n")
        changed = changed_inputs(files, describe_files(cfg))
    finally:
        description.write_text(before)
    assert list(changed) == [TEACHERS[2]]
    init = {"DISTILLER.INIT_STUDENT": True}
    for terms, taught, keys in [
        (LD, True, [TEACHER]),
        (LD, False, []),
        (LD | init, True, [INIT_STUDENT, TEACHER]),
        (LD | init, False, [INIT_STUDENT]),
    ]:
        assert list(describe_files(config(base, **terms), taught)) == keys


def test_rows_of_cached_teachers_name_files_of_the_benchmark():
    made = {records.checkpoint_of(one.run()) for one in rows.TEACHERS}
    for row in rows.CACHED.values():
        run = row.run(1)
        files = [path for _, path in teachers_of(run.cfg)]
        assert files and {str(Path(path).with_suffix(".pth")) for path in files} <= made
        assert row.key not in rows.ROWS and not rows.ROWS[row.base].run(1).terms
        assert run.cfg.SOLVER.MAX_EPOCHS == rows.ROWS[row.base].run(1).cfg.SOLVER.MAX_EPOCHS
    folders = {str(row.run(seed).folder) for row in rows.CACHED.values() for seed in rows.SEEDS}
    assert len(folders) == len(rows.CACHED) * len(rows.SEEDS)


def caching(base: Path, folder: Path) -> dict[str, Any]:
    """Return the values of a run with cached outputs in `folder`."""
    return CACHED | {
        "DISTILLER.TEACHER_CKPT": base / "teacher.pth",
        "DISTILLER.CACHE_FILE": folder / "cache.sqlite",
        "DISTILLER.TERMS": "['ld','cd']",
    }


@pytest.mark.slow
def test_two_ranks_share_a_cache(base, tmp_path):
    """Both ranks compute a part of the pictures, also if one of them is later. The next run, of one
    rank, computes none."""
    values = caching(base, tmp_path) | {"INPUT.BATCH_SIZE_TRAIN": 2, "SOLVER.MAX_EPOCHS": 1}
    options = dict(program="ddps", sabotage=partial(count_of_a_late_rank, tmp_path))
    runs = run_ranks(2, base, tmp_path / "two", *pairs(values), **options)
    assert [run.wait() for run in runs] == [0, 0], runs[0].text + runs[1].text
    computed = [len((tmp_path / f"computed{rank}").read_text()) for rank in (0, 1)]
    assert abs(computed[0] - computed[1]) <= 1 and sum(computed) == 12  # of the training
    one = Run(base, tmp_path / "one", *pairs(values), program="ddps", sabotage=compute_nothing)
    assert one.wait() == 0, one.text


def test_two_runs_may_create_a_cache_at_the_same_time(tmp_path, monkeypatch):
    path, others = tmp_path / "cache.sqlite", [sqlite3.connect]

    class Overtaken(sqlite3.Connection):
        def execute(self, *arguments):
            rows = super().execute(*arguments).fetchall()
            if others:  # the other run creates the file after this run's first statement
                monkeypatch.setattr(sqlite3, "connect", others.pop())
                OutputStore(path, "KEY").close()
            return SimpleNamespace(fetchall=lambda: rows, fetchone=lambda: rows[0])

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Overtaken))
    OutputStore(path, "KEY").put([(b"1", b"2")])
    assert OutputStore(path, "KEY").missing([b"1", b"3"]) == {b"3"}


def count_of_a_late_rank(folder: Path) -> None:
    """Delay the second rank before it lists what is missing, and write one character per computed
    picture to a file of each rank."""
    rank, missing, compute = os.environ["RANK"], OutputStore.missing, OwnTeacher.compute
    file = folder / f"computed{rank}"
    file.touch()

    def late(*args):
        time.sleep(int(rank))
        return missing(*args)

    def counted(*args):
        with file.open("a") as text:
            text.write(".")
        return compute(*args)

    OutputStore.missing, OwnTeacher.compute = late, counted


def compute_nothing() -> None:
    def refuse(*_):
        raise AssertionError("computed again")

    OwnTeacher.compute = refuse


@pytest.mark.slow
def test_a_killed_run_continues_its_cache(base, tmp_path):
    values = caching(base, tmp_path)
    killed = Run(base, tmp_path / "a", *pairs(values), program="ddps", sabotage=die_at_the_fifth)
    assert killed.wait() == -9
    with sqlite3.connect(tmp_path / "cache.sqlite") as db:
        (kept,) = db.execute("SELECT COUNT(*) FROM outputs").fetchone()
    assert kept > 0
    for out in ("a", "b"):
        run = Run(base, tmp_path / out, *pairs(values), program="ddps")
        assert run.wait() == 0, run.text
    first, second = (torch.load(tmp_path / out / "epoch_01.pth")["model"] for out in "ab")
    assert same(first, second)


def die_at_the_fifth() -> None:
    from tests.training import die

    put, calls = tables.OutputStore.put, iter(range(1, 9))

    def counted(self, rows):
        die() if next(calls) == 5 else put(self, rows)

    tables.OutputStore.put = counted
