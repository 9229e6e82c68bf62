"""tools.profile_model: its values equal counts by hand."""

import sys
from pathlib import Path

import pytest
import torch

from configs.defaults import load_cfg
from models.build import build_net
from tests.golden_net import PARAMETERS, UNUSED_REGRESSOR
from tests.tiny import pairs
from tests.training import fork_measurements
from tools import profile_model
from tools.measure import machine

FOLDER = Path(__file__).parents[1] / "configs/cuhk_sysu"
SMALL = {
    "DEVICE": "cpu",
    "INPUT.MIN_SIZE": 64,
    "INPUT.MAX_SIZE": 96,
    "MODEL.FPN_CHANNELS": 16,
    "MODEL.EMBEDDING_SIZE": 8,
    "MODEL.RPN.POST_NMS_TOP_N": [20, 20],
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 5,
}
CONFIG = str(FOLDER / "resnet18_x05_base.yaml")


@pytest.mark.parametrize("backbone", PARAMETERS)
def test_parts_add_up_to_the_published_counts(backbone):
    with torch.device("meta"):
        net = build_net(load_cfg(str(FOLDER / f"{backbone}_base.yaml")), 1, pretrained=False)
    counts = profile_model.parameters(net)
    total = counts.pop("all")
    assert total == sum(counts.values()) == PARAMETERS[backbone] - UNUSED_REGRESSOR


@pytest.mark.slow
def test_flops_grow_by_what_wider_layers_cost(monkeypatch):
    monkeypatch.setattr(machine, "SIDE", 64)
    small, wide = (
        profile_model.measure(CONFIG, pairs(SMALL | {"MODEL.FC_SIZE": size}), [1], 1)
        for size in (16, 40)
    )
    assert (small["proposals"], small["detections"]) == (20, 5)
    assert (wide["proposals"], wide["detections"]) == (20, 5)
    pooled, predictions, half = 16 * 7 * 7, 2 + 8, 4

    def weights(fc: int, outputs: int) -> int:  # of fc6, fc7 and the layers after fc7
        return pooled * fc + fc * fc + fc * outputs

    grown = 20 * (weights(40, predictions) - weights(16, predictions))
    grown += 5 * (weights(40, half) - weights(16, half))
    assert wide["flops"] - small["flops"] == 2 * grown


@pytest.mark.slow
def test_table_has_a_column_per_model(monkeypatch, capsys):
    fork_measurements(monkeypatch, profile_model)
    teacher = str(FOLDER / "resnet50_base.yaml")
    given = ["--cfg", teacher, "--cfg", CONFIG, "--batch", "2,1", "--repeats", "1"]
    arguments = [*given, *pairs(SMALL | {"MODEL.FC_SIZE": 16})]
    monkeypatch.setattr(sys, "argv", ["profile_model.py", *arguments])
    profile_model.main()
    lines = capsys.readouterr().out.splitlines()
    assert "torch" in lines[0]
    assert lines[2].split() == ["resnet50_base.yaml", "resnet18_x05_base.yaml"]
    rows = {line[:28].strip(): line[28:].replace(",", "").split() for line in lines[4:-2]}
    for name in ("parameters, backbone", "GFLOPs per image", "peak MiB, batch 1"):
        ours, theirs = (float(value) for value in rows[name])
        assert 0 < theirs < ours
    assert {"images/s, batch 1", "images/s, batch 2"} <= rows.keys()
