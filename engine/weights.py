"""Weights to hand on: a .safetensors file with what inference needs, and its config in the header.

The tensors are the network's without the OIM table, which training alone reads, in float32 or in
half precision. The header's metadata: "config", YAML; "thresholds", JSON, where an evaluation has
found them; "crc32" of all that.
"""

import json
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from utils.errors import DamagedError, UserError
from utils.files import content_of, open_file, written_beside

SUFFIX = ".safetensors"
TABLE = "roi_heads.oim."  # the tensors left out begin so


def save_weights(
    state: dict[str, Tensor], config: str, thresholds: dict | None, path: Path, half: bool
) -> None:
    """Write a network's state without its OIM table. half: numbers in float16; UserError where
    one is too large for that."""
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
    """{"model": state in the file's precision, "config": YAML, "thresholds": dict or None};
    UserError where missing, damaged, or of another kind."""
    open_file(path, what).close()
    where = f"{what} {path}"
    with content_of(where, f"a {SUFFIX} file"), safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if "config" not in header:
        raise UserError(
            f"{what} {path}: expected weights written by tools.export_weights; found a "
            f"{SUFFIX} file without a config"
        )
    if header.pop("crc32", None) != _checksum(state, header):
        raise DamagedError(f"{what} {path}: damaged (its checksum is another)")
    thresholds = json.loads(header["thresholds"]) if "thresholds" in header else None
    return {"model": state, "config": header["config"], "thresholds": thresholds}


def _halved(name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return value
    if not value.half().isfinite().all():
        raise UserError(f"--half: {name} holds {value.abs().max():g}, too large for half precision")
    return value.half()


def _bytes(value: Tensor) -> bytes:
    """NumPy has no bfloat16."""
    return value.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _checksum(state: dict[str, Tensor], header: dict[str, str]) -> str:
    """Of names, kinds, numbers and header, in order of their names."""
    facts = {name: (text, b"") for name, text in header.items()} | {
        name: (f"{value.dtype} {list(value.shape)}", _bytes(value)) for name, value in state.items()
    }
    total = 0
    for name, (text, numbers) in sorted(facts.items()):
        total = zlib.crc32(numbers, zlib.crc32(f"{name} {text}".encode(), total))
    return f"{total:08x}"
