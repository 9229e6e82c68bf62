"""BACKBONE.WEIGHTS: state dicts that other programs have wrapped, prefixed or renamed."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from engine.teachers.networks import read_crop_network
from models.backbones import BACKBONES, make_backbone
from utils.errors import UserError
from utils.weight_files import select_tensors

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Return a state dict of the smallest backbone, with random statistics."""
    torch.manual_seed(0)
    body = BACKBONES["resnet18_x05"].make()
    return {name: torch.rand(v.shape) if v.ndim else v for name, v in body.state_dict().items()}


def load(path: Path, name: str = "resnet18_x05") -> State:
    return make_backbone(name, str(path), False, False, 8).body.state_dict()


def check(path: Path, state: State) -> None:
    body = load(path)
    assert len(body) > 100
    assert all(torch.equal(v, state[name]) for name, v in body.items() if v.ndim)


def under(prefix: str, state: State, plus: float = 0) -> State:
    return {prefix + name: value + plus for name, value in state.items()}


WRAPPED: dict[str, Callable[[State], object]] = {
    "torchvision": lambda s: s,
    "state_dict": lambda s: {"epoch": 90, "arch": "resnet", "state_dict": s},
    "DataParallel": lambda s: {"state_dict": under("module.", s), "optimizer": {"state": {0: {}}}},
    "MoCo": lambda s: {
        "state_dict": under("module.encoder_k.", s, 1) | under("module.encoder_q.", s)
    },
    "DINO": lambda s: {
        "student": under("module.backbone.", s, 1),
        "teacher": under("backbone.", s),
        "epoch": 3,
    },
    "this project": lambda s: {"model": under("backbone.body.", s), "config": ""},
    "features": lambda s: under("features.", s),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_and_prefixed(tmp_path: Path, state: State, kind: str):
    torch.save(WRAPPED[kind](state), tmp_path / "a.pth.tar")
    check(tmp_path / "a.pth.tar", state)


@pytest.mark.parametrize("name, prefix", [(b"a", ""), (b"\xff", "module.backbone.")])
def test_safetensors(tmp_path: Path, state: State, name: bytes, prefix: str):
    path = tmp_path / os.fsdecode(name + b".safetensors")
    path.write_bytes(save(under(prefix, state), {"format": "pt"}))
    check(path, state)
    path.write_bytes(b"not of this format")
    with pytest.raises(UserError, match=r"BACKBONE\.WEIGHTS .*\.safetensors: damaged"):
        load(path)


def test_programs_of_torch_export(tmp_path: Path, caplog):
    """The name may be no UTF-8. A damaged file is one line, without a traceback in torch's log."""
    example, logger = torch.zeros(2, 3, 4, 2), logging.getLogger("torch.export")
    torch.export.save(torch.export.export(nn.Flatten(), (example,)), tmp_path / "net.pt2")
    path = (tmp_path / "net.pt2").rename(tmp_path / os.fsdecode(b"\xff.pt2"))
    path.with_suffix(".yaml").write_text("size: [4, 2]\n")
    network = read_crop_network(str(path), "KEY", torch.device("cpu"))
    assert network.batch == 2 and network.length() == 24
    path.write_bytes(b"no archive")
    logger.addHandler(caplog.handler)
    caplog.clear()  # records of the export
    try:
        with pytest.raises(UserError, match=r"KEY .*\.pt2: damaged"):
            read_crop_network(str(path), "KEY", torch.device("cpu"))
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


OLDER = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}


def test_older_names_are_assigned_by_order(tmp_path: Path, state: State, capsys):
    renamed, back = {}, {new: old for old, new in OLDER.items()}
    for number, (name, value) in enumerate(state.items()):
        end = name.rpartition(".")[2]
        renamed[f"net.{number}.{back.get(end, end) if value.ndim == 1 else end}"] = value
    torch.save(renamed, tmp_path / "a.pth")
    check(tmp_path / "a.pth", state)
    assert capsys.readouterr().out.count("order") == 1


def test_some_older_names_among_the_same(tmp_path: Path, state: State, capsys):
    """torchvision has renamed layers of its MobileNetV2."""
    torch.save({k.replace("downsample", "shortcut"): v for k, v in state.items()}, tmp_path / "a")
    check(tmp_path / "a", state)
    assert capsys.readouterr().out.count("downsample") == 1


@pytest.mark.parametrize("swapped", [("weight", "bias"), ("running_mean", "running_var")])
def test_another_order_of_equal_shapes_is_refused(tmp_path: Path, state: State, swapped: tuple):
    """Names are compared by their last parts, not only by shapes."""
    first, second = swapped
    names = list(state)
    for i, name in enumerate(names[:-1]):
        if name.endswith(f".{first}") and names[i + 1].endswith(f".{second}"):
            names[i], names[i + 1] = names[i + 1], names[i]
    content = {f"x{i}.{name.rpartition('.')[2]}": state[name] for i, name in enumerate(names)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: .*found x0\.weight, "):
        load(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content, said",
    [
        ({"state_dict": {"vit.blocks": torch.ones(2)}}, "found state_dict.vit.blocks"),
        ({"epoch": 3}, "found none"),
        ({"conv1.weight": torch.full((32, 3, 7, 7), torch.nan)}, "conv1.weight is not finite"),
    ],
)
def test_the_first_keys_of_other_files_are_named(tmp_path: Path, content: dict, said: str):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=said) as error:
        load(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


def test_a_part_of_a_network_is_not_one(state: State):
    part = {name: v for name, v in state.items() if "layer4" not in name}
    with pytest.raises(UserError, match=r"^here: \d+ of \d+ tensors .*layer4"):
        select_tensors(part, {n: v for n, v in state.items() if v.ndim}, "here")
