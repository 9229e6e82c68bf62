"""The C4 form: one feature map of stride 16, and the backbone's last stage on each pooled region.

The detector is that of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
appendix A. The embedding is that of SeqNet (Li and Miao, "Sequential End-to-end Network for
Efficient Person Search", AAAI 2021): the inputs of the norm-aware embedding are the maxima over the
positions of a region before and after the last stage. With MODEL.C4.MAXIMA "rows", the first input
has the maximum over each row of the region, after the horizontal parts of Sun et al., "Beyond Part
Models", ECCV 2018.
"""

from copy import deepcopy

from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

from models.backbones import (
    NO_CHAIN,
    CheckpointedLayers,
    apply_layer,
    backbone_of,
    make_body,
)
from models.embedding import NormAwareEmbedding
from models.roi_heads import Branches
from utils.errors import UserError

LEVEL = "2"  # the FPN level of the same stride


class OneMap(nn.Module):
    """A backbone up to stride 16: image [N, 3, H, W] -> {"2": map [N, C, H/16, W/16]}."""

    def __init__(self, body: CheckpointedLayers):
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {LEVEL: self.body(x)[LEVEL]}


class StageHead(nn.Module):
    """The backbone's last stage on pooled regions, followed by the maximum over the positions.

    Args:
        stage: the layers of the last stage.
        checkpointed: whether its blocks are checkpointed in training.
    """

    def __init__(self, stage: nn.Sequential, checkpointed: bool):
        super().__init__()
        self.stage = stage
        self.checkpointed = checkpointed

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute [R, channels of the stage] from pooled regions [R, C, P, P]."""
        x = pooled
        for layer in self.stage:
            x = apply_layer(layer, x, self.training and self.checkpointed)
        return x.amax(dim=(2, 3))


class StageEmbedding(NormAwareEmbedding):
    """NAE of the maximum of each channel over the positions, before and after the last stage."""

    @staticmethod
    def flat(pooled: Tensor) -> Tensor:
        return pooled.amax(dim=(2, 3))


class RowsEmbedding(NormAwareEmbedding):
    """As StageEmbedding, but with the maximum over each row of a region before the last stage."""

    @staticmethod
    def flat(pooled: Tensor) -> Tensor:
        return pooled.amax(dim=3).flatten(1)


def make_c4(
    name: str,
    weights: str,
    frozen_bn: bool,
    freeze: bool,
    checkpointed: bool,
    shared: bool,
    rows: int,
    embedding_size: int,
) -> tuple[OneMap, Branches]:
    """Build the backbone up to stride 16, and the branches, whose heads are its last stage.

    Arguments and errors are as in make_backbone, and:

    Args:
        shared: whether one stage serves both branches; else each has a copy.
        rows: height of a pooled region if the embedding uses the maximum of each of its rows; 0 if
            it uses that of the whole region.
        embedding_size: length of an embedding.

    Raises:
        UserError: also if the last stage of the backbone cannot be separated.
    """
    spec = backbone_of(name)
    if not spec.stage:
        raise UserError(f"MODEL.NECK: expected fpn for {name}, {NO_CHAIN}; found none")
    body = make_body(name, weights, frozen_bn, freeze, stage=True)
    levels = {layer: str(i) for i, layer in enumerate(spec.layers[: int(LEVEL) + 1])}
    stage = nn.Sequential(*(getattr(body, part) for part in spec.stage))
    box_head = StageHead(stage, checkpointed)
    embedding = RowsEmbedding if rows else StageEmbedding
    channels = spec.channels[int(LEVEL)] * max(rows, 1)
    branches = Branches(
        box_head,
        FastRCNNPredictor(spec.stage_channels, 2),
        None if shared else deepcopy(box_head),
        embedding(channels, spec.stage_channels, embedding_size),
    )
    return OneMap(CheckpointedLayers(body, levels, everywhere=checkpointed)), branches
