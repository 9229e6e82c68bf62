"""The config and the thresholds in a file that contains a network."""

import json
import math
from collections.abc import Iterable

from yacs.config import CfgNode

from configs.defaults import get_cfg
from configs.files import parse
from configs.ranges import check_ranges, flatten
from configs.values import merge
from utils.errors import DamagedError, UserError, reason_of

Thresholds = dict[str, float]  # false-alarm rate, as "0.05" -> similarity
QUEUE = "MODEL.OIM.QUEUE_SIZE"
# Keys that the tensors of a model, or their meaning, depend on.
MODEL_KEYS = (
    "BACKBONE.NAME",
    "BACKBONE.FROZEN_BN",
    "MODEL.NECK",
    "MODEL.C4.HEADS",
    "MODEL.C4.POOL_SIZE",
    "MODEL.C4.MAXIMA",
    "MODEL.C4.RPN_CHANNELS",
    "MODEL.FPN_CHANNELS",
    "MODEL.FC_SIZE",
    "MODEL.EMBEDDING_SIZE",
    "MODEL.ANCHOR_SIZES",
    QUEUE,
)
# Keys of MODEL that only training reads.
TRAINING_KEYS = (
    "MODEL.WEIGHTS",
    "MODEL.RPN.BATCH_SIZE",
    "MODEL.ROI.BATCH_SIZE",
    "MODEL.ROI.POSITIVE_FRACTION",
    QUEUE,
    "MODEL.OIM.MOMENTUM",
    "MODEL.OIM.SCALE",
)


def inference_keys(cfg: CfgNode) -> list[str]:
    """Return the keys on which the detections and embeddings of an image depend.

    Weights and precision are not among them.
    """
    model = [key for key in flatten(cfg) if key.startswith("MODEL.") and key not in TRAINING_KEYS]
    return ["BACKBONE.NAME", "INPUT.MIN_SIZE", "INPUT.MAX_SIZE", *model]


def parse_stored(text: object, where: str) -> CfgNode:
    """Parse the config of a checkpoint. Missing keys get their default.

    Args:
        text: YAML.
        where: the option and the path of the file, for messages.

    Raises:
        UserError: if it is not a valid config.
    """
    cfg = get_cfg()
    try:
        merge(cfg, parse(str(text), ""), "", unknown=True)
        check_ranges(cfg)
    except Exception as error:  # of YAML, of yacs, of ranges
        raise UserError(f"{where}: its config cannot be read ({reason_of(error)})") from None
    return cfg


def check_same_model(
    stored: CfgNode, cfg: CfgNode, where: str, keys: Iterable[str] = MODEL_KEYS
) -> None:
    """Check that two configs agree in `keys`.

    Raises:
        UserError: naming every key that differs.
    """
    there, here = flatten(stored), flatten(cfg)
    differ = [
        f"{key} is {there[key]!r} in the file and {here[key]!r} in the config"
        for key in keys
        if there[key] != here[key]
    ]
    if differ:
        raise UserError(f"{where}: another model: {'; '.join(differ)}")


def compare_configs(stored: CfgNode, cfg: CfgNode, where: str) -> list[str]:
    """Return a line "KEY was X, is Y" for each key that differs.

    Raises:
        UserError: if a key of the model differs.
    """
    check_same_model(stored, cfg, where)
    was = flatten(stored)
    return [
        f"{key} was {was[key]!r}, is {value!r}"
        for key, value in flatten(cfg).items()
        if was[key] != value
    ]


def parse_thresholds(text: str, where: str) -> Thresholds:
    """Parse thresholds from JSON, see `check_thresholds`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise DamagedError(f"{where}: thresholds: expected JSON, found {text[:60]!r}") from None
    return check_thresholds(value, where)


def check_thresholds(value: object, where: str) -> Thresholds:
    """Return `value` if it has the form of thresholds.

    Raises:
        DamagedError: if it has another form.
    """
    if isinstance(value, dict) and all(map(_is_threshold, value, value.values())):
        return value
    raise DamagedError(
        f"{where}: thresholds: expected similarities by false-alarm rate, found {str(value)[:60]}"
    )


def _is_threshold(rate: object, similarity: object) -> bool:
    number = isinstance(similarity, (int, float)) and not isinstance(similarity, bool)
    try:
        return number and math.isfinite(similarity) and 0 < float(str(rate)) < 1
    except (ValueError, OverflowError):
        return False
