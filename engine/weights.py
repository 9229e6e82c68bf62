"""Inference-only weights: a .safetensors file with a network's tensors and its config.

The tensors are those of the network without the OIM table, which only training reads, in float32 or
in half precision. The metadata in the header are "config" (YAML), "thresholds" (JSON, if an
evaluation has found them) and "crc32", a checksum of tensors and metadata.
"""

import json
import zlib
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from engine.metadata import Thresholds, parse_thresholds
from utils.errors import DamagedError, UserError
from utils.files import written_beside
from utils.states import tensor_bytes
from utils.weight_files import SAFETENSORS as SUFFIX
from utils.weight_files import read_safetensors

TABLE = "roi_heads.oim."  # prefix of the tensors that are left out


def save_weights(
    state: dict[str, Tensor], config: str, thresholds: Thresholds | None, path: Path, half: bool
) -> None:
    """Write the state of a network, without its OIM table.

    Args:
        thresholds: {rate: similarity}, or None.
        half: whether to convert floating-point numbers to float16.

    Raises:
        UserError: if a number is too large for float16.
    """
    kept = {name: value for name, value in state.items() if not name.startswith(TABLE)}
    if half:
        kept = {name: _halved(name, value) for name, value in kept.items()}
    kept = {name: value.contiguous() for name, value in kept.items()}
    header = {"format": "pt", "config": config}
    if thresholds is not None:
        header["thresholds"] = json.dumps(thresholds)
    header["crc32"] = _checksum(kept, header)
    with written_beside(path) as file:
        file.write(save(kept, header))


def load_weights(path: str | Path, what: str) -> dict:
    """Read inference-only weights.

    Returns:
        {"model": state in the precision of the file, "config": YAML, "thresholds": dict or None}.

    Raises:
        UserError: if the file is missing, damaged, or was not written by tools.export_weights.
    """
    where = f"{what} {path}"
    state, header = read_safetensors(path, what)
    if "config" not in header:
        raise UserError(
            f"{where}: expected weights written by tools.export_weights; found a "
            f"{SUFFIX} file without a config"
        )
    if header.pop("crc32", None) != _checksum(state, header):
        raise DamagedError(f"{where}: damaged (the checksum does not match)")
    text = header.get("thresholds")
    thresholds = None if text is None else parse_thresholds(text, where)
    return {"model": state, "config": header["config"], "thresholds": thresholds}


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    if not value.half().isfinite().all():
        raise UserError(f"--half: {name} holds {value.abs().max():g}, too large for half precision")
    return value.half()


def _checksum(state: dict[str, Tensor], header: dict[str, str]) -> str:
    """Return the CRC-32 of the names, types, shapes and bytes of all tensors, and of the header.

    Tensors are in the order of their names.
    """
    facts = {name: (text, memoryview(b"")) for name, text in header.items()} | {
        name: (f"{value.dtype} {list(value.shape)}", tensor_bytes(value))
        for name, value in state.items()
    }
    total = 0
    for name, (text, numbers) in sorted(facts.items()):
        total = zlib.crc32(numbers, zlib.crc32(f"{name} {text}".encode(), total))
    return f"{total:08x}"
