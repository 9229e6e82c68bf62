"""Configs: the files of the repository, values, overrides and error messages."""

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.defaults import get_cfg, load_cfg
from configs.files import BASE, read_config
from configs.ranges import BELOW_ONE, flatten
from configs.values import GALLERIES, PATHS
from engine.training.train_step import loss_weights
from models.build import build_net, build_terms
from tests.tiny import PUBLIC
from utils.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(  # files such as _common.yaml are bases; configs/own is a link to configs/custom
    path for path in FOLDER.glob("*/[!_]*.yaml") if not path.parent.is_symlink()
)
DATASETS = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW"}
PUBLISHED = [path for path in CONFIGS if path.parent.name in DATASETS]
TEACHERS = {"resnet50", "convnext_tiny"}
OF_SEVERAL_TYPES = ("EVAL_GALLERY_SIZE", "DISTILLER.REID_TEACHER")
SLIM = {f"{b}_slim" for b in ("mobilenet_v2", "mobilenet_v3_large", "resnet18_x05")}
C4 = {"mobilenet_v2_c4", "mobilenet_v3_large_c4"}


def test_every_network_has_configs_for_both_datasets():
    names = {f"{b}_base" for b in PUBLIC} | {f"{b}_ddps" for b in set(PUBLIC) - TEACHERS}
    names |= {f"{form}_{kind}" for form in SLIM | C4 for kind in ("base", "ddps")}
    names |= {"resnet50_c4_base", "mobilenet_v2_ddps_plus"}
    for dataset in DATASETS:
        assert {path.stem for path in PUBLISHED if path.parent.name == dataset} == names


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_contains_only_differences(path):
    defaults, given = flatten(get_cfg()), flatten(yaml.safe_load(path.read_text()))
    if base := given.pop(BASE, None):
        for _, values in read_config(path.parent / base):
            defaults |= flatten(values)
    assert [key for key, value in given.items() if defaults[key] == value] == []


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_config_is_what_its_name_says(path):
    cfg, dataset, stem = load_cfg(str(path)), path.parent.name, path.stem
    assert f"runs/{dataset}_{stem}" == cfg.OUTPUT_DIR
    assert DATASETS[dataset] == cfg.INPUT.DATASET
    assert max((b for b in PUBLIC if stem.startswith(b)), key=len) == cfg.BACKBONE.NAME
    kind = stem.removeprefix(cfg.BACKBONE.NAME + "_").removeprefix("slim_").removeprefix("c4_")
    if kind == "base":
        assert cfg.DISTILLER.TEACHER_CKPT == ""
    else:
        assert f"runs/{dataset}_resnet50_base/epoch_19.pth" == cfg.DISTILLER.TEACHER_CKPT
        terms = build_terms(cfg, get_cfg())
        assert (kind.removesuffix("_plus"), list(terms)) == ("ddps", ["dfd", "ld", "cd"])
        assert (["dfd"] if kind == "ddps_plus" else []) == cfg.DISTILLER.DECAY
        assert set(terms) < set(loss_weights(cfg))
    if cfg.SOLVER.OPTIMIZER == "adamw":
        assert cfg.BACKBONE.NAME == "convnext_tiny"
    elif dataset == "cuhk_sysu":  # lr is proportional to the batch
        assert pytest.approx(0.0006 * cfg.INPUT.BATCH_SIZE_TRAIN) == cfg.SOLVER.BASE_LR
    else:
        assert (cfg.INPUT.BATCH_SIZE_TRAIN, cfg.SOLVER.BASE_LR) == (5, 0.01)


@pytest.mark.parametrize("path", sorted((FOLDER / "custom").glob("[!_]*.yaml")), ids=name)
def test_configs_of_custom_data_are_consistent(path):
    cfg = load_cfg(str(path))
    assert (cfg.INPUT.DATASET, cfg.EVAL_GALLERY_SIZE) == ("COCO", -1)
    assert f"runs/own_{path.stem}" == cfg.OUTPUT_DIR
    if path.stem.endswith("ddps"):
        teacher = Path(cfg.DISTILLER.TEACHER_CKPT).parent.name.removeprefix("own_")
        assert load_cfg(str(path.with_name(f"{teacher}.yaml"))).DISTILLER.TEACHER_CKPT == ""


