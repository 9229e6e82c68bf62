"""The shipped configs: they load, hold only differences from the defaults, and give networks."""

from pathlib import Path

import pytest
import torch
import yaml

from configs.defaults import get_cfg, load_cfg
from configs.files import BASE, read_config
from configs.ranges import flatten
from models.backbones import BACKBONES
from models.build import build_net, build_terms, loss_weights
from utils.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*/[!_]*.yaml"))  # _common.yaml and the like are bases
DATASETS = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW"}
PUBLISHED = [path for path in CONFIGS if path.parent.name in DATASETS]
TEACHERS = {"resnet50", "convnext_tiny"}
RIVALS = {
    "fgd": ["dfd"],
    "dkd": ["ld"],
    "cd": ["cd"],
    "cd_contrastive": ["cd"],
    "dfd_ld": ["dfd", "ld"],
    "dfd_cd": ["dfd", "cd"],
    "ld_cd": ["ld", "cd"],
    "pkd": ["pkd"],
    "reviewkd": ["reviewkd"],
    "pkd_ld_cd": ["pkd", "ld", "cd"],
    "reviewkd_ld_cd": ["reviewkd", "ld", "cd"],
    "kd": ["kd"],
    "hint": ["hint"],
}


def test_every_model_and_rival_has_a_config_for_both_datasets():
    names = {f"{b}_base" for b in BACKBONES} | {f"{b}_ddps" for b in BACKBONES.keys() - TEACHERS}
    names |= {f"resnet18_{rival}" for rival in RIVALS}
    for dataset in DATASETS:
        assert {path.stem for path in PUBLISHED if path.parent.name == dataset} == names


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_holds_only_differences(path):
    defaults, given = flatten(get_cfg()), flatten(yaml.safe_load(path.read_text()))
    if base := given.pop(BASE, None):
        defaults |= flatten(read_config(path.parent / base))
    assert [key for key, value in given.items() if defaults[key] == value] == []


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_config_is_what_its_name_says(path):
    cfg, dataset, stem = load_cfg(str(path)), path.parent.name, path.stem
    assert f"runs/{dataset}_{stem}" == cfg.OUTPUT_DIR
    assert DATASETS[dataset] == cfg.INPUT.DATASET
    assert max((b for b in BACKBONES if stem.startswith(b)), key=len) == cfg.BACKBONE.NAME
    kind = stem.removeprefix(cfg.BACKBONE.NAME + "_")
    if kind == "base":
        assert cfg.DISTILLER.TEACHER_CKPT == ""
    else:
        assert f"runs/{dataset}_resnet50_base/epoch_19.pth" == cfg.DISTILLER.TEACHER_CKPT
        terms = build_terms(cfg, get_cfg())
        assert list(terms) == (["dfd", "ld", "cd"] if kind == "ddps" else RIVALS[kind])
        assert set(terms) < set(loss_weights(cfg))
    if cfg.SOLVER.OPTIMIZER == "adamw":
        assert cfg.BACKBONE.NAME == "convnext_tiny"
    elif dataset == "cuhk_sysu":  # lr is proportional to the batch
        assert pytest.approx(0.0006 * cfg.INPUT.BATCH_SIZE_TRAIN) == cfg.SOLVER.BASE_LR
    else:
        assert (cfg.INPUT.BATCH_SIZE_TRAIN, cfg.SOLVER.BASE_LR) == (5, 0.01)


@pytest.mark.parametrize("path", (FOLDER / "own").glob("[!_]*.yaml"), ids=name)
def test_configs_of_own_data_go_together(path):
    cfg = load_cfg(str(path))
    assert (cfg.INPUT.DATASET, cfg.EVAL_GALLERY_SIZE) == ("COCO", -1)
    assert f"runs/own_{path.stem}" == cfg.OUTPUT_DIR
    if path.stem.endswith("ddps"):
        teacher = Path(cfg.DISTILLER.TEACHER_CKPT).parent.name.removeprefix("own_")
        assert load_cfg(str(path.with_name(f"{teacher}.yaml"))).DISTILLER.TEACHER_CKPT == ""


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_builds_its_network(path):
    cfg = load_cfg(str(path))
    with torch.device("meta"):  # shapes alone: forty networks with weights take a minute
        net = build_net(cfg, num_pids=3, pretrained=False)
    assert net.oim.cq.shape == (cfg.MODEL.OIM.QUEUE_SIZE, cfg.MODEL.EMBEDDING_SIZE)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_what_a_file_says_stands_over_its_base(tmp_path):
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
        ("_BASE_: b.yaml", "b.yaml: _BASE_ .*a.yaml: a circle of bases"),
        ("_BASE_: c.yaml", "c.yaml: not a YAML config"),
        ("_BASE_: d.yaml", "a.yaml: Non-existent config key: WRONG"),
    ],
)
def test_bad_bases_are_one_line(tmp_path, text, said):
    write(tmp_path, "b.yaml", "_BASE_: a.yaml")
    write(tmp_path, "c.yaml", "a: [")
    write(tmp_path, "d.yaml", "WRONG: 1")
    with pytest.raises(UserError, match=said):
        load_cfg(str(write(tmp_path, "a.yaml", text)))
