"""Every random generator: seeded, and saved, so that a resumed run draws what it would have."""

import random

import numpy as np
import torch

from utils.errors import UserError, reason_of


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator_states() -> dict:
    """Python's, NumPy's, torch's and CUDA's, as tensors and plain numbers (loadable with
    weights_only). Loader workers hold none: batches depend on seed, epoch and index alone."""
    version, internal, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_generators(states: dict, where: str) -> None:
    """UserError where `states` are not what `generator_states` gives; where: whose they are."""
    try:
        version, internal, gauss = states["python"]
        random.setstate((version, tuple(internal), gauss))
        name, keys, place, *rest = states["numpy"]
        if place not in range(len(keys) + 1):
            raise ValueError(f"numpy's place is {place}")
        np.random.set_state((name, keys.numpy().astype(np.uint32), place, *rest))
        torch.set_rng_state(states["torch"])
        if states["cuda"] is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])
    except Exception as error:  # of each of them
        raise UserError(
            f"{where}: the states of its random generators cannot be restored ({reason_of(error)})"
        ) from None
