"""Names in checkpoints and configs of the published release, and the names of this project."""

import re

from torch import Tensor
from torch.nn import functional as F

# Release key (torchvision 0.12 naming) -> key here, applied in this order. The unused regressor of
# the release is removed first: its name is the name of the detection branch's predictor here.
UNUSED = "roi_heads.box_predictor."
RENAMES = [
    (
        r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$",
        r"backbone.fpn.\1_blocks.\2.0.\3",
    ),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.faster_rcnn_predictor\.", "roi_heads.box_predictor."),
    (r"^roi_heads\.embedding_head\.projectors\.feat_beFC\.", "roi_heads.embedding_head.pooled."),
    (r"^roi_heads\.embedding_head\.projectors\.feat_afFC\.", "roi_heads.embedding_head.fc."),
    (r"^roi_heads\.embedding_head\.rescaler\.", "roi_heads.embedding_head.norm."),
    (r"^roi_heads\.reid_loss\.", "roi_heads.oim."),
]
# Side of the release's FGD module of one level -> attribute of the DFD term.
SIDES = {"s": "student_context", "t": "teacher_context"}

# The training identities of PRW are 1-478, 480-483 and 932. The release uses row id - 1 of a table
# of 482 rows, so identities 483 and 932 have no row.
PRW_ROWS = [*range(478), *range(479, 482)]
PRW_TABLE = 482

# Release config key -> key here. The release never reads many of its keys. Those that would change
# detections (RPN, RoI heads) are therefore taken from this project's configs, as published.
CONFIG_KEYS = {
    **{
        f"INPUT.{key}": f"INPUT.{key}"
        for key in (
            "DATASET",
            "DATA_ROOT",
            "MIN_SIZE",
            "MAX_SIZE",
            "BATCH_SIZE_TRAIN",
            "BATCH_SIZE_TEST",
        )
    },
    "INPUT.NUM_WORKERS_TRAIN": "INPUT.NUM_WORKERS",
    **{
        f"SOLVER.{key}": f"SOLVER.{key}"
        for key in ("MAX_EPOCHS", "BASE_LR", "WARMUP_FACTOR", "WEIGHT_DECAY", "CLIP_GRADIENTS")
    },
    "SOLVER.SGD_MOMENTUM": "SOLVER.MOMENTUM",
    "SOLVER.LR_DECAY_MILESTONES": "SOLVER.MILESTONES",
    **{
        f"SOLVER.LW_{key}": f"SOLVER.LOSS_WEIGHTS.{key}"
        for key in ("RPN_CLS", "RPN_REG", "PROPOSAL_CLS", "PROPOSAL_REG")
    },
    "SOLVER.LW_BOX_REID": "SOLVER.LOSS_WEIGHTS.OIM",
    "MODEL.LOSS.OIM_MOMENTUM": "MODEL.OIM.MOMENTUM",
    "MODEL.LOSS.OIM_SCALAR": "MODEL.OIM.SCALE",
    "EVAL_PERIOD": "SOLVER.EVAL_PERIOD",
    "EVAL_GALLERY_SIZE": "EVAL_GALLERY_SIZE",
    "EVAL_USE_CBGM": "EVAL_USE_CBGM",
    "SEED": "SEED",
}


def rename(key: str) -> str:
    """Translate a key of the release's state dict."""
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a state dict of the release, without the regressor that the release never uses."""
    return {rename(key): value for key, value in state.items() if not key.startswith(UNUSED)}


def renumber_prw(lut: Tensor) -> Tensor:
    """Reorder the release's PRW table [482, D] to [483, D], the order of the labels 1..483 here.

    The last two identities have empty rows, because the release trained them towards rows of the
    queue.
    """
    return F.pad(lut[PRW_ROWS], (0, 0, 0, 2))


def rename_adapter(key: str) -> str:
    """Translate a key of the release's FGD module of one level to the key of the DFD term."""
    key = re.sub(r"^conv_mask_([st])\.", lambda m: f"{SIDES[m[1]]}.mask.", key)
    return re.sub(r"^channel_add_conv_([st])\.", lambda m: f"{SIDES[m[1]]}.transform.", key)
