"""Every option once, with its published value; a YAML file holds only what differs."""

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.files import read_config
from configs.ranges import check_ranges
from configs.values import merge, override
from utils.errors import UserError

CN = CfgNode  # a section
_C = CN()

_C.DEVICE = "auto"  # "auto": the GPU where there is one, else the CPU; or "cpu", "cuda", "cuda:1"
_C.SEED = 1
_C.OUTPUT_DIR = "runs/run"  # config, checkpoints, TensorBoard, pictures, results of this run

_C.INPUT = CN()
_C.INPUT.DATASET = "CUHK-SYSU"  # or "PRW" or, own data, "COCO": the layout of DATA_ROOT
_C.INPUT.DATA_ROOT = "data/CUHK-SYSU"
# More training scenes: a list of [DATASET, DATA_ROOT, SHARE], whose identities are other people; an
# epoch has this share of their scenes. Evaluation stays with DATASET and DATA_ROOT.
_C.INPUT.EXTRA_TRAIN = []
# Augmentations beside the flip, none as published: names in datasets/augment.py: AUGMENTATIONS.
_C.INPUT.AUGMENT = []
_C.INPUT.MIN_SIZE = 900  # the shorter side after resizing, pixels
_C.INPUT.MAX_SIZE = 1500  # the longer side never exceeds this
_C.INPUT.BATCH_SIZE_TRAIN = 5  # the whole batch, over all ranks and accumulated parts
_C.INPUT.BATCH_SIZE_TEST = 1
_C.INPUT.NUM_WORKERS = 5  # processes that decode images, in training and in evaluation
_C.INPUT.SKIP_DAMAGED = False  # training skips and counts images that are missing or damaged

_C.BACKBONE = CN()
_C.BACKBONE.NAME = "resnet50"  # a name in models/backbones.py: BACKBONES
_C.BACKBONE.WEIGHTS = "imagenet"  # "imagenet" (downloaded), "" (random), or a state dict's path
_C.BACKBONE.FROZEN_BN = False  # FrozenBatchNorm in place of BatchNorm, where there is one
_C.BACKBONE.FREEZE = True  # no gradients for the first convolution and its norm
# Activations are computed twice, not kept: less memory; on a CPU the first stage's always are.
_C.BACKBONE.CHECKPOINT = False

_C.MODEL = CN()
# A checkpoint or exported weights of this project whose network training starts with (fine-tuning);
# the OIM table starts empty. "": only the backbone starts with weights, see BACKBONE.WEIGHTS.
_C.MODEL.WEIGHTS = ""
_C.MODEL.FPN_CHANNELS = 256
_C.MODEL.FC_SIZE = 1024  # width of the two fully connected layers of each branch
_C.MODEL.EMBEDDING_SIZE = 256  # length of a person's re-id embedding, even
_C.MODEL.ANCHOR_SIZES = [32, 64, 128, 256, 512]  # one for each of the five FPN levels, pixels
_C.MODEL.RPN = CN()
_C.MODEL.RPN.BATCH_SIZE = 256  # anchors per image in the RPN losses, half of them positive
_C.MODEL.RPN.PRE_NMS_TOP_N = [2000, 1000]  # in training, in test
_C.MODEL.RPN.POST_NMS_TOP_N = [2000, 1000]  # in training, in test
_C.MODEL.RPN.NMS_THRESH = 0.7
_C.MODEL.RPN.SCORE_THRESH = 0.0
_C.MODEL.ROI = CN()
_C.MODEL.ROI.BATCH_SIZE = 512  # regions per image in each of the two samplings
_C.MODEL.ROI.POSITIVE_FRACTION = 0.25  # at most this share of them is people
_C.MODEL.ROI.SCORE_THRESH = 0.05  # detections under it are dropped
_C.MODEL.ROI.NMS_THRESH = 0.5
_C.MODEL.ROI.DETECTIONS_PER_IMAGE = 100
_C.MODEL.OIM = CN()
_C.MODEL.OIM.QUEUE_SIZE = 5000  # embeddings of unlabelled people kept as negatives
_C.MODEL.OIM.MOMENTUM = 0.5
_C.MODEL.OIM.SCALE = 30.0

