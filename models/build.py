"""Construction of modules from a config. No other file of models/ reads the config."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.poolers import initLevelMapper
from yacs.config import CfgNode

from models import c4
from models.backbones import backbone_of, make_backbone
from models.cached_teacher import CachedTeacher
from models.distill import FPN_LEVELS, check_choice, check_terms, make_term
from models.distiller import Distiller
from models.fast.inference import optimize_for_inference
from models.fast.roi_align import GatheredRoIAlign
from models.fast.rpn_head import SparseRPNHead
from models.filtering import DetectionLimits
from models.oim import OIM
from models.pixels import IMAGENET_MEAN, IMAGENET_STD
from models.roi_heads import Branches, PersonSearchHeads, fc_branches
from models.search_net import SearchNet
from models.soft_labels import SoftRPN
from utils.errors import UserError

if TYPE_CHECKING:
    from models.reference import Sizes

NOT_OF_TERMS = ("WEIGHT", "CACHED", "CACHED_REGIONS")  # keys of DISTILLER.<NAME>


class Float32Anchors(AnchorGenerator):
    """Anchors in float32 under mixed precision too: bfloat16 cannot represent odd integers above
    256."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(image_list, [level[:1, :1].float() for level in feature_maps])


def has_fpn(cfg: CfgNode) -> bool:
    """Return True if MODEL.NECK is "fpn"; if it is "none", the network has the C4 form.

    Raises:
        UserError: if it is neither.
    """
    return check_choice("MODEL.NECK", cfg.MODEL.NECK, ("fpn", "none")) == "fpn"


def levels_of(cfg: CfgNode) -> tuple[str, ...]:
    """Return the names of the maps from which regions are pooled, shallow to deep."""
    return FPN_LEVELS if has_fpn(cfg) else (c4.LEVEL,)


def channels_of(cfg: CfgNode) -> int:
    """Return the channels of these maps."""
    if has_fpn(cfg):
        return cfg.MODEL.FPN_CHANNELS
    return backbone_of(cfg.BACKBONE.NAME).channels[int(c4.LEVEL)]


def _make_rpn(cfg: CfgNode) -> SoftRPN:
    """Return the RPN, with one anchor size on each level of an FPN, or all sizes on the only
    map."""
    sizes, rpn, width = cfg.MODEL.ANCHOR_SIZES, cfg.MODEL.RPN, None
    per_map = [(size,) for size in sizes]
    if not has_fpn(cfg):
        per_map, width = [tuple(sizes)], cfg.MODEL.C4.RPN_CHANNELS or None
    anchors = Float32Anchors(tuple(per_map), ((0.5, 1.0, 2.0),) * len(per_map))
    return SoftRPN(
        anchors,
        SparseRPNHead(channels_of(cfg), anchors.num_anchors_per_location()[0], width),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=rpn.BATCH_SIZE,
        positive_fraction=0.5,
        pre_nms_top_n=dict(zip(("training", "testing"), rpn.PRE_NMS_TOP_N)),
        post_nms_top_n=dict(zip(("training", "testing"), rpn.POST_NMS_TOP_N)),
        nms_thresh=rpn.NMS_THRESH,
        score_thresh=rpn.SCORE_THRESH,
    )


def _make_pool(cfg: CfgNode) -> GatheredRoIAlign:
    """Return RoIAlign, which pools regions from the levels to 7×7 with an FPN."""
    side = 7 if has_fpn(cfg) else cfg.MODEL.C4.POOL_SIZE
    levels = levels_of(cfg)
    pool = GatheredRoIAlign(list(levels), output_size=side, sampling_ratio=2)
    # torchvision would infer them from the first images, wrongly if those are narrow.
    pool.scales = [1 / (4 << int(level)) for level in levels]
    pool.map_levels = initLevelMapper(int(levels[0]) + 2, int(levels[-1]) + 2)
    return pool


def _make_backbone(cfg: CfgNode, pretrained: bool) -> tuple[nn.Module, Branches]:
    """Return the backbone, with its FPN if it has one, and the two branches."""
    backbone, model = cfg.BACKBONE, cfg.MODEL
    weights = backbone.WEIGHTS if pretrained else ""
    names = backbone.NAME, weights, backbone.FROZEN_BN, backbone.FREEZE
    if has_fpn(cfg):
        maps = make_backbone(*names, model.FPN_CHANNELS, backbone.CHECKPOINT)
        pooled = model.FPN_CHANNELS * 7 * 7
        return maps, fc_branches(pooled, model.FC_SIZE, model.EMBEDDING_SIZE)
    heads = check_choice("MODEL.C4.HEADS", model.C4.HEADS, ("double", "shared"))
    maxima = check_choice("MODEL.C4.MAXIMA", model.C4.MAXIMA, ("region", "rows"))
    rows = model.C4.POOL_SIZE if maxima == "rows" else 0
    return c4.make_c4(*names, backbone.CHECKPOINT, heads == "shared", rows, model.EMBEDDING_SIZE)


