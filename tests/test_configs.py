"""The shipped configs: they load, hold only differences from the defaults, and give networks."""

from pathlib import Path

import pytest
import torch
import yaml

from configs.defaults import get_cfg, load_cfg
from configs.ranges import flatten
from models.backbones import BACKBONES
from models.build import build_net, build_terms, loss_weights

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*/*.yaml"))
DATASETS = {"cuhk_sysu": "CUHK-SYSU", "prw": "PRW"}
PUBLISHED = [path for path in CONFIGS if path.parent.name in DATASETS]
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
    names = {f"{b}_base" for b in BACKBONES} | {f"{b}_ddps" for b in BACKBONES if b != "resnet50"}
    names |= {f"resnet18_{rival}" for rival in RIVALS}
    for dataset in DATASETS:
        assert {path.stem for path in PUBLISHED if path.parent.name == dataset} == names


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", PUBLISHED, ids=name)
def test_config_holds_only_differences(path):
    defaults, given = flatten(get_cfg()), flatten(yaml.safe_load(path.read_text()))
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
    if dataset == "cuhk_sysu":  # lr is proportional to the batch
        assert pytest.approx(0.0006 * cfg.INPUT.BATCH_SIZE_TRAIN) == cfg.SOLVER.BASE_LR
    else:
        assert (cfg.INPUT.BATCH_SIZE_TRAIN, cfg.SOLVER.BASE_LR) == (5, 0.01)


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_config_builds_its_network(path):
    cfg = load_cfg(str(path))
    with torch.device("meta"):  # shapes alone: forty networks with weights take a minute
        net = build_net(cfg, num_pids=3, pretrained=False)
    assert net.oim.cq.shape == (cfg.MODEL.OIM.QUEUE_SIZE, cfg.MODEL.EMBEDDING_SIZE)
