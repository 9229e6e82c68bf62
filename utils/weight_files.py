"""Weights of other programs: files that contain the tensors of a network under various names.

Training programs wrap a state dict in different ways: under a key (`state_dict`, `model`,
`teacher`), under a prefix (`module.encoder_q.` of MoCo, `backbone.` of DINO), or under the names of
an older version of a network.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from utils.errors import DamagedError, UserError, first_of
from utils.files import content_of, load_file, open_file
from utils.states import incompatibility, not_finite

SAFETENSORS = ".safetensors"
DEPTH = 4  # of nested dicts
# Parts of a prefix: of networks that fit equally well, the first one in this list is taken. MoCo
# has two encoders and updates encoder_q by gradient; DINO recommends its teacher.
PREFERRED = ("encoder_q", "teacher", "ema")
OTHER_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_tensors(path: str | Path, option: str) -> dict[str, Tensor]:
    """Read all tensors of a file of torch.save or of safetensors, on the CPU.

    Returns:
        The tensors by dotted name: {"state_dict": {"conv1.weight": …}} gives
        "state_dict.conv1.weight".

    Raises:
        UserError: if the file is missing, damaged, or holds NaN or infinity.
    """
    where = f"{option} {path}"
    if Path(path).suffix == SAFETENSORS:
        tensors, _ = read_safetensors(path, option)
    else:
        tensors = dict(_flat(load_file(path, option)))
    if name := not_finite(tensors):
        raise DamagedError(f"{where}: {name} is not finite")
    return tensors


def read_safetensors(path: str | Path, option: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a file of safetensors.

    The file is opened by its number, since safetensors refuses paths that are not UTF-8.

    Raises:
        UserError: if the file is missing or damaged.
    """
    where = f"{option} {path}"
    with (
        open_file(path, option) as file,
        content_of(where, f"a {SAFETENSORS} file"),
        safe_open(f"/dev/fd/{file.fileno()}", framework="pt") as content,
    ):
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        return tensors, content.metadata() or {}


def _flat(
    content: dict[Any, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, dict) and depth < DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)


def select_tensors(
    tensors: dict[str, Tensor], own: dict[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Select the tensors of a network from those of a file.

    The prefix with the most compatible tensors is used. If some of these have other names, all
    tensors are assigned by their order and shapes. A line is printed if that happens, or if the
    file contains several networks.

    Args:
        tensors: of the file, see `read_tensors`.
        own: the tensors that the network needs, without counters.
        where: the option, the path and the name of the network, for messages.

    Returns:
        The tensors of the file by the names in `own`.

    Raises:
        UserError: if a tensor is missing or has another shape.
    """
    prefixes = _prefixes(tensors, own)
    fitting = {prefix: _compatible(tensors, own, prefix) for prefix in prefixes}
    prefix = min(prefixes, key=lambda one: (-len(fitting[one]), _preference(one)), default="")
    selected = fitting.get(prefix, {})
    if len(selected) < len(own):
        under = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        if in_order := _by_order(under, own):
            print(
                f"{where}: the tensors are assigned by their order and shapes, since some names "
                f"differ, such as {next(name for name in own if name not in selected)}"
            )
            return in_order
        missing = [name for name in own if name not in selected]
        raise UserError(
            f"{where}: {len(missing)} of {len(own)} tensors are missing or have another shape; "
            f"expected {first_of(missing, 1)}, found {first_of(tensors)}"
        )
    if sum(len(one) == len(selected) for one in fitting.values()) > 1:
        print(f"{where}: of several networks in the file, {prefix.rstrip('.')} is used")
    return selected


def _prefixes(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Return every text that precedes the first own name in the names of the file."""
    first = next(iter(own), "")
    return [
        name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")
    ]


def _compatible(
    tensors: dict[str, Tensor], own: dict[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    found = {name: tensors[prefix + name] for name in own if prefix + name in tensors}
    return {name: v for name, v in found.items() if not incompatibility(v, own[name])}


def _preference(prefix: str) -> int:
    parts = prefix.split(".")
    return next((i for i, part in enumerate(PREFERRED) if part in parts), len(PREFERRED))


def _by_order(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Assign the first tensors of the file to the network's tensors in order.

    Returns:
        The tensors by the network's names; {} if a shape or the last part of a name differs.
    """
    values = [(name, v) for name, v in tensors.items() if v.is_floating_point()]
    for (name, own_value), (other, value) in zip(own.items(), values):
        last = other.rpartition(".")[2]
        if name.rpartition(".")[2] != OTHER_NAMES.get(last, last):
            return {}
        if incompatibility(value, own_value):
            return {}
    return dict(zip(own, (v for _, v in values))) if len(values) >= len(own) else {}
