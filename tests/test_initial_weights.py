"""MODEL.WEIGHTS: training that begins with the network of a checkpoint."""

import pytest
import torch

from configs.defaults import load_cfg
from engine.checkpoint import load_initial_weights
from engine.onnx_net import OnnxFile
from engine.run import build_from
from engine.training.build import build_alone
from engine.weights import TABLE, save_weights
from models.build import build_net
from tests.tiny import TINY, pairs
from utils.errors import UserError


@pytest.fixture
def trained():
    torch.manual_seed(5)
    net = build_net(load_cfg(None, pairs(TINY)), num_pids=7)
    net.roi_heads.oim.lut.normal_()
    return net


@pytest.mark.parametrize("exported", [False, True])
def test_all_but_the_table_of_identities_is_copied(tmp_path, trained, exported):
    path = tmp_path / ("net.safetensors" if exported else "net.pth")
    config = load_cfg(None, pairs(TINY)).dump()
    if exported:
        save_weights(trained.state_dict(), config, None, path, half=False)
    else:
        torch.save({"model": trained.state_dict(), "config": config}, path)
    cfg = load_cfg(None, pairs(TINY | {"MODEL.WEIGHTS": path, "MODEL.OIM.QUEUE_SIZE": 3}))
    net = build_net(cfg, num_pids=2)
    before = {k: v.clone() for k, v in net.state_dict().items() if k.startswith(TABLE)}
    load_initial_weights(net, cfg)
    after = net.state_dict()
    for name, value in trained.state_dict().items():
        if name.startswith(TABLE):
            assert torch.equal(after[name], before[name])
        else:
            assert torch.equal(after[name], value)


def test_another_network_is_refused(tmp_path, trained):
    path = tmp_path / "net.pth"
    config = load_cfg(None, pairs(TINY)).dump()
    torch.save({"model": trained.state_dict(), "config": config}, path)
    other = load_cfg(None, pairs(TINY | {"MODEL.WEIGHTS": path, "MODEL.FC_SIZE": 16}))
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS.*MODEL\.FC_SIZE"):
        load_initial_weights(build_net(other, num_pids=2), other)
    missing = load_cfg(None, pairs(TINY | {"MODEL.WEIGHTS": tmp_path / "no.pth"}))
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS.*no\.pth"):
        load_initial_weights(build_net(missing, num_pids=2), missing)


def test_a_graph_is_refused(tmp_path, trained, monkeypatch):
    cfg = load_cfg(None, pairs(TINY | {"MODEL.WEIGHTS": tmp_path / "net.onnx"}))
    file = OnnxFile("", b"", {"config": cfg.dump(), "thresholds": None})
    monkeypatch.setattr("engine.checkpoint.read_onnx", lambda path, option: file)
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS .*net\.onnx: an ONNX file"):
        load_initial_weights(trained, cfg)


@pytest.mark.parametrize(
    "key, value",
    [
        ("MODEL.WEIGHTS", "net.pth"),
        ("INPUT.AUGMENT", "[spin]"),
        ("SOLVER.ACCUMULATE", "9"),
        ("SOLVER.AMP", "half"),
        ("DISTILLER.TEACHER_AMP", "half"),
        ("DISTILLER.TERMS", "[none]"),
        ("DISTILLER.DECAY", "[pkd]"),
    ],
)
def test_values_are_checked_before_files_are_read(key, value):
    values = TINY | {"DISTILLER.INIT_STUDENT": True, key: value}
    missing = {"DISTILLER.TEACHER_CKPT": "no.pth", "BACKBONE.WEIGHTS": "no.pth"}
    with pytest.raises(UserError, match=key):
        build_from(load_cfg(None, pairs(values | missing)), build_alone, None, None, False)
