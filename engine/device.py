"""The device and the precision of a config."""

import torch

from utils.errors import UserError

PRECISIONS = {"": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Convert the value of DEVICE to a torch device.

    Raises:
        UserError: if the device does not exist.
    """
    wanted = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"unsupported device type {device.type}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{torch.cuda.device_count()} GPUs" if torch.cuda.is_available() else "no GPU"
        raise UserError(
            f"DEVICE {name}: no such device; expected auto, cpu or cuda[:N]; found "
            f"{found} ({str(error).splitlines()[0]})"
        ) from None
    return device


def precision_of(key: str, value: str) -> torch.dtype | None:
    """Convert the value of `key`, such as EVAL_AMP, to a dtype; None means float32.

    Raises:
        UserError: if the value is none of PRECISIONS.
    """
    if value not in PRECISIONS:
        raise UserError(f"{key}: expected '', bf16 or fp16; found {value!r}")
    return PRECISIONS[value]