WITH_DFD = [
    path
    for path in CONFIGS
    if "dfd" in (cfg := load_cfg(path)).DISTILLER.TERMS and cfg.DISTILLER.TEACHER_CKPT
]


@pytest.mark.parametrize("path", WITH_DFD, ids=name)
def test_dfd_is_normalized_unless_the_size_is_the_published_one(path):
    """DFD compares maps with the teacher's channels."""
    cfg = load_cfg(path)
    run = str(Path(cfg.DISTILLER.TEACHER_CKPT).parent)
    (teacher,) = (one for one in map(load_cfg, CONFIGS) if run == one.OUTPUT_DIR)
    size = cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, teacher.MODEL.FPN_CHANNELS
    assert cfg.DISTILLER.DFD.NORMALIZE or size == (900, 1500, 256)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_builds_its_network(path):
    cfg = load_cfg(str(path))
    with torch.device("meta"):  # shapes only: forty networks with weights take a minute
        net = build_net(cfg, num_pids=3, pretrained=False)
    assert net.oim.cq.shape == (cfg.MODEL.OIM.QUEUE_SIZE, cfg.MODEL.EMBEDDING_SIZE)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_values_of_a_file_replace_those_of_its_base(tmp_path):
    write(tmp_path, "low/a.yaml", "SEED: 5\nMODEL: {FC_SIZE: 64, ROI: {BATCH_SIZE: 8}}\n")
    write(tmp_path, "b.yaml", "_BASE_: low/a.yaml\nMODEL: {ROI: {BATCH_SIZE: 16}}\n")
    top = write(tmp_path, "top/c.yaml", "_BASE_: ../b.yaml\nSEED: 6\n")
    cfg = load_cfg(str(top), ["MODEL.FC_SIZE", "32"])
    assert (cfg.SEED, cfg.MODEL.FC_SIZE, cfg.MODEL.ROI.BATCH_SIZE) == (6, 32, 16)
    assert BASE not in cfg.dump()


@pytest.mark.parametrize(
    "text, said",
    [
        ("_BASE_: nowhere.yaml", "a.yaml: _BASE_ .*nowhere.yaml: no such file"),
        ("_BASE_: 7", "a.yaml: _BASE_: expected the path of a config, found 7"),
        ("_BASE_: b.yaml", "b.yaml: _BASE_ .*a.yaml: .*circle"),
        ("_BASE_: c.yaml", "c.yaml: not YAML"),
        ("_BASE_: d.yaml", "d.yaml: no such key: WRONG"),
    ],
)
def test_bad_bases_are_one_line(tmp_path, text, said):
    write(tmp_path, "b.yaml", "_BASE_: a.yaml")
    write(tmp_path, "c.yaml", "a: [")
    write(tmp_path, "d.yaml", "WRONG: 1")
    with pytest.raises(UserError, match=said):
        load_cfg(str(write(tmp_path, "a.yaml", text)))


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("SOLVER.CLIP_GRADIENTS", "0", 0.0),
        ("SOLVER.WEIGHT_DECAY", "0", 0.0),
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.BASE_LR", "1", 1.0),
        ("EVAL_USE_CBGM", "true", True),
        ("EVAL_USE_CBGM", "False", False),
        ("SOLVER.MILESTONES", "[8, 11]", [8, 11]),
        ("SOLVER.MILESTONES", "[]", []),
        ("DISTILLER.TERMS", "[dfd, ld]", ["dfd", "ld"]),
        ("EVAL_GALLERY_SIZE", "[50, Occlusion]", [50, "Occlusion"]),
        ("EVAL_GALLERY_SIZE", "Occlusion", "Occlusion"),
        ("EVAL_GALLERY_SIZE", "-1", -1),
        ("BACKBONE.WEIGHTS", "''", ""),
        ("SEED", "2147483647", 2**31 - 1),
    ],
)
def test_values_on_the_command_line_and_in_a_file(tmp_path, key, text, value):
    *groups, name = key.split(".")
    nested = "".join(f"{group}: {{" for group in groups) + f"{name}: {text}" + "}" * len(groups)
    for cfg in (load_cfg(None, [key, text]), load_cfg(write(tmp_path, "a.yaml", nested))):
        assert flatten(cfg)[key] == value and type(flatten(cfg)[key]) is type(value)


def test_floats_accept_integers_and_stay_floats():
    for key, default in flatten(get_cfg()).items():
        if isinstance(default, float):
            value = "0" if key in BELOW_ONE else "1"
            assert type(flatten(load_cfg(None, [key, value]))[key]) is float, key


