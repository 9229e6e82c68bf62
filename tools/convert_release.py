"""Turn a checkpoint of the published release into this project's."""
import re

from torch import Tensor

# Release key (torchvision 0.12 naming) -> ours, in order; the unused regressor goes first because
# the release calls it by the name that the detection branch's predictor has here.
UNUSED = "roi_heads.box_predictor."
RENAMES = [
    (r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"backbone.fpn.\1_blocks.\2.0.\3"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.faster_rcnn_predictor\.", "roi_heads.box_predictor."),
    (r"^roi_heads\.embedding_head\.projectors\.feat_beFC\.", "roi_heads.embedding_head.pooled."),
    (r"^roi_heads\.embedding_head\.projectors\.feat_afFC\.", "roi_heads.embedding_head.fc."),
    (r"^roi_heads\.embedding_head\.rescaler\.", "roi_heads.embedding_head.norm."),
    (r"^roi_heads\.reid_loss\.", "roi_heads.oim."),
]


def rename(key: str) -> str:
    """A release key -> our key."""
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def convert_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A released network's state dict in our naming, without the regressor that nothing uses."""
    return {rename(key): value for key, value in state.items() if not key.startswith(UNUSED)}
