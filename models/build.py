"""From a config to modules; the only place where models meet the config."""

import torch
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
from models.oim import OIM
from models.roi_heads import PersonSearchHeads
from models.search_net import SearchNet
from utils.errors import UserError
from utils.memory import keep_freed_memory

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Float32Anchors(AnchorGenerator):
    """Anchors in float32 under mixed precision too: beyond 256 bfloat16 knows no odd numbers."""

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
    """The network of `cfg` with an OIM table of num_pids rows; pretrained False leaves the
    backbone random, for weights that come from a checkpoint."""
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
        score_thresh=model.ROI.SCORE_THRESH,
        nms_thresh=model.ROI.NMS_THRESH,
        detections_per_image=model.ROI.DETECTIONS_PER_IMAGE,
    )
    # Torchvision takes them from the first images, wrongly where those are narrow.
    heads.box_roi_pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    heads.box_roi_pool.map_levels = initLevelMapper(2, 5)
    transform = GeneralizedRCNNTransform(
        cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE, IMAGENET_MEAN, IMAGENET_STD
    )
    return SearchNet(transform, backbone, _make_rpn(cfg, channels), heads)


def build_terms(cfg: CfgNode, teacher_cfg: CfgNode) -> dict[str, nn.Module]:
    """The terms that DISTILLER.TERMS names, in its order; UserError where one does not exist."""
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
    """Copy the teacher's FPN output layers, RPN and head weights of the same shape into the
    student (DISTILLER.INIT_STUDENT); return the names copied. The OIM table starts empty."""
    own, copied = student.state_dict(), []
    for name, value in teacher.state_dict().items():
        wanted = name.startswith(("backbone.fpn.layer_blocks.", "rpn.", "roi_heads."))
        if not wanted or ".oim." in name or name not in own or own[name].shape != value.shape:
            continue
        own[name].copy_(value)
        copied.append(name)
    return copied


def build_distiller(
    cfg: CfgNode, student: SearchNet, teacher: SearchNet, teacher_cfg: CfgNode
) -> Distiller:
    """The student under the terms of DISTILLER.TERMS."""
    return Distiller(student, teacher, build_terms(cfg, teacher_cfg))


def loss_weights(cfg: CfgNode, epoch: int = 0) -> dict[str, float]:
    """The weight of every loss by the name under which the model returns it, after `epoch`
    finished epochs: from DISTILLER.STOP_EPOCH on the terms are only watched."""
    own = {name.lower(): weight for name, weight in cfg.SOLVER.LOSS_WEIGHTS.items()}
    stopped = 0 < cfg.DISTILLER.STOP_EPOCH <= epoch
    return own | {
        name: 0.0 if stopped else cfg.DISTILLER[name.upper()].WEIGHT for name in cfg.DISTILLER.TERMS
    }


def choose_device(name: str) -> torch.device:
    """DEVICE as a torch device; raises UserError for one that is not there."""
    wanted = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"of another kind: {device.type}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        raise UserError(
            f"DEVICE {name}: no such device; expected auto, cpu or cuda[:N]; found "
            f"{found} ({str(error).splitlines()[0]})"
        ) from None
    if device.type == "cpu":
        keep_freed_memory()
    return device