def test_every_number_has_a_smallest_value():
    for key, default in flatten(get_cfg()).items():
        if type(default) in (int, float) and key != GALLERIES:
            with pytest.raises(UserError, match=f"^{key}: expected"):
                load_cfg(None, [key, "-1"])


def test_text_values_on_the_command_line_stay_text():
    cfg = load_cfg(None, ["OUTPUT_DIR", "2024", "DISTILLER.TEACHER_CKPT", "True", "DEVICE", "1:30"])
    assert (cfg.OUTPUT_DIR, cfg.DISTILLER.TEACHER_CKPT, cfg.DEVICE) == ("2024", "True", "1:30")
    cfg = load_cfg(None, ["OUTPUT_DIR", "my run #2", "EVAL_AMP", "''", "DEVICE", '"cpu"'])
    assert (cfg.OUTPUT_DIR, cfg.EVAL_AMP, cfg.DEVICE) == ("my run #2", "", "cpu")


@pytest.mark.parametrize("key", PATHS)
def test_a_tilde_is_expanded_to_the_home_folder(tmp_path, monkeypatch, key):
    monkeypatch.setenv("HOME", str(tmp_path))
    *groups, name = key.split(".")
    nested = "".join(f"{group}: {{" for group in groups) + f"{name}: ~/x" + "}" * len(groups)
    for cfg in (load_cfg(None, [key, "~/x"]), load_cfg(write(tmp_path, "a.yaml", nested))):
        assert flatten(cfg)[key] == str(tmp_path / "x")


def test_all_keys_that_are_paths_are_listed():
    said = re.findall(r"^_C\.(\S+) = .*", (FOLDER / "defaults.py").read_text(), re.MULTILINE)
    texts = [key for key in said if isinstance(flatten(get_cfg()).get(key), str)]
    assert {key for key in texts if re.search("DIR|ROOT|WEIGHTS|CKPT|FILE", key)} == set(PATHS)


@pytest.mark.parametrize(
    "key, text, says",
    [
        ("SOLVER.MILESTONES", "16", r'override SOLVER.MILESTONES: expected a list, .* "\[16\]"'),
        ("DISTILLER.TERMS", "dfd", r"expected a list, written as \"\['dfd'\]\", found 'dfd'"),
        ("EVAL_USE_GT", "1", "expected True or False, found 1"),
        ("SOLVER.MAX_EPOCHS", "2.5", "expected a whole number, found 2.5"),
        ("SOLVER.MAX_EPOCHS", "True", "expected a whole number, found True"),
        ("SOLVER.BASE_LR", "True", "expected a number, found True"),
        ("SOLVER.BASE_LR", "nan", "expected a finite number"),
        ("SOLVER.BASE_LR", "1" * 400, "expected a number"),
        ("SOLVER.BASE_LR", "1" * 5000, "expected a finite number"),
        ("SOLVER.MAX_EPOCHS", "1" * 5000, "expected a whole number"),
        ("SOLVER.MAX_EPOCHS", "0x" + "1" * 5000, "expected at most 2147483647, found a"),
        ("SOLVER.MAX_EPOCHS", "[" * 5000, "expected a whole number"),
        ("SEED", "4294967296", "SEED: expected at most 2147483647, found 4294967296"),
        ("MODEL.ANCHOR_SIZES", "[32, 64, 128, 256, 99999999999]", "MODEL.ANCHOR_SIZES: expected"),
        (
            "OUTPUT_DIR",
            "a\0b",
            r"override OUTPUT_DIR: expected a path, without NUL characters, found 'a",
        ),
        ("OUTPUT_DIR", "", "override OUTPUT_DIR: expected a path, found ''"),
        ("INPUT.DATA_ROOT", "''", "override INPUT.DATA_ROOT: expected a path, found ''"),
        ("SOLVER.BASE_LRR", "1", r"no such key: SOLVER.BASE_LRR \(did you mean SOLVER.BASE_LR\?\)"),
        ("SOLVER", "1", "override SOLVER: expected one of the keys under it"),
        ("EVAL_GALLERY_SIZE", "[[1]]", "expected a size .* or a list of them"),
        ("EVAL_GALLERY_SIZE", "None", "expected a size .* or a list of them"),
    ],
)
def test_a_bad_override_is_one_line(key, text, says):
    with pytest.raises(UserError, match=says) as error:
        load_cfg(None, [key, text])
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{x}: &{x} [{', '.join([f'*{y}'] * 10)}]\n" for x, y in zip("bcdefghij", "abcdefghi")
)


