"""All config options, each with its published value. A YAML file contains only values that
differ."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.files import read_config
from configs.ranges import check_ranges
from configs.values import merge, override
from utils.errors import UserError
from utils.limits import MAX_PIXELS

CN = CfgNode  # a section
_C = CN()

_C.DEVICE = "auto"  # "auto": a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1"
_C.SEED = 1
_C.OUTPUT_DIR = "runs/run"  # config, checkpoints, TensorBoard, pictures and results of a run

_C.INPUT = CN()
_C.INPUT.DATASET = "CUHK-SYSU"  # the layout of DATA_ROOT: or "PRW", or "COCO" for custom data
_C.INPUT.DATA_ROOT = "data/CUHK-SYSU"
# More training scenes: a list of [DATASET, DATA_ROOT, SHARE], whose identities are other people; an
# epoch has this share of their scenes. Evaluation stays with DATASET and DATA_ROOT.
_C.INPUT.EXTRA_TRAIN = []
# Augmentations beside the flip, none as published: names in datasets/augment.py: AUGMENTATIONS.
_C.INPUT.AUGMENT = []
# Annotations with a lower score are neither people nor background in training (ignore regions).
_C.INPUT.MIN_SCORE = 0.5
_C.INPUT.MAX_PIXELS = MAX_PIXELS  # larger pictures and video frames are not decoded
_C.INPUT.MIN_SIZE = 900  # the shorter side after resizing, pixels
_C.INPUT.MAX_SIZE = 1500  # limit of the longer side, pixels
_C.INPUT.BATCH_SIZE_TRAIN = 5  # images of a batch, over all ranks and parts (SOLVER.ACCUMULATE)
_C.INPUT.BATCH_SIZE_TEST = 1
_C.INPUT.NUM_WORKERS = 5  # processes that read images, in training and in evaluation
_C.INPUT.SKIP_DAMAGED = False  # whether training skips and counts missing and damaged images

_C.BACKBONE = CN()
# A name in models/backbones.py: BACKBONES, or "timm:NAME", a network of timm (docs/slim.md).
_C.BACKBONE.NAME = "resnet50"
# "imagenet" (downloaded; of timm: the pretrained weights), "" (random), or path of a state dict.
_C.BACKBONE.WEIGHTS = "imagenet"
_C.BACKBONE.FROZEN_BN = False  # FrozenBatchNorm instead of BatchNorm
_C.BACKBONE.FREEZE = True  # no gradients for the first convolution and its norm
# Activations are computed again in the backward pass instead of stored: less memory, more time. On
# a CPU this always applies to the first stage.
_C.BACKBONE.CHECKPOINT = False

_C.MODEL = CN()
# A checkpoint or exported weights of this project whose network training starts with (fine-tuning);
# the OIM table starts empty, and BACKBONE.WEIGHTS are not read. "": only the backbone has weights.
_C.MODEL.WEIGHTS = ""
# "fpn", or "none" (the C4 form): regions are pooled from the backbone's map of stride 16, and the
# last stage of the backbone processes each of them in place of fully connected layers.
_C.MODEL.NECK = "fpn"
_C.MODEL.C4 = CN()  # only with NECK "none"
_C.MODEL.C4.HEADS = "double"  # a last stage for each branch, or "shared": one for both
_C.MODEL.C4.POOL_SIZE = 14  # side of a pooled region
# The first half of an embedding is computed from the maximum of each channel over the pooled
# "region", as in SeqNet, or over each of its "rows", which keeps what is above and below apart.
_C.MODEL.C4.MAXIMA = "region"
_C.MODEL.C4.RPN_CHANNELS = 0  # of the RPN's hidden layer; 0: those of the map
_C.MODEL.FPN_CHANNELS = 256  # only with NECK "fpn"
_C.MODEL.FC_SIZE = 1024  # width of the two fully connected layers of each branch; with NECK "fpn"
_C.MODEL.EMBEDDING_SIZE = 256  # length of a re-id embedding, an even number
_C.MODEL.ANCHOR_SIZES = [32, 64, 128, 256, 512]  # pixels; one for each FPN level, or for one map
_C.MODEL.RPN = CN()
_C.MODEL.RPN.BATCH_SIZE = 256  # anchors per image in the RPN losses, at most half of them positive
_C.MODEL.RPN.PRE_NMS_TOP_N = [2000, 1000]  # in training, in test
_C.MODEL.RPN.POST_NMS_TOP_N = [2000, 1000]  # in training, in test
_C.MODEL.RPN.NMS_THRESH = 0.7
_C.MODEL.RPN.SCORE_THRESH = 0.0
_C.MODEL.ROI = CN()
_C.MODEL.ROI.BATCH_SIZE = 512  # regions per image in each of the two samplings
_C.MODEL.ROI.POSITIVE_FRACTION = 0.25  # largest share of people among them
_C.MODEL.ROI.SCORE_THRESH = 0.05  # only detections with a higher score are kept
_C.MODEL.ROI.NMS_THRESH = 0.5
_C.MODEL.ROI.DETECTIONS_PER_IMAGE = 100
_C.MODEL.OIM = CN()
_C.MODEL.OIM.QUEUE_SIZE = 5000  # embeddings of unlabelled people, used as negatives
_C.MODEL.OIM.MOMENTUM = 0.5  # share of the old row in an update
_C.MODEL.OIM.SCALE = 30.0  # inverse temperature of the softmax

_C.SOLVER = CN()
_C.SOLVER.MAX_EPOCHS = 20
_C.SOLVER.BASE_LR = 0.003  # lr ∝ batch: 0.0006 per CUHK-SYSU image
_C.SOLVER.BASE_LR_BATCH = 0  # N: lr is multiplied by BATCH_SIZE_TRAIN / N; 0: not scaled
_C.SOLVER.OPTIMIZER = "sgd"  # or "adamw", which converges faster from random weights
_C.SOLVER.MOMENTUM = 0.9  # for AdamW: the first beta
_C.SOLVER.WEIGHT_DECAY = 5e-4
_C.SOLVER.WARMUP_FACTOR = 1e-3  # lr rises linearly from this share during the first epoch
_C.SOLVER.MILESTONES = [16]  # epochs after which lr is multiplied by GAMMA
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.CLIP_GRADIENTS = 10.0  # largest gradient norm; 0: no clipping
_C.SOLVER.AMP = ""  # mixed precision: "", "bf16", or "fp16" with a gradient scaler
_C.SOLVER.ACCUMULATE = 1  # parts of a rank's images, trained in turn: the memory of one part
_C.SOLVER.SYNC_BN = False  # BatchNorm statistics over the images of all ranks; needs GPUs
_C.SOLVER.LOSS_WEIGHTS = CN()
_C.SOLVER.LOSS_WEIGHTS.RPN_CLS = 1.0
_C.SOLVER.LOSS_WEIGHTS.RPN_REG = 1.0
_C.SOLVER.LOSS_WEIGHTS.PROPOSAL_CLS = 1.0
_C.SOLVER.LOSS_WEIGHTS.PROPOSAL_REG = 10.0
_C.SOLVER.LOSS_WEIGHTS.OIM = 1.0
_C.SOLVER.CKPT_PERIOD_STEPS = 0  # steps between checkpoints within an epoch; 0: none
_C.SOLVER.CKPT_KEEP = 2  # number of newest checkpoints that are kept, besides the best by mAP
_C.SOLVER.EVAL_PERIOD = 1  # epochs between evaluations; the last epoch is always evaluated

# The term NAME is the file models/distill/<name>.py; WEIGHT is the weight of its loss.
_C.DISTILLER = CN()
_C.DISTILLER.TEACHER_CKPT = ""  # the teacher's checkpoint, which contains its config
# A re-id network, or a list of several, whose embeddings of annotated people are computed once, and
# which cd and rkd then compare with: .onnx or .pt2 with a .yaml beside it, "timm:NAME", or a
# checkpoint, weights or .onnx of this project (docs/teachers.md).
_C.DISTILLER.REID_TEACHER = ""
# The file of what is computed once; "": teachers.sqlite in INPUT.DATA_ROOT.
_C.DISTILLER.CACHE_FILE = ""
_C.DISTILLER.TERMS = ["dfd", "ld", "cd"]
# Precision of the teacher's pass: "" (that of the student), "bf16" or "fp16". In bf16 it is three
# times as fast on processors with bfloat16 instructions (docs/training.md).
_C.DISTILLER.TEACHER_AMP = ""
_C.DISTILLER.STOP_EPOCH = 0  # epochs after which no term is computed; 0: never
# Terms whose weights fall: in epoch e of E (the first is 0), WEIGHT is multiplied by 1 - e / E.
_C.DISTILLER.DECAY = []
# The largest share of the terms' gradient, |terms| / (|terms| + |own losses|), on the student's
# weights; longer gradients of the terms are scaled down. 0: no limit.
_C.DISTILLER.GRADIENT_SHARE = 0.0
# Start the student with the teacher's FPN output layers, RPN and heads, where shapes are equal.
_C.DISTILLER.INIT_STUDENT = False
_C.DISTILLER.DFD = CN()  # foreground/background feature distillation; as the only term: FGD
_C.DISTILLER.DFD.WEIGHT = 1.0
_C.DISTILLER.DFD.FG_WEIGHT = 5e-5  # of features on people
_C.DISTILLER.DFD.BG_WEIGHT = 2.5e-5  # of features on background
_C.DISTILLER.DFD.ATTENTION_WEIGHT = 5e-5  # of spatial and channel attention
_C.DISTILLER.DFD.RELATION_WEIGHT = 5e-7  # of features with their global context
_C.DISTILLER.DFD.TEMPERATURE = 0.5  # of the attention softmax
_C.DISTILLER.DFD.SCALE_BOXES_BY = "image"  # "image": published; "padded": correct for mixed sizes
# True: the published strength for maps of any size. False: plain sums as published, which have this
# strength at 256 channels and 900×1500 only.
_C.DISTILLER.DFD.NORMALIZE = False
_C.DISTILLER.LD = CN()  # decoupled logit distillation; as the only term: DKD
_C.DISTILLER.LD.WEIGHT = 1.0
# True: the teacher's logits on annotated people and fixed background boxes are computed once. This
# applies to kd too.
_C.DISTILLER.LD.CACHED = False
_C.DISTILLER.LD.CACHED_REGIONS = 64  # people and background boxes of a picture together
_C.DISTILLER.LD.TEMPERATURE = 4.0
_C.DISTILLER.LD.LOGITS = "raw"  # "raw": published; "standardized": independent of their scale
_C.DISTILLER.LD.ALPHA = 1.0  # weight of the target-class part
_C.DISTILLER.LD.BETA = 0.5  # weight of the part of the other classes, zero with two classes
_C.DISTILLER.CD = CN()  # re-id distillation
_C.DISTILLER.CD.WEIGHT = 1.0
# True: the embeddings of annotated people by TEACHER_CKPT are computed once. This applies to rkd
# too.
_C.DISTILLER.CD.CACHED = False
_C.DISTILLER.CD.FORM = "correlation"  # "correlation": published; "contrastive": InfoNCE
_C.DISTILLER.CD.RANK_BY = "teacher"  # "teacher": by its confidence; "constant": as in the release
_C.DISTILLER.CD.NMS_THRESH = 0.7  # IoU above which boxes of one identity overlap
_C.DISTILLER.PKD = CN()
_C.DISTILLER.PKD.WEIGHT = 6.0
_C.DISTILLER.REVIEWKD = CN()
_C.DISTILLER.REVIEWKD.WEIGHT = 1.2
_C.DISTILLER.KD = CN()  # plain logit distillation
_C.DISTILLER.KD.WEIGHT = 1.0
_C.DISTILLER.KD.TEMPERATURE = 4.0
_C.DISTILLER.KD.LOGITS = "raw"  # or "standardized"
_C.DISTILLER.RKD = CN()  # distances and angles between embeddings
_C.DISTILLER.RKD.WEIGHT = 1.0
_C.DISTILLER.RKD.DISTANCE_WEIGHT = 1.0
_C.DISTILLER.RKD.ANGLE_WEIGHT = 2.0
_C.DISTILLER.RKD.NMS_THRESH = 0.7  # as in CD
_C.DISTILLER.RPN = CN()  # logit distillation of the RPN's objectness
_C.DISTILLER.RPN.WEIGHT = 1.0
_C.DISTILLER.RPN.TEMPERATURE = 4.0
_C.DISTILLER.RPN.ANCHORS = 256  # per image, those with the teacher's largest objectness
_C.DISTILLER.HINT = CN()  # regression of feature maps (FitNets)
_C.DISTILLER.HINT.WEIGHT = 1.0

# CUHK-SYSU: 50, 100, 500, 1000, 2000, 4000, -1 for all images, "Occlusion", "Resolution", or a list
# of these, evaluated together in one table. PRW: -1, since it has one gallery. Custom data: the
# number of images drawn for each query, or -1.
_C.EVAL_GALLERY_SIZE = 100
_C.EVAL_QUERY_FILE = ""  # PRW: a file in DATA_ROOT with a subset of the queries
_C.EVAL_CROSS_CAMERA = False  # PRW, custom data: only images of other cameras
_C.EVAL_USE_CBGM = False  # re-rank by context bipartite graph matching
_C.EVAL_CBGM_K1 = 10  # the images of this many best detections are re-ranked (PRW: 30)
_C.EVAL_CBGM_K2 = 3  # people of the query's image used as context, including the query (PRW: 4)
_C.EVAL_USE_GT = False  # ground-truth boxes instead of detections: the upper bound
_C.EVAL_AMP = ""  # precision of the backbone in evaluation: "" (float32), "bf16" or "fp16"
_C.RUNTIME = "onnxruntime"  # of an .onnx file as --ckpt, or "openvino", whose EVAL_AMP may be bf16
_C.EVAL_FAST = False  # norms folded, channels last; with EVAL_AMP all layers in half precision
_C.EVAL_USE_CACHE = False  # evaluate OUTPUT_DIR/eval_cache.pth without a network


def get_cfg() -> CfgNode:
    """Return a fresh copy of the defaults."""
    return _C.clone()


def load_cfg(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Load a config: the defaults, then the YAML file at `path` after its bases, then overrides.

    Args:
        path: of the YAML file; None for the defaults.
        overrides: KEY VALUE KEY VALUE ...

    Returns:
        The config, frozen.

    Raises:
        UserError: if the file is missing or unreadable, or a key is unknown, or a value has another
            type or is out of range.
    """
    cfg = get_cfg()
    if path is not None:
        for file, values in read_config(Path(path)):
            merge(cfg, values, f"--cfg {file}: ")
    return with_overrides(cfg, overrides)


def with_overrides(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    """Put `KEY VALUE ...` pairs into `cfg`, check all values, and freeze it.

    Raises:
        UserError: if a value is missing, a key is unknown, or a value has another type or is out of
            range.
    """
    if len(overrides) % 2:
        raise UserError(f"overrides: expected KEY VALUE pairs; found {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2]):
        override(cfg, key, value)
    check_ranges(cfg)
    cfg.freeze()
    return cfg


def take_overrides(args: argparse.Namespace, *lists: str) -> None:
    """Move pairs KEY VALUE that follow a list option, which argparse adds to the list, to the
    overrides.

    Args:
        lists: names of the list options; their values must be texts.
    """
    known = get_cfg()
    for name in lists:
        values = list(getattr(args, name))
        keys = (i for i, value in enumerate(values) if str(value).partition(".")[0] in known)
        start = next(keys, len(values))
        setattr(args, name, values[:start])
        args.overrides = [*args.overrides, *values[start:]]