_C.SOLVER = CN()
_C.SOLVER.MAX_EPOCHS = 20
_C.SOLVER.BASE_LR = 0.003  # lr ∝ batch: 0.0006 per CUHK-SYSU image
_C.SOLVER.BASE_LR_BATCH = 0  # N: lr is multiplied by BATCH_SIZE_TRAIN / N; 0: BASE_LR as it is
_C.SOLVER.OPTIMIZER = "sgd"  # "sgd", or "adamw", which from random weights gets far sooner
_C.SOLVER.MOMENTUM = 0.9  # of AdamW the first beta
_C.SOLVER.WEIGHT_DECAY = 5e-4
_C.SOLVER.WARMUP_FACTOR = 1e-3  # lr starts at this share and rises linearly during the first epoch
_C.SOLVER.MILESTONES = [16]  # epochs after which lr is multiplied by GAMMA
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.CLIP_GRADIENTS = 10.0  # largest gradient norm; 0 does not clip
_C.SOLVER.AMP = ""  # mixed precision: "", "bf16", or "fp16" with a gradient scaler
_C.SOLVER.ACCUMULATE = 1  # parts of a rank's batch, one after the other: the memory of one part
_C.SOLVER.SYNC_BN = False  # BatchNorm over the images of all ranks (GPUs)
_C.SOLVER.LOSS_WEIGHTS = CN()
_C.SOLVER.LOSS_WEIGHTS.RPN_CLS = 1.0
_C.SOLVER.LOSS_WEIGHTS.RPN_REG = 1.0
_C.SOLVER.LOSS_WEIGHTS.PROPOSAL_CLS = 1.0
_C.SOLVER.LOSS_WEIGHTS.PROPOSAL_REG = 10.0
_C.SOLVER.LOSS_WEIGHTS.OIM = 1.0
_C.SOLVER.CKPT_PERIOD_STEPS = 0  # also save every so many steps within an epoch; 0 does not
_C.SOLVER.CKPT_KEEP = 2  # newest checkpoints kept, beside the best by mAP
_C.SOLVER.EVAL_PERIOD = 1  # epochs between evaluations; the last epoch always evaluates