@pytest.mark.parametrize(
    "text, says",
    [
        ("NO: 1", "False: no such key .YAML reads NO"),
        ("SOLVER: {on: 1}", "SOLVER.True: no such key"),
        ("1: 1", "no such key: 1"),
        ("null: 1", "no such key: None"),
        ("SOLVER: 3", "SOLVER: expected keys under it, found 3"),
        ("SOLVER:", "SOLVER: expected keys under it, found None"),
        ("SEED: {a: 1}", "SEED: expected a whole number"),
        ("SEED: 2024-13-45", "not YAML"),
        ("SEED: !!timestamp x", "not YAML"),
        ("SEED: 1\nSOLVER:\n  GAMMA: 0.1\n  GAMMA: 0.2", "line 3: 'GAMMA' is given twice"),
        ("SEED: " + "1" * 5000, "not YAML"),
        ("SEED: " + "[" * 5000, "not YAML"),
        ("a: &a {b: *a}", "not YAML .nested"),
        ("SOLVER: &a {SOLVER: *a}", "not YAML .nested"),
        ("SOLVER: {MILESTONES: &a [*a]}", "not YAML .nested"),
        (BOMB, "not YAML .nested"),
        ("? [1, 2]\n: 3", "not YAML"),
        ("[1]", r"expected KEY: value lines, found \[1\]"),
        ('OUTPUT_DIR: "a\\0b"', "OUTPUT_DIR: expected a path, without NUL"),
        ("_BASE_: [1]", "_BASE_: expected the path of a config"),
        ('_BASE_: "a\\0b"', "_BASE_ .*embedded null byte"),
        ("_BASE_: " + "x" * 300, "cannot be read .File name too long"),
        ("a: 1\xff".encode("latin-1"), "not UTF-8"),
    ],
)
def test_invalid_files_are_one_line(tmp_path, text, says):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says) as error:
        load_cfg(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 900


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.dates(),
    st.binary(max_size=3),
    st.sampled_from([2**31, -(2**31), 10**400, "1e-3", "nan", "~/x", "a\0b", "x" * 300, "é"]),
)
KNOWN = st.sampled_from(sorted({part for key in flatten(get_cfg()) for part in key.split(".")}))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(KNOWN, st.integers(), st.none(), st.booleans()), inner),
        st.sets(st.integers(), max_size=2),
    ),
    max_leaves=6,
)


def check_values(cfg: dict) -> None:
    """Check that all values have the types of their defaults, and are the same after writing and
    reading."""
    defaults = flatten(get_cfg())
    for key, value in flatten(cfg).items():
        assert type(value) is type(defaults[key]) or key in OF_SEVERAL_TYPES, key
    again = yaml.safe_load(cfg.dump())
    assert flatten(again) == flatten(cfg)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_random_changes_at_any_depth(tmp_path_factory, data):
    """A config with a random change at any depth is read or rejected in one line."""
    values = yaml.safe_load(get_cfg().dump())
    node = values
    while True:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or not data.draw(st.integers(0, 4)):
            break
        node = node[key]
    node[key if data.draw(st.booleans()) else data.draw(st.one_of(KNOWN, SCALARS))] = data.draw(
        ANYTHING
    )
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(yaml.dump(values), encoding="utf-8", errors="surrogatepass")
    try:
        check_values(load_cfg(path))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


@pytest.mark.slow
@settings(max_examples=150)
@given(st.sampled_from(sorted(flatten(get_cfg()))), st.one_of(ANYTHING.map(repr), st.text()))
def test_random_overrides(key, text):
    try:
        check_values(load_cfg(None, [key, text]))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (
        ("x" * 300, "cannot be read .File name too long"),
        ("missing.yaml", "no such file"),
        (".", "found a folder"),
        ("pipe", "a pipe"),
        ("n\0", "cannot be read"),
    ):
        with pytest.raises(UserError, match=f"--cfg .*{says}"):
            load_cfg(tmp_path / name)


def test_a_byte_order_mark_is_ignored(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfSEED: 7\n")
    assert load_cfg(path).SEED == 7
