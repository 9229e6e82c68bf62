"""Randomly damaged configs, images, checkpoints, caches and records.

Each is read correctly or refused with one line. Annotation files are tested in test_mat.py.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from datasets import load_dataset
from datasets.base import SearchDataset
from datasets.loaders import SceneDataset, train_loader
from engine.checkpoint import load_checkpoint, load_net, load_teacher
from engine.evaluation.cache import CACHE, load_cache
from engine.metadata import compare_configs, parse_stored
from engine.training.batching import Batching
from engine.training.folder import CheckpointFolder
from engine.training.history import History
from engine.training.train import Trainer
from engine.training.train_step import TrainStep
from models.backbones import make_backbone
from models.build import build_net
from tests.training import Run, differences, make_data, same
from utils.errors import UserError
from utils.files import save_file
from utils.media import read_pixels
from utils.states import load_optimizer, not_finite

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder with data, a config and a run."""
    folder = tmp_path_factory.mktemp("fuzz")
    make_data(folder)
    run = Run(folder, "run", "SOLVER.MAX_EPOCHS", "1")
    assert run.wait() == 0, run.text
    return folder


@pytest.fixture(scope="module")
def dataset(base):
    return load_dataset("CUHK-SYSU", str(base / "data" / "CUHK-SYSU"))


def damage(data, whole: bytes, others: list[bytes]) -> bytes:
    """Cut a file, remove or flip some of its bytes, or replace it by another file."""
    places = st.integers(0, len(whole) - 1)
    kind = data.draw(st.sampled_from(["cut", "flip", "swap", "shift"]))
    if kind == "cut":
        return whole[: data.draw(places)]
    if kind == "swap":
        return data.draw(st.sampled_from(others))
    if kind == "shift":
        at, size = data.draw(places), data.draw(st.integers(1, 50))
        return whole[:at] + whole[at + size :]
    changed = bytearray(whole)
    for place in data.draw(st.sets(places, min_size=1, max_size=4)):
        changed[place] ^= data.draw(st.integers(1, 255))
    return bytes(changed)


def one_line(error: UserError) -> bool:
    return "\n" not in str(error) and len(str(error)) > 20


# --- configs ---


@settings(max_examples=150)
@given(st.data())
def test_damaged_configs(base, tmp_path, data):
    whole = (base / "tiny.yaml").read_bytes()
    path = tmp_path / "a.yaml"
    path.write_bytes(
        damage(
            data,
            whole,
            [
                b"",
                b"\0",
                b"- 1",
                b"3",
                (base / "run/best.pth").read_bytes(),
                b"INPUT: 3",
                b"SOLVER: {LOSS_WEIGHTS: []}",
            ],
        )
    )
    try:
        cfg = load_cfg(str(path))
        known = flatten(get_cfg())
        assert {
            key: type(value) for key, value in flatten(cfg).items() if key != "EVAL_GALLERY_SIZE"
        } == {key: type(value) for key, value in known.items() if key != "EVAL_GALLERY_SIZE"}
    except UserError as error:
        assert one_line(error)


ODD = st.sampled_from(
    [
        "0",
        "-1",
        "1",
        "2",
        "3",
        "7",
        "0.5",
        "-0.5",
        "2.5",
        ".nan",
        "nan",
        "1e40",
        "1e400",
        "-1e400",
        "x",
        "''",
        "None",
        "True",
        "[]",
        "[0]",
        "[1,2]",
        "[-3,4]",
        "['a','a']",
        "[None]",
        "{}",
        "{1: 2}",
        "(",
        "lambda: 0",
        "[[1]]",
        "[1,'a']",
        "[1,2,3,4,5]",
        "é",
        "__import__('os')",
    ]
)
KEYS = sorted(
    key
    for key in flatten(get_cfg())
    if key.startswith(("INPUT.M", "INPUT.B", "BACKBONE", "MODEL", "SOLVER"))
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(KEYS), ODD, min_size=1, max_size=2))
def test_odd_values_stop_at_once_or_train(base, dataset, changes):
    """A training step with odd config values raises a UserError or returns finite losses."""
    pairs = [part for pair in changes.items() for part in pair]
    try:
        cfg = load_cfg(base / "tiny.yaml", pairs)
        net = build_net(cfg, dataset.num_pids)
        train_step = TrainStep(cfg, net.train(), net, CPU)
        loader = train_loader(SceneDataset(dataset.train, train=True), 2, 0, 0, 0)
        images, targets = next(iter(loader))
        parts = Batching.of(cfg).parts(images, targets, len(images))
        losses = train_step.step(parts, cfg.SOLVER.BASE_LR, "a test")
        assert np.isfinite(list(losses.values())).all()
    except UserError as error:
        assert one_line(error)


