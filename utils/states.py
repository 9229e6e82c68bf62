"""Checks of saved states: whether they are finite, and whether they fit a module or optimizer."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BUFFERS = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


def plain(value: Tensor) -> bool:
    """Return True if the tensor is dense: not sparse, nested, quantized or on the meta device."""
    odd = value.is_nested or value.is_quantized or value.device.type == "meta"
    return value.layout == torch.strided and not odd


def not_finite(content: Any, name: str = "") -> str:
    """Return the name (model.conv1.weight) of the first tensor or number with NaN or Inf, or ""."""
    if isinstance(content, Tensor):
        checked = content.dtype in FLOATS and plain(content)
        return name if checked and not content.isfinite().all() else ""
    if isinstance(content, float):
        return name if content != content or abs(content) == float("inf") else ""
    found = (not_finite(value, f"{name}.{key}".lstrip(".")) for key, value in _items(content))
    return next(filter(None, found), "")


def state_digest(state: dict[str, Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 of a state dict.

    It covers names, types, shapes and bytes of the tensors in the order of their names. Other
    values are left out.
    """
    total = hashlib.sha256()
    for name, value in sorted((str(name), value) for name, value in state.items()):
        if isinstance(value, Tensor) and plain(value):
            total.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            total.update(tensor_bytes(value))
    return total.hexdigest()[:16]


def tensor_bytes(value: Tensor) -> memoryview:
    """Return the bytes of a tensor. They are read as uint8, since NumPy has no bfloat16."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _items(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict):
        yield from content.items()
    elif isinstance(content, (list, tuple)):
        yield from enumerate(content)


def incompatibility(value: Any, own: Tensor) -> str:
    """Return why a saved value cannot replace the tensor `own`, or ""."""
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__} in the file and a tensor in the model"
    if not plain(value):
        return f"contains no plain numbers in the file ({value.layout} on {value.device})"
    if value.shape != own.shape:
        return f"is {list(value.shape)} in the file and {list(own.shape)} in the model"
    if not torch.can_cast(value.dtype, own.dtype):
        return f"is {value.dtype} in the file and {own.dtype} in the model"
    return ""


def incompatibilities(module: nn.Module, state: dict) -> list[str]:
    """Return why `state` cannot be loaded into `module`: one line for each tensor."""
    own = module.state_dict()
    wrong = [f"{k} is missing" for k in own if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in own]
    both = {k: incompatibility(state[k], own[k]) for k in own if k in state}
    return wrong + [f"{k} {why}" for k, why in both.items() if why]


def load_state(module: nn.Module, state: dict, where: str) -> None:
    """Load a state strictly.

    Raises:
        UserError: with the first incompatibility.
    """
    if wrong := incompatibilities(module, state):
        raise UserError(f"{where}: {len(wrong)} tensors do not fit, the first: {wrong[0]}")
    module.load_state_dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict, where: str) -> None:
    """Load the buffers of a saved optimizer.

    Learning rates and weight decays stay as they are, since the config may have changed.

    Raises:
        UserError: if the buffers belong to other parameters.
    """
    if wrong := next(_other_buffers(optimizer, saved), ""):
        raise UserError(f"{where}: the optimizer's state belongs to other parameters ({wrong})")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})


def _other_buffers(optimizer: torch.optim.Optimizer, saved: dict) -> Iterator[str]:
    """Yield the differences between a saved optimizer's parameters and this one's."""
    groups, buffers = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list) or not isinstance(buffers, dict):
        yield "it has no groups or no buffers"
        return
    own = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if own != [isinstance(group, dict) and group.get("params") for group in groups]:
        yield "its groups differ"
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for number in buffers:
        if type(number) is not int or number not in parameters:
            yield f"there is no parameter {number!r}"
    names = BUFFERS[type(optimizer)]
    # before the first step no parameter has buffers; later a fused step needs all of them
    began = any(values for values in buffers.values() if isinstance(values, dict))
    for number, parameter in parameters.items():
        values = buffers.get(number, {})
        if not isinstance(values, dict) or set(values) != (names if began else set()):
            yield f"parameter {number} lacks {', '.join(sorted(names))}"
        else:
            for name, value in values.items():
                like = torch.zeros(()) if name == "step" else parameter
                if wrong := incompatibility(value, like):
                    yield f"{name} of parameter {number} {wrong}"


def load_scaler(scaler: torch.amp.GradScaler, saved: dict, where: str) -> None:
    """Load the state of a saved gradient scaler, if both are enabled.

    Raises:
        UserError: if it is the state of something else.
    """
    own = scaler.state_dict()
    if not own or not saved:
        return
    if own.keys() != saved.keys() or any(type(saved[k]) is not type(own[k]) for k in own):
        raise UserError(f"{where}: expected the state of a gradient scaler, found another")
    scaler.load_state_dict(saved)
