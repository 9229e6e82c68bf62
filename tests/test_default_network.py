"""Programs without --cfg or --ckpt: the checkpoint's own config, or the network in weights/."""

from pathlib import Path

import pytest
import torch

import demo
from configs.defaults import load_cfg
from engine import default_network
from engine.default_network import network_of
from engine.run import run as train
from engine.training.build import build_alone
from engine.weights import save_weights
from models.build import build_net
from tests.annotations import write_image
from tests.tiny import TINY, pairs
from tools import index_gallery
from utils.errors import UserError
from utils.media import read_pixels

TRAINED = TINY | {"SOLVER.MAX_EPOCHS": 3, "BACKBONE.WEIGHTS": "elsewhere.pth", "OUTPUT_DIR": "gone"}


@pytest.fixture
def default(tmp_path, monkeypatch):
    """A tiny network in place of the one in weights/."""
    torch.manual_seed(0)
    net = build_net(load_cfg(None, pairs(TINY)), num_pids=3)
    path = tmp_path / "default.safetensors"
    save_weights(net.state_dict(), load_cfg(None, pairs(TRAINED)).dump(), None, path, half=True)
    monkeypatch.setattr(default_network, "DEFAULT", path)
    return path


def test_the_network_is_the_checkpoints_and_the_rest_is_the_default(default):
    cfg, checkpoint = network_of(None, None, ["DEVICE", "cpu"])
    assert checkpoint.path == default and cfg.DEVICE == "cpu"
    assert TINY["MODEL.FC_SIZE"] == cfg.MODEL.FC_SIZE and cfg.INPUT.MIN_SIZE == 64
    assert (cfg.SOLVER.MAX_EPOCHS, cfg.OUTPUT_DIR, cfg.BACKBONE.WEIGHTS) == (20, "runs/run", "")
    assert TINY["MODEL.FC_SIZE"] == network_of(None, default)[0].MODEL.FC_SIZE


def test_a_config_needs_its_checkpoint(default, tmp_path):
    with pytest.raises(UserError, match="--ckpt"):
        network_of(tmp_path / "x.yaml", None)
    for empty in (("", default), (None, "")):  # as of an unset shell variable
        with pytest.raises(UserError, match="expected a path"):
            network_of(*empty)
    with pytest.raises(UserError, match="no such key"):
        network_of(None, None, ["NO.KEY", "1"])
    default.unlink()
    with pytest.raises(UserError, match=default.name):
        network_of(None, None)


@pytest.mark.parametrize("option", ["--resume", "--eval"])
def test_an_empty_checkpoint_of_a_training(program, tmp_path, option):
    """It must not mean the newest one in OUTPUT_DIR, or the cached features."""
    (tmp_path / "cfg.yaml").write_text(
        "EVAL_USE_CACHE: True\n" if option == "--eval" else "SEED: 1\n"
    )
    words = "--cfg", tmp_path / "cfg.yaml", option, "--ckpt", "", "OUTPUT_DIR", tmp_path / "out"
    code, _, err = program(lambda: train("", build_alone), *words)
    assert code == 2 and "--ckpt: expected" in err


@pytest.mark.slow
def test_demo_and_index_need_no_network_on_the_command_line(default, tmp_path, program):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for name in ("a.jpg", "b.jpg"):
        write_image(gallery / name, (96, 64))
    box = ("--query", gallery / "a.jpg", "--box", 10, 5, 40, 60)
    device = ("DEVICE", "cpu", "INPUT.NUM_WORKERS", 0)
    out = tmp_path / "found"
    code, _, said = program(demo.main, *box, "--gallery", gallery, "--out", out, *device)
    assert code == 0, said
    assert (out / "matches.json").is_file()
    code, _, said = program(index_gallery.main, "--index", tmp_path / "people", gallery, *device)
    assert code == 0, said


@pytest.mark.slow
def test_the_network_in_weights_finds_people():
    cfg, checkpoint = network_of(None, None, ["DEVICE", "cpu"])
    pixels = read_pixels(Path(__file__).parents[1] / "demo_imgs" / "plaza.jpg", upright=True)
    found = checkpoint.network(cfg, torch.device("cpu")).detect([pixels])[0]
    assert (found.scores > 0.9).sum() >= 3
    assert checkpoint.thresholds.keys() == {"0.01", "0.05", "0.1"}
