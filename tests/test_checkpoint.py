"""Checkpoint, the content of a file with a network; the checksum of ONNX files."""

from pathlib import Path

import pytest
import torch

from configs.defaults import load_cfg
from engine.checkpoint import Checkpoint
from engine.metadata import inference_keys
from engine.onnx_net import CHECKSUM, NO_CHECKSUM, check_checksum, stamped
from models.search_net import SearchNet
from tests.tiny import TINY, pairs
from utils.errors import DamagedError, UserError
from utils.states import state_digest


def write(path: Path, net: SearchNet, **facts) -> Path:
    content = {"model": net.state_dict(), "config": load_cfg(None, pairs(TINY)).dump()}
    torch.save(content | facts, path)
    return path


def test_facts_of_a_checkpoint(net: SearchNet, tmp_path: Path):
    checkpoint = Checkpoint.read(write(tmp_path / "a.pth", net, epoch=3, step=0))
    assert (checkpoint.epoch, checkpoint.thresholds, checkpoint.has_table) == (3, None, True)
    assert checkpoint.cfg == load_cfg(None, pairs(TINY))
    within = Checkpoint.read(write(tmp_path / "b.pth", net, epoch=3, step=5))
    assert within.epoch is None
    assert within.digest == checkpoint.digest == state_digest(net.state_dict())


@pytest.mark.parametrize("thresholds", [3, {"0.05": None}, {"2": 0.5}, {"0.05": True}])
def test_thresholds_of_another_form(net: SearchNet, tmp_path: Path, thresholds: object):
    path = write(tmp_path / "a.pth", net, thresholds=thresholds)
    with pytest.raises(UserError, match=f"--ckpt {path}: thresholds: "):
        _ = Checkpoint.read(path).thresholds


def test_digest_is_of_names_types_shapes_and_values():
    state = {"a": torch.arange(4.0), "b": torch.zeros(2)}
    others = [
        {"a": torch.arange(4.0), "c": torch.zeros(2)},
        {"a": torch.arange(4.0), "b": torch.zeros(2, dtype=torch.bfloat16)},
        {"a": torch.arange(4.0).view(2, 2), "b": torch.zeros(2)},
        {"a": torch.arange(4.0), "b": torch.tensor([0.0, 1])},
        {"a": torch.arange(4.0)},
    ]
    digests = [state_digest(one) for one in (state, *others)]
    assert len(set(digests)) == len(digests)
    assert state_digest(dict(reversed(state.items()))) == digests[0]
    assert state_digest({"a": torch.arange(8.0)[::2], "b": torch.zeros(2)}) != digests[0]


def test_inference_keys_leave_out_training():
    keys = inference_keys(load_cfg(None, pairs(TINY)))
    assert {"INPUT.MIN_SIZE", "MODEL.ROI.NMS_THRESH", "MODEL.RPN.POST_NMS_TOP_N"} <= set(keys)
    assert not {"MODEL.OIM.QUEUE_SIZE", "MODEL.WEIGHTS", "MODEL.ROI.BATCH_SIZE"} & set(keys)


def test_checksum_of_an_onnx_file():
    """The checksum covers each byte before and after its entry. A file without the entry is
    accepted."""
    entry = f"\n\x05{CHECKSUM}\x12\x08".encode()
    data = stamped(b"graph" + entry + NO_CHECKSUM.encode() + b"end")
    assert len(data) == 5 + len(entry) + 8 + 3 and NO_CHECKSUM.encode() not in data
    check_checksum(data, "here")
    check_checksum(b"a file without the entry", "here")
    value = range(5 + len(entry), len(data) - 3)
    for place in [*range(5), *value, *range(len(data) - 3, len(data))]:
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(DamagedError, match=r"^here: "):
            check_checksum(bytes(damaged), "here")
