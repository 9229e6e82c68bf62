"""The valid ranges of a config's numbers. Without a check, values out of range fail late or spoil a
run."""

import math
from typing import Any

from yacs.config import CfgNode

from utils.errors import UserError
from utils.names import shown

MINIMUM = {
    "SEED": 0,
    "INPUT.MAX_PIXELS": 1,
    "INPUT.MIN_SIZE": 33,  # below it the deepest map has one pixel, which BatchNorm rejects
    "INPUT.MAX_SIZE": 64,
    "INPUT.BATCH_SIZE_TRAIN": 1,
    "INPUT.BATCH_SIZE_TEST": 1,
    "INPUT.NUM_WORKERS": 0,
    "MODEL.C4.POOL_SIZE": 3,  # as for MIN_SIZE, after the stage of stride 2
    "MODEL.C4.RPN_CHANNELS": 0,
    "MODEL.FPN_CHANNELS": 1,
    "MODEL.FC_SIZE": 1,
    "MODEL.EMBEDDING_SIZE": 2,
    "MODEL.RPN.BATCH_SIZE": 1,
    "MODEL.ROI.BATCH_SIZE": 2,
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 1,
    "MODEL.OIM.QUEUE_SIZE": 0,
    "MODEL.OIM.SCALE": 0,
    "SOLVER.MAX_EPOCHS": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.BASE_LR_BATCH": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.GAMMA": 0,
    "SOLVER.CLIP_GRADIENTS": 0,
    "SOLVER.ACCUMULATE": 1,
    "SOLVER.CKPT_PERIOD_STEPS": 0,
    "SOLVER.CKPT_KEEP": 1,
    "SOLVER.EVAL_PERIOD": 1,
    "DISTILLER.STOP_EPOCH": 0,
    "DISTILLER.RPN.ANCHORS": 1,
    "DISTILLER.LD.CACHED_REGIONS": 1,
    "DISTILLER.LD.ALPHA": 0,
    "DISTILLER.LD.BETA": 0,
    "EVAL_CBGM_K1": 1,
    "EVAL_CBGM_K2": 1,
}
MAXIMUM = {"INPUT.MAX_PIXELS": 178_956_970}  # Pillow decodes no larger pictures
LARGEST = 2**31 - 1  # integer; torch and numpy reject larger sizes and seeds, but late
BELOW_ONE = ("SOLVER.MOMENTUM", "DISTILLER.GRADIENT_SHARE")  # at least 0 and below 1
SHARES = (  # numbers in 0..1
    "INPUT.MIN_SCORE",
    "MODEL.RPN.NMS_THRESH",
    "MODEL.RPN.SCORE_THRESH",
    "MODEL.ROI.POSITIVE_FRACTION",
    "MODEL.ROI.SCORE_THRESH",
    "MODEL.ROI.NMS_THRESH",
    "MODEL.OIM.MOMENTUM",
    "SOLVER.WARMUP_FACTOR",
    "DISTILLER.CD.NMS_THRESH",
    "DISTILLER.RKD.NMS_THRESH",
)
LISTS: dict[str, tuple[type, int | None]] = {  # type and number of the items
    "MODEL.ANCHOR_SIZES": (int, None),
    "MODEL.RPN.PRE_NMS_TOP_N": (int, 2),
    "MODEL.RPN.POST_NMS_TOP_N": (int, 2),
    "SOLVER.MILESTONES": (int, None),
    "DISTILLER.TERMS": (str, None),
    "DISTILLER.DECAY": (str, None),
    "INPUT.AUGMENT": (str, None),
}


def flatten(node: dict, prefix: str = "") -> dict[str, Any]:
    """Convert a nested dict, such as a config, to {"A.B.C": value}."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        inner = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def check_ranges(cfg: CfgNode) -> None:
    """Check that all values are in their range.

    Values that depend on the dataset are checked by engine.evaluation.evaluate.check_settings, and
    names where the named object is built.

    Raises:
        UserError: naming the first key whose value is out of range.
    """
    for key, value in flatten(cfg).items():
        if expected := _expected(key, value):
            raise UserError(f"{key}: expected {expected}, found {shown(value)}")
    sizes = cfg.MODEL.ANCHOR_SIZES
    if not sizes or (cfg.MODEL.NECK == "fpn" and len(sizes) != 5):
        expected = "5 int values" if cfg.MODEL.NECK == "fpn" else "at least one int value"
        raise UserError(f"MODEL.ANCHOR_SIZES: expected {expected}, found {sizes}")
    if cfg.MODEL.EMBEDDING_SIZE % 2:
        raise UserError(
            f"MODEL.EMBEDDING_SIZE: expected an even number, found {cfg.MODEL.EMBEDDING_SIZE}"
        )
    if len(set(cfg.DISTILLER.TERMS)) < len(cfg.DISTILLER.TERMS):
        raise UserError(f"DISTILLER.TERMS: expected each term once, found {cfg.DISTILLER.TERMS}")


def _expected(key: str, value: Any) -> str:
    """Return what is expected instead of a value out of range; "" if it is in its range."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if key in MINIMUM and not value >= MINIMUM[key]:
        return f"at least {MINIMUM[key]}"
    if isinstance(value, int) and value > MAXIMUM.get(key, LARGEST):
        return f"at most {MAXIMUM.get(key, LARGEST)}"
    if key in SHARES and not 0 <= value <= 1:
        return "0 to 1"
    if key in BELOW_ONE and not 0 <= value < 1:
        return "at least 0 and below 1"
    if key.endswith("TEMPERATURE") and not value > 0:
        return "a number above 0"
    if ("LOSS_WEIGHTS" in key or key.endswith("WEIGHT")) and not value >= 0:
        return "at least 0"
    return _expected_items(value, *LISTS[key]) if key in LISTS else ""


def _expected_items(values: list, kind: type, count: int | None) -> str:
    """Return what is expected instead of a list; "" if it has `count` valid items of the type."""
    if count not in (None, len(values)) or not all(type(item) is kind for item in values):
        return f"{count or 'a list of'} {kind.__name__} values"
    if kind is int and not all(0 < item <= LARGEST for item in values):
        return f"numbers above 0 and at most {LARGEST}"
    return ""