# A term is the file models/distill/<name>.py; its options stand here, its WEIGHT scales its loss.
_C.DISTILLER = CN()
_C.DISTILLER.TEACHER_CKPT = ""  # the teacher's checkpoint; its own config comes with it
_C.DISTILLER.TERMS = ["dfd", "ld", "cd"]
_C.DISTILLER.STOP_EPOCH = 0  # finished epochs after which the student learns alone; 0: never
_C.DISTILLER.INIT_STUDENT = False  # start the student with the teacher's parts of the same shape
_C.DISTILLER.DFD = CN()  # foreground/background feature distillation (FGD is this term alone)
_C.DISTILLER.DFD.WEIGHT = 1.0
_C.DISTILLER.DFD.FG_WEIGHT = 5e-5  # features on people
_C.DISTILLER.DFD.BG_WEIGHT = 2.5e-5  # features beside people
_C.DISTILLER.DFD.ATTENTION_WEIGHT = 5e-5  # spatial and channel attention
_C.DISTILLER.DFD.RELATION_WEIGHT = 5e-7  # features with their global context
_C.DISTILLER.DFD.TEMPERATURE = 0.5  # of the attention softmax
_C.DISTILLER.DFD.SCALE_BOXES_BY = "image"  # "image": as published; "padded": right in mixed batches
# True: the published strength at any size; False: plain sums, as published, so at 256 channels and
# 900×1500 alone.
_C.DISTILLER.DFD.NORMALIZE = False
_C.DISTILLER.LD = CN()  # decoupled logit distillation (DKD is this term alone)
_C.DISTILLER.LD.WEIGHT = 1.0
_C.DISTILLER.LD.TEMPERATURE = 4.0
_C.DISTILLER.LD.LOGITS = "raw"  # "raw": as published; "standardized": free in their strength
_C.DISTILLER.LD.ALPHA = 1.0  # of the target class part
_C.DISTILLER.LD.BETA = 0.5  # of the other classes part; with two classes that part is zero
_C.DISTILLER.CD = CN()  # re-id distillation
_C.DISTILLER.CD.WEIGHT = 1.0
_C.DISTILLER.CD.FORM = "correlation"  # "correlation": as published; "contrastive": InfoNCE
_C.DISTILLER.CD.RANK_BY = "teacher"  # teacher's confidence, or "constant" as the release in effect
_C.DISTILLER.CD.NMS_THRESH = 0.7  # thins a person's boxes
_C.DISTILLER.PKD = CN()
_C.DISTILLER.PKD.WEIGHT = 6.0
_C.DISTILLER.REVIEWKD = CN()
_C.DISTILLER.REVIEWKD.WEIGHT = 1.2
_C.DISTILLER.KD = CN()  # plain logit distillation
_C.DISTILLER.KD.WEIGHT = 1.0
_C.DISTILLER.KD.TEMPERATURE = 4.0
_C.DISTILLER.KD.LOGITS = "raw"  # or "standardized"
_C.DISTILLER.RKD = CN()  # relations of people's embeddings: distances and angles
_C.DISTILLER.RKD.WEIGHT = 1.0
_C.DISTILLER.RKD.DISTANCE_WEIGHT = 1.0
_C.DISTILLER.RKD.ANGLE_WEIGHT = 2.0
_C.DISTILLER.RKD.NMS_THRESH = 0.7  # thins a person's boxes, as in CD
_C.DISTILLER.HINT = CN()  # FitNet's regression of features
_C.DISTILLER.HINT.WEIGHT = 1.0

# CUHK-SYSU: 50, 100, 500, 1000, 2000, 4000, -1 for every image, "Occlusion", "Resolution", or a
# list of them, scored in one pass: one table and one curve. PRW has one gallery. Own data: a number
# of images, drawn for each query, or -1.
_C.EVAL_GALLERY_SIZE = 100
_C.EVAL_QUERY_FILE = ""  # PRW: a file in DATA_ROOT with some of the queries, as the mini set has
_C.EVAL_CROSS_CAMERA = False  # PRW, own data: only frames of other cameras
_C.EVAL_USE_CBGM = False  # re-rank by context bipartite graph matching
_C.EVAL_CBGM_K1 = 10  # images re-ranked for each query (published for PRW: 30)
_C.EVAL_CBGM_K2 = 3  # people of the query image taken as context, the query with them (PRW: 4)
_C.EVAL_USE_GT = False  # ground-truth boxes in place of detections: the upper bound
_C.EVAL_AMP = ""  # precision of the backbone in evaluation: "" (float32), "bf16" or "fp16"
_C.EVAL_FAST = False  # norms folded, channels last, with EVAL_AMP all in half: nearly the same
_C.EVAL_USE_CACHE = False  # score OUTPUT_DIR/eval_cache.pth again; no image or checkpoint is read


def get_cfg() -> CfgNode:
    """A fresh copy of the defaults."""
    return _C.clone()


def load_cfg(path: str | Path | None, overrides: Sequence[str] = ()) -> CfgNode:
    """Defaults, then the YAML file at `path` over its bases, then `KEY VALUE ...` pairs; frozen.

    Raises UserError for a missing or unreadable file, an unknown key, a value of a wrong type or
    out of its range.
    """
    cfg = get_cfg()
    if path is not None:
        for file, values in read_config(Path(path)):
            merge(cfg, values, f"--cfg {file}: ")
    if len(overrides) % 2:
        raise UserError(f"overrides come as KEY VALUE pairs; found {' '.join(overrides)}")
    for key, value in zip(overrides[::2], overrides[1::2]):
        override(cfg, key, value)
    check_ranges(cfg)
    cfg.freeze()
    return cfg
