"""Seeds and states of all random generators, so that a resumed run equals an uninterrupted one."""

import random

import numpy as np
import torch

from utils.errors import UserError, reason_of


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator_states(device: torch.device) -> dict:
    """Return the states of the generators of Python, NumPy and PyTorch, and of `device` if it is a
    GPU.

    They consist of tensors and numbers, which torch.load reads with weights_only. Loader workers
    have no generator: a batch depends only on seed, epoch and index.
    """
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_generators(states: dict, device: torch.device, where: str) -> None:
    """Set the generators to the result of an earlier `generator_states`.

    Args:
        states: that result.
        device: of the run.
        where: the file that holds it, for messages.

    Raises:
        UserError: if `states` has another form.
    """
    try:
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, place, *rest = states["numpy"]
        if place not in range(len(keys) + 1):
            raise ValueError(f"NumPy's position is {place}")
        np.random.set_state((name, keys.numpy().astype(np.uint32), place, *rest))
        torch.set_rng_state(states["torch"])
        if states["cuda"] is not None and device.type == "cuda":
            torch.cuda.set_rng_state(states["cuda"], device)
    except Exception as error:  # each library raises other types
        raise UserError(
            f"{where}: the random generator states cannot be restored ({reason_of(error)})"
        ) from None
