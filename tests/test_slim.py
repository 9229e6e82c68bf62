"""Slim students: their size compared with the teacher's, computed without weights."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from configs.defaults import load_cfg
from configs.ranges import flatten
from engine.metadata import MODEL_KEYS
from models.build import build_net
from tests.tiny import TINY, pairs

FOLDER = Path(__file__).parents[1] / "configs"


def cost(config: str) -> tuple[int, int]:
    """Return the parameters, and the FLOPs of one 900×1500 image with the largest number of
    regions."""
    cfg = load_cfg(str(FOLDER / f"{config}.yaml"))
    size = cfg.MODEL.FPN_CHANNELS, 7, 7
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = build_net(cfg, num_pids=1, pretrained=False).eval()
        heads = net.roi_heads
        net.rpn.head(list(net.backbone(torch.empty(1, 3, 928, 1504)).values()))
        proposals = torch.empty(cfg.MODEL.RPN.POST_NMS_TOP_N[1], *size)
        heads.box_predictor(heads.box_head(proposals))
        people = torch.empty(cfg.MODEL.ROI.DETECTIONS_PER_IMAGE, *size)
        heads.embedding_head(people.flatten(1), heads.reid_head(people))
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cuhk_sysu", "prw"])
def test_slim_students_are_small(dataset):
    parameters, flops = cost(f"{dataset}/resnet50_base")
    assert flops == pytest.approx(554e9, rel=1e-3)  # as measured by tools.profile_model
    for name in ("mobilenet_v2", "mobilenet_v3_large", "resnet18_x05"):
        alone, ddps = (cost(f"{dataset}/{name}_slim_{kind}") for kind in ("base", "ddps"))
        assert alone == ddps
        if name.startswith("mobilenet"):
            assert alone[0] <= parameters / 8 and alone[1] <= flops / 9
        full = cost(f"{dataset}/{name}_base")
        assert alone[0] < full[0] / 4 and alone[1] < full[1] / 4


def test_keys_that_change_tensors_are_model_keys():
    """A checkpoint with another value of a model key is refused, and the message names the key."""
    cfg = load_cfg(None, pairs(TINY))

    def tensors(key: str = "SEED", value: object = 1) -> dict[str, torch.Size]:
        changed = load_cfg(None, pairs(TINY | {key: value}))
        with torch.device("meta"):
            return {k: v.shape for k, v in build_net(changed, 3).state_dict().items()}

    own, found = tensors(), set()
    for key, value in flatten(cfg).items():
        if key.startswith("MODEL.") and type(value) in (bool, int):
            other = not value if type(value) is bool else 2 * value
            if tensors(key, other) != own:
                found.add(key)
    assert found <= set(MODEL_KEYS) and "MODEL.FC_SIZE" in found and len(found) > 3