def test_unknown_and_half_keys():
    for pairs in (
        ["SOLVER", "3"],
        ["SOLVER.", "3"],
        ["", "3"],
        [".", "1"],
        ["SOLVER.BASE_LR.X", "1"],
        ["MODEL.OIM", "{'SCALE': 3.0}"],
        ["NEW.KEY", "1"],
    ):
        with pytest.raises(UserError):
            load_cfg(None, pairs)


# --- images ---


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return the files of one picture in several formats."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)
    for kind in ("jpg", "png", "bmp", "gif", "tiff", "webp"):
        Image.fromarray(pixels).save(folder / f"a.{kind}")
    return sorted(folder.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=200)
@given(st.data())
def test_damaged_images(pictures, tmp_path, data):
    source = data.draw(st.sampled_from(pictures))
    path = tmp_path / "a.jpg"
    path.write_bytes(damage(data, source.read_bytes(), [b"", b"\xff\xd8", b"x" * 999]))
    try:
        image = read_pixels(path, upright=False)
        assert image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.uint8
    except UserError as error:
        assert one_line(error) and str(path) in str(error)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_damaged_images_are_skipped_counted_and_reported(base, tmp_path, dataset, workers):
    copy = shutil.copytree(base / "data" / "CUHK-SYSU", tmp_path / "data")
    names = [scene.name for scene in dataset.train[:3]]
    for name in names:
        (copy / "Image" / "SSM" / name).write_bytes(b"\xff\xd8 not much")
    options = "SOLVER.MAX_EPOCHS", "1", "INPUT.NUM_WORKERS", workers
    run = Run(base, tmp_path / "stops", *options, root=copy)
    assert run.wait() == 2 and "Traceback" not in run.text
    assert any(name in run.text for name in names)
    run = Run(base, tmp_path / "skips", *options, "INPUT.SKIP_DAMAGED", "True", root=copy)
    assert run.wait() == 0, run.text
    assert "skipped so far: 3" in run.text


# --- checkpoints ---


@settings(max_examples=150)
@given(st.data())
def test_damaged_checkpoints(base, tmp_path, data):
    """A checkpoint is read without any change, or refused with the file's name."""
    source = base / "run" / "epoch_00.pth"
    others = [(base / "run" / CACHE).read_bytes(), b"", (base / "tiny.yaml").read_bytes()]
    path = tmp_path / "epoch_00.pth"
    path.write_bytes(damage(data, source.read_bytes(), others))
    try:
        assert same(load_checkpoint(path), torch.load(source, weights_only=True))
    except UserError as error:
        assert one_line(error) and str(path) in str(error)


VALUES = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.text(max_size=5),
    st.floats(),
    st.just([]),
    st.just({}),
    st.just(torch.zeros(2)),
    st.just({"param_groups": [], "state": {}}),
    st.just("BACKBONE: 3"),
    st.just("- 1"),
    st.just("MODEL: {FC_SIZE: no}"),
    st.just("MODEL: {FC_SIZE: -5}"),
    st.just("{"),
)
PARTS = ["model", "terms", "optimizer", "scaler", "generators", "epoch", "step", "config"]


@settings(max_examples=30)
@given(st.dictionaries(st.sampled_from(PARTS), VALUES, min_size=1, max_size=2), st.booleans())
def test_checkpoints_with_other_content(base, dataset, tmp_path, changes, leave_out):
    """Undamaged files with wrong content are read by every function that reads checkpoints."""
    saved = torch.load(base / "run" / "epoch_00.pth", weights_only=True)
    for part, value in changes.items():
        saved[part] = value
        if leave_out:
            del saved[part]
    path = tmp_path / "a.pth"
    save_file(saved, path)
    read_everywhere(base, dataset, path)


def read_everywhere(base: Path, dataset: SearchDataset, path: Path) -> None:
    """Load a checkpoint as a network, as a teacher and to resume a run.

    Each is possible, or is refused with one line that names the file.
    """
    root, out = base / "data" / "CUHK-SYSU", path.parent / "none"
    cfg = load_cfg(base / "tiny.yaml", ["INPUT.DATA_ROOT", str(root), "OUTPUT_DIR", str(out)])
    for read in (lambda: load_net(cfg, path, CPU), lambda: load_teacher(path, CPU)):
        try:
            read()
        except UserError as error:
            assert one_line(error) and str(path) in str(error)
    net = build_net(cfg, dataset.num_pids)
    trainer = Trainer(cfg, net, net, dataset, CPU)
    try:
        trainer.resume(str(path))
    except UserError as error:
        assert one_line(error) and str(path) in str(error)
        return
    assert trainer.epoch >= 0 and 0 <= trainer.step < trainer.steps_per_epoch
    for parameter in trainer.train_step.parameters:
        parameter.grad = torch.ones_like(parameter)
    trainer.train_step.optimizer.step()
    assert not not_finite(net.state_dict())


