"""Build modules from a config. No other file of models/ reads the config."""

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.poolers import initLevelMapper
from yacs.config import CfgNode

from models.backbones import make_backbone
from models.distill import check_terms, make_term
from models.distiller import Distiller
from models.fast.roi_align import GatheredRoIAlign
from models.fast.rpn_head import SparseRPNHead
from models.filtering import DetectionLimits
from models.oim import OIM
from models.reference import Sizes
from models.roi_heads import PersonSearchHeads
from models.search_net import SearchNet

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Float32Anchors(AnchorGenerator):
    """Anchors in float32 under mixed precision too: bfloat16 cannot represent odd integers above
    256."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(image_list, [level[:1, :1].float() for level in feature_maps])


def _make_rpn(cfg: CfgNode, channels: int) -> RegionProposalNetwork:
    anchors = Float32Anchors(
        tuple((size,) for size in cfg.MODEL.ANCHOR_SIZES), ((0.5, 1.0, 2.0),) * 5
    )
    rpn = cfg.MODEL.RPN
    return RegionProposalNetwork(
        anchors,
        SparseRPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=rpn.BATCH_SIZE,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), rpn.PRE_NMS_TOP_N)),
        post_nms_top_n=dict(zip(("training", "testing"), rpn.POST_NMS_TOP_N)),
        nms_thresh=rpn.NMS_THRESH,
        score_thresh=rpn.SCORE_THRESH,
    )


def build_net(cfg: CfgNode, num_pids: int, pretrained: bool = True) -> SearchNet:
    """Build the network of `cfg`.

    Args:
        num_pids: training identities, the rows of the OIM table.
        pretrained: whether to load BACKBONE.WEIGHTS; not needed if a checkpoint is loaded next.
    """
    model, channels = cfg.MODEL, cfg.MODEL.FPN_CHANNELS
    weights = cfg.BACKBONE.WEIGHTS if pretrained else ""
    backbone = make_backbone(
        cfg.BACKBONE.NAME,
        weights,
        cfg.BACKBONE.FROZEN_BN,
        cfg.BACKBONE.FREEZE,
        channels,
        cfg.BACKBONE.CHECKPOINT,
    )
    heads = PersonSearchHeads(
        GatheredRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2),
        channels,
        model.FC_SIZE,
        model.EMBEDDING_SIZE,
        OIM(
            num_pids,
            model.OIM.QUEUE_SIZE,
            model.EMBEDDING_SIZE,
            model.OIM.MOMENTUM,
            model.OIM.SCALE,
        ),
        batch_size=model.ROI.BATCH_SIZE,
        positive_fraction=model.ROI.POSITIVE_FRACTION,
        limits=detection_limits(cfg),
    )
    # torchvision would infer them from the first images, wrongly if those are narrow.
    heads.box_roi_pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    heads.box_roi_pool.map_levels = initLevelMapper(2, 5)
    transform = GeneralizedRCNNTransform(
        cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, IMAGENET_MEAN, IMAGENET_STD
    )
    return SearchNet(transform, backbone, _make_rpn(cfg, channels), heads)


def detection_limits(cfg: CfgNode) -> DetectionLimits:
    """The limits that a network of `cfg` filters its detections by."""
    roi = cfg.MODEL.ROI
    return DetectionLimits(roi.SCORE_THRESH, roi.NMS_THRESH, roi.DETECTIONS_PER_IMAGE)


def reference_sizes(cfg: CfgNode, num_pids: int) -> Sizes:
    """The sizes with which models.reference computes the network of `cfg` in plain formulas."""
    model, rpn = cfg.MODEL, cfg.MODEL.RPN
    return Sizes(
        backbone=cfg.BACKBONE.NAME,
        frozen_bn=cfg.BACKBONE.FROZEN_BN,
        identities=num_pids,
        queue=model.OIM.QUEUE_SIZE,
        image=(cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE),
        channels=model.FPN_CHANNELS,
        fc=model.FC_SIZE,
        embedding=model.EMBEDDING_SIZE,
        anchors=tuple(model.ANCHOR_SIZES),
        rpn_candidates=tuple(rpn.PRE_NMS_TOP_N),
        rpn_keep=tuple(rpn.POST_NMS_TOP_N),
        rpn_score=rpn.SCORE_THRESH,
        regions=model.ROI.BATCH_SIZE,
        detections=model.ROI.DETECTIONS_PER_IMAGE,
    )


def build_terms(cfg: CfgNode, teacher_cfg: CfgNode) -> dict[str, nn.Module]:
    """Build the terms of DISTILLER.TERMS, in this order.

    Raises:
        UserError: if a term does not exist.
    """
    check_terms(cfg.DISTILLER.TERMS)
    terms = {}
    for name in cfg.DISTILLER.TERMS:
        node = cfg.DISTILLER[name.upper()]
        options = {key.lower(): value for key, value in node.items() if key != "WEIGHT"}
        terms[name] = make_term(
            name, cfg.MODEL.FPN_CHANNELS, teacher_cfg.MODEL.FPN_CHANNELS, options
        )
    return terms


def init_from_teacher(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy the teacher's weights into the student (DISTILLER.INIT_STUDENT).

    The weights are those of the FPN's output layers, the RPN and the heads that have the same shape
    in both. The student's OIM table stays empty.

    Returns:
        The names of the tensors that were copied.
    """
    own, copied = student.state_dict(), []
    for name, value in teacher.state_dict().items():
        shared = name.startswith(("backbone.fpn.layer_blocks.", "rpn.", "roi_heads."))
        if not shared or ".oim." in name or name not in own or own[name].shape != value.shape:
            continue
        own[name].copy_(value)
        copied.append(name)
    return copied


def build_distiller(
    cfg: CfgNode, student: SearchNet, teacher: SearchNet, teacher_cfg: CfgNode
) -> Distiller:
    """Build the distiller of a student and a teacher with the terms of DISTILLER.TERMS."""
    return Distiller(student, teacher, build_terms(cfg, teacher_cfg))