def build_net(cfg: CfgNode, num_pids: int, pretrained: bool = True) -> SearchNet:
    """Build the network of `cfg`.

    Args:
        num_pids: number of training identities, the rows of the OIM table.
        pretrained: whether to load BACKBONE.WEIGHTS. This is not needed if a checkpoint is loaded
            next.
    """
    model = cfg.MODEL
    backbone, branches = _make_backbone(cfg, pretrained)
    heads = PersonSearchHeads(
        _make_pool(cfg),
        branches,
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
    transform = GeneralizedRCNNTransform(
        cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, IMAGENET_MEAN, IMAGENET_STD
    )
    return SearchNet(transform, backbone, _make_rpn(cfg), heads)


def detection_limits(cfg: CfgNode) -> DetectionLimits:
    """Return the limits by which a network of `cfg` filters its detections."""
    roi = cfg.MODEL.ROI
    return DetectionLimits(roi.SCORE_THRESH, roi.NMS_THRESH, roi.DETECTIONS_PER_IMAGE)


def reference_sizes(cfg: CfgNode, num_pids: int) -> "Sizes":
    """Return the sizes for models.reference that correspond to the network of `cfg`."""
    from models.reference import Sizes  # of which only tests and benchmarks need anything

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


def term_options(cfg: CfgNode, name: str) -> dict[str, Any]:
    """Return the keyword arguments of a term: the values of DISTILLER.<NAME>."""
    node = cfg.DISTILLER[name.upper()]
    return {key.lower(): value for key, value in node.items() if key not in NOT_OF_TERMS}


def build_terms(cfg: CfgNode, teacher_cfg: CfgNode) -> dict[str, nn.Module]:
    """Build the terms in the order of DISTILLER.TERMS.

    Raises:
        UserError: if a term does not exist, or needs another teacher.
    """
    check_terms(cfg.DISTILLER.TERMS)
    if "rpn" in cfg.DISTILLER.TERMS:
        check_same_anchors(cfg, teacher_cfg)
    theirs, terms = levels_of(teacher_cfg), {}
    levels = tuple(level for level in levels_of(cfg) if level in theirs)
    for name in cfg.DISTILLER.TERMS:
        options = term_options(cfg, name)
        if name in ("ld", "kd"):
            options["cached"] = cfg.DISTILLER.LD.CACHED
        if name == "cd":
            options["lengths"] = tuple(c.MODEL.EMBEDDING_SIZE for c in (cfg, teacher_cfg))
        terms[name] = make_term(name, channels_of(cfg), channels_of(teacher_cfg), options, levels)
    return terms


def check_same_anchors(cfg: CfgNode, teacher_cfg: CfgNode) -> None:
    """Check that both networks have the same anchors, whose logits the term rpn compares.

    Raises:
        UserError: if they have not.
    """
    for key in ("NECK", "ANCHOR_SIZES"):
        if cfg.MODEL[key] != teacher_cfg.MODEL[key]:
            raise UserError(
                f"DISTILLER.TERMS: rpn: expected a teacher with the student's MODEL.{key} "
                f"{cfg.MODEL[key]}, found {teacher_cfg.MODEL[key]}"
            )


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
    cfg: CfgNode,
    student: SearchNet,
    teacher: SearchNet | CachedTeacher,
    teacher_cfg: CfgNode,
    teacher_precision: torch.dtype | None = None,
) -> Distiller:
    """Build the distiller of a student and a teacher with the terms of DISTILLER.TERMS.

    Args:
        teacher_precision: of DISTILLER.TEACHER_AMP; None: that of the student. A teacher with a
            precision of its own is optimized for inference.
    """
    if teacher_precision is not None:
        if isinstance(teacher, CachedTeacher):
            teacher.live = teacher.live and optimize_for_inference(teacher.live)
        else:
            teacher = optimize_for_inference(teacher)
    return Distiller(student, teacher, build_terms(cfg, teacher_cfg), teacher_precision)