INNER = st.one_of(
    VALUES,
    st.sampled_from(
        [
            [3],
            [1, 2, 3],
            {"a": 1},
            True,
            2**70,
            -(2**63),
            "x" * 1000,
            torch.zeros(()),
            torch.zeros(3, dtype=torch.complex64),
            torch.zeros(5056, dtype=torch.uint8),
            torch.full((9, 16), torch.nan),
            torch.zeros(9, 16).to_sparse(),
            torch.zeros(9, 16, device="meta"),
            torch.tensor(["a" == "b"]),
        ]
    ),
)


def change_inside(data, content) -> None:
    """Replace, remove or add a value at any depth."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = data.draw(st.sampled_from(keys))
    inner = content[key]
    if isinstance(inner, (dict, list)) and len(inner) and data.draw(st.integers(0, 5)):
        change_inside(data, inner)
    elif isinstance(content, dict) and data.draw(st.integers(0, 5)) == 0:
        content[data.draw(st.one_of(st.integers(-1, 3), st.text(max_size=3)))] = content.pop(key)
    else:
        content[key] = data.draw(INNER)


@settings(max_examples=40)
@given(st.data())
def test_checkpoints_changed_at_any_depth(base, dataset, tmp_path, data):
    saved = torch.load(base / "run" / "epoch_00.pth", weights_only=True)
    change_inside(data, saved)
    save_file(saved, tmp_path / "a.pth")
    read_everywhere(base, dataset, tmp_path / "a.pth")


def odd_inner_values(saved: dict) -> dict:
    """Return changes to a checkpoint, by name, each of which must be refused."""
    lut = "roi_heads.oim.lut"
    weight = next(name for name in saved["model"] if name.endswith(".weight"))
    buffers = saved["optimizer"]["state"]
    return {
        "a word": lambda: saved["model"].update({weight: "x"}),
        "None": lambda: saved["model"].update({weight: None}),
        "sparse": lambda: saved["model"].update({weight: saved["model"][weight].to_sparse()}),
        "meta": lambda: saved["model"].update({weight: saved["model"][weight].to("meta")}),
        "not finite": lambda: saved["model"].update({weight: saved["model"][weight] * torch.inf}),
        "complex": lambda: saved["model"].update({weight: saved["model"][weight] * 1j}),
        "lut a number": lambda: saved["model"].update({lut: 3}),
        "lut without rows": lambda: saved["model"].update({lut: torch.zeros(())}),
        "generators": lambda: saved.update(generators=[3]),
        "a generator's part": lambda: saved["generators"][0].update(torch=torch.zeros(3)),
        "numpy's place": lambda: saved["generators"][0]["numpy"].__setitem__(2, 9999),
        "buffer": lambda: buffers[next(iter(buffers))].update(momentum_buffer=torch.zeros(1)),
        "buffer, not finite": lambda: next(iter(buffers.values()))["momentum_buffer"].fill_(
            torch.inf
        ),
        "epoch": lambda: saved.update(epoch=-1),
        "step": lambda: saved.update(step=100),
        "negative step": lambda: saved.update(step=-1),
        "config": lambda: saved.update(config="[" * 5000),
    }


@pytest.mark.parametrize(
    "name", odd_inner_values({"model": {".weight": 0}, "optimizer": {"state": {}}})
)
def test_odd_inner_values_are_refused(base, tmp_path, name):
    saved = torch.load(base / "run" / "epoch_00.pth", weights_only=True)
    odd_inner_values(saved)[name]()
    save_file(saved, tmp_path / "a.pth")
    run = Run(base, tmp_path / "none", "--resume", "--ckpt", tmp_path / "a.pth")
    assert run.wait() == 2, run.text
    assert run.text.count("error: ") == 1 and "Traceback" not in run.text
    assert str(tmp_path / "a.pth") in run.text


def test_settings_of_a_step_come_from_the_config(base, tmp_path):
    """Parameter groups without momentum, and the state of another scaler, are not read."""
    saved = torch.load(base / "run" / "epoch_00.pth", weights_only=True)
    del saved["optimizer"]["param_groups"][0]["momentum"]
    saved["optimizer"]["param_groups"][0]["weight_decay"] = "x"
    saved["scaler"] = {"a": 1}
    save_file(saved, tmp_path / "a.pth")
    run = Run(base, tmp_path / "out", "--resume", "--ckpt", tmp_path / "a.pth")
    assert run.wait() == 0, run.text
    whole = Run(base, tmp_path / "whole", "--resume", "--ckpt", base / "run" / "epoch_00.pth")
    assert whole.wait() == 0, whole.text
    # best.pth may be a copy of the first file, which differs in values that are not read
    is_start = (tmp_path / "out" / "best.pth").read_bytes() == (tmp_path / "a.pth").read_bytes()
    other = ["best checkpoint"] if is_start else []
    assert differences(tmp_path / "out", tmp_path / "whole") == other


class Code:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Call:
    """A pickle that calls a function."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ("1",)


