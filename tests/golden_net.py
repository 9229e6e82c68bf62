"""Networks with named weights, for which results of the release are known."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor
from yacs.config import CfgNode

from configs.defaults import load_cfg
from models.build import build_net
from models.search_net import SearchNet
from tests.golden import named_weights
from tests.tiny import pairs
from tools.export.release_format import convert_state

GOLDEN = Path(__file__).parent / "golden"
SHAPES = json.loads((GOLDEN / "official_shapes.json").read_text())
BOX = torch.tensor([[20.0, 30, 80, 200]])  # of the known embedding
UNUSED_REGRESSOR = 8216  # Linear(1024, 8), 8200, and BatchNorm1d(8), 16
# Published; ResNet-18's is that of the baseline, whose FrozenBatchNorm has no parameters.
PARAMETERS = {
    "resnet50": 56_993_651,
    "resnet18": 43_915_251,
    "resnet18_x05": 35_424_339,
    "mobilenet_v2": 34_435_123,
}


def golden_cfg(backbone: str, **overrides: str) -> CfgNode:
    options = {"BACKBONE.NAME": backbone, "BACKBONE.WEIGHTS": "", "MODEL.OIM.QUEUE_SIZE": "30"}
    return load_cfg(None, pairs(options | overrides))


def golden_net(backbone: str, **overrides: str) -> SearchNet:
    return build_net(golden_cfg(backbone, **overrides), num_pids=40)


def load_named_weights(net: SearchNet, backbone: str) -> None:
    state = convert_state(named_weights.fill(SHAPES[backbone]))
    state["roi_heads.oim.head"] = torch.zeros((), dtype=torch.int64)
    net.load_state_dict(state, strict=True)


def golden_image() -> Tensor:
    """Return the image for which results are known, [3, 256, 416] in 0..1."""
    return to_tensor(Image.open(GOLDEN / "image_0.png").convert("RGB"))


def finds_and_embeds_as_the_release_does(net: SearchNet) -> None:
    """Compare a network with named weights: boxes and scores to 1e-3, embeddings to 1e-4."""
    expected = np.load(GOLDEN / "model_resnet18.npz")
    image = golden_image()
    found = net.detect([image])[0]
    np.testing.assert_allclose(found.boxes, expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-3)
    np.testing.assert_allclose(found.weighted_embeddings, expected["emb"], atol=1e-4)
    embedding = net.embed([image], [BOX])[0]
    np.testing.assert_allclose(embedding, expected["q"], atol=1e-4)
