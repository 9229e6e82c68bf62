"""The network compared with values of the release."""

import pytest
import torch

from configs.defaults import load_cfg
from models.build import build_net
from models.embedding import NormAwareEmbedding
from tests.golden_net import (
    PARAMETERS,
    UNUSED_REGRESSOR,
    finds_and_embeds_as_the_release_does,
    golden_net,
    load_named_weights,
)
from tests.tiny import TINY, pairs


def test_initial_weights_of_the_embedding():
    """As in the release, the weights of both layers, also of the norm, have the standard deviation
    0.01."""
    torch.manual_seed(0)
    head = NormAwareEmbedding(500, 400, 256)
    for layer in (*head.pooled, *head.fc):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.3)
        assert abs(layer.weight.mean()) < 0.003 and not layer.bias.any()


def test_a_single_region_is_embedded_in_training():
    """BatchNorm alone would reject it."""
    head = NormAwareEmbedding(6, 5, 8).train()
    embeddings, norms = head(torch.rand(1, 6, 1, 1), torch.rand(1, 5))
    assert embeddings.shape == (1, 8) and norms.shape == (1,) and embeddings.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", PARAMETERS)
def test_parameters_and_keys_are_the_releases(backbone):
    frozen = {"BACKBONE.FROZEN_BN": "True"} if backbone == "resnet18" else {}
    net = golden_net(backbone, **frozen)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[backbone] - UNUSED_REGRESSOR
    load_named_weights(golden_net(backbone), backbone)


@pytest.mark.slow
def test_resnet18_finds_and_embeds_as_the_release_does():
    net = golden_net("resnet18", **{"INPUT.MIN_SIZE": "256", "INPUT.MAX_SIZE": "416"})
    load_named_weights(net, "resnet18")
    finds_and_embeds_as_the_release_does(net.eval())


@pytest.mark.slow
def test_no_proposals_and_no_people():
    """Without detections the results are empty. A batch without people trains only the detector."""
    net = golden_net(
        "resnet18_x05",
        **{"INPUT.MIN_SIZE": "64", "INPUT.MAX_SIZE": "96", "MODEL.RPN.SCORE_THRESH": "1.0"},
    )
    images = [torch.rand(3, 64, 96), torch.rand(3, 60, 80)]
    for found in net.eval().detect(images):
        assert found.boxes.shape == (0, 4) and found.embeddings.shape == (0, 256)
    found, given = net.detect_and_embed(
        images, [torch.tensor([[5.0, 5, 20, 50]]), torch.zeros(0, 4)]
    )
    assert [len(one.boxes) for one in found] == [0, 0] and [len(one) for one in given] == [1, 0]
    net.rpn.score_thresh = 0.0
    nobody = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = net.train()(images, [nobody, nobody]).losses
    assert losses["oim"] == losses["proposal_reg"] == losses["rpn_reg"] == 0
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    net.rpn.score_thresh = 1.0  # one image without people or proposals; one with a single region
    lost = net(images[:1], [nobody]).losses
    one = {"boxes": torch.tensor([[5.0, 5, 20, 50]]), "labels": torch.tensor([3])}
    found = net(images[:1], [one]).losses
    assert all(loss.isfinite() for loss in (*lost.values(), *found.values()))
    assert lost["proposal_cls"] == 0 and found["oim"] > 0
    assert net.backbone.fpn.layer_blocks[0][0].weight.grad.abs().sum() > 0


def test_results_do_not_depend_on_the_first_image(net) -> None:
    image, box = torch.rand(3, 64, 96), torch.tensor([[10.0, 5, 60, 60]])
    before = net.embed([image], [box])[0]
    narrow = build_net(load_cfg(None, pairs(TINY)), num_pids=3).eval()
    narrow.load_state_dict(net.state_dict())
    narrow.embed([torch.rand(3, 16, 160)], [box])
    assert torch.equal(narrow.embed([image], [box])[0], before)