@pytest.mark.parametrize("call", [os.system, eval, exec, torch.load])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused_without_advice(tmp_path, call, zipped):
    content, path = {"model": Call(call), "config": ""}, tmp_path / "a.pth"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    assert one_line(error.value) and call.__name__ in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused(dataset, tmp_path, protocol):
    ran, path = tmp_path / "ran", tmp_path / "epoch_00.pth"
    content = {"model": {"x": Code(ran)}, "config": "", "gallery_dets": [Code(ran)]}
    zipped = lambda: torch.save(content, path)  # noqa: E731
    plain = lambda: path.write_bytes(pickle.dumps(content, protocol=protocol))  # noqa: E731
    for write in (zipped, plain):
        write()
        for read in (
            lambda: load_checkpoint(path),
            lambda: load_teacher(path, CPU),
            lambda: load_net(get_cfg(), path, CPU),
            lambda: load_cache(path, dataset, get_cfg()),
            lambda: make_backbone("resnet18", str(path), False, False, 16),
        ):
            with pytest.raises(UserError) as error:
                read()
            assert one_line(error.value) and "weights_only" not in str(error.value)
        with pytest.raises(UserError, match=rf"^OUTPUT_DIR {tmp_path}: .*--ckpt FILE"):
            CheckpointFolder(tmp_path, 2).load_newest(print)
    assert not ran.exists()


# --- caches and records ---


@settings(max_examples=100)
@given(st.data())
def test_damaged_caches(base, dataset, tmp_path, data):
    whole = base / "run" / CACHE
    path = tmp_path / CACHE
    others = [(base / "run" / "best.pth").read_bytes(), b""]
    path.write_bytes(damage(data, whole.read_bytes(), others))
    try:
        found = load_cache(path, dataset, load_cfg(base / "tiny.yaml"))
        assert same(found, torch.load(whole, weights_only=True))
    except UserError as error:
        assert one_line(error) and str(path) in str(error)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "made",
                "gallery_dets",
                "gallery_feats",
                "query_dets",
                "query_feats",
                "query_box_feats",
            ]
        ),
        VALUES,
        min_size=1,
    )
)
def test_caches_with_other_content(base, dataset, tmp_path, changes):
    path = tmp_path / CACHE
    save_file(torch.load(base / "run" / CACHE, weights_only=True) | changes, path)
    try:
        load_cache(path, dataset, load_cfg(base / "tiny.yaml"))
    except UserError as error:
        assert one_line(error) and str(path) in str(error)


@settings(max_examples=100)
@given(st.data())
def test_damaged_records_of_evaluations(base, tmp_path, data):
    history = History(tmp_path)
    whole = (base / "run" / "evaluations.jsonl").read_bytes() * 2
    (tmp_path / "evaluations.jsonl").write_bytes(
        damage(data, whole, [b"", b"\xff\n", b"[]\n", b"3\n", b"\n"])
    )
    try:
        for one in history.past():
            assert json.dumps(one["epoch"]) and float(one["search/mAP"]) >= 0
    except UserError as error:
        assert one_line(error)


def test_optimizer_of_other_parameters():
    ours = torch.optim.SGD([torch.zeros(2)], 0.1)
    theirs = torch.optim.SGD([torch.zeros(2), torch.zeros(2)], 0.1)
    with pytest.raises(UserError, match="here: "):
        load_optimizer(ours, theirs.state_dict(), "here")


def test_optimizer_without_some_of_its_buffers():
    """A fused step needs the buffers of all parameters or, before the first step, of none."""
    weights = [torch.ones(2, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD(weights, 0.1, 0.9, fused=True)
    load_optimizer(optimizer, optimizer.state_dict(), "here")
    sum(weight.sum() for weight in weights).backward()
    optimizer.step()
    saved = optimizer.state_dict()
    load_optimizer(optimizer, saved, "here")
    last = saved["state"].pop(1)
    with pytest.raises(UserError, match="parameter 1 .*momentum_buffer"):
        load_optimizer(optimizer, saved, "here")
    saved["state"][True] = last  # equal to 1, and no number of a parameter
    with pytest.raises(UserError, match="parameter True"):
        load_optimizer(optimizer, saved, "here")


def test_config_differences_are_complete():
    cfg, saved = load_cfg(None, ["SOLVER.GAMMA", "0.5"]), {"config": get_cfg().dump()}
    assert compare_configs(parse_stored(saved["config"], "here"), cfg, "here") == [
        "SOLVER.GAMMA was 0.1, is 0.5"
    ]
