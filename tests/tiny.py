"""Settings of networks small enough for tests."""

from typing import Any


def pairs(settings: dict[str, Any]) -> list[str]:
    """Convert settings to KEY VALUE KEY VALUE ..., as on a command line."""
    return [str(part) for pair in settings.items() for part in pair]


TINY = {
    "DEVICE": "cpu",
    "BACKBONE.NAME": "resnet18_x05",
    "BACKBONE.WEIGHTS": "",
    "MODEL.FPN_CHANNELS": 16,
    "MODEL.FC_SIZE": 32,
    "MODEL.EMBEDDING_SIZE": 16,
    "MODEL.OIM.QUEUE_SIZE": 8,
    "MODEL.RPN.PRE_NMS_TOP_N": [99, 40],
    "MODEL.RPN.POST_NMS_TOP_N": [99, 20],
    "MODEL.ROI.DETECTIONS_PER_IMAGE": 6,
    "INPUT.MIN_SIZE": 64,
    "INPUT.MAX_SIZE": 128,
    "INPUT.BATCH_SIZE_TEST": 3,
    "INPUT.NUM_WORKERS": 0,
}
